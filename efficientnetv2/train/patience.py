"""The lines of metrics.jsonl in; the best minival accuracy so far, and how long ago, out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_TOP1 = ("minival_top1", "minival_ema_top1")


def best_top1(lines: Iterable[Mapping[str, Any]]) -> float:
    """Returns the best top-1 (0..1) of an epoch, raw or averaged weights; 0 if none is known."""
    return max((max(values) for values in map(_values, lines) if values), default=0.0)


def epochs_without_better(lines: Iterable[Mapping[str, Any]]) -> int:
    """Returns how many validated epochs came after the best one; equal is not better."""
    best, since = 0.0, 0
    for values in filter(None, map(_values, lines)):
        since += 1
        if max(values) > best:
            best, since = max(values), 0
    return since


def _values(line: Mapping[str, Any]) -> list[float]:
    return [line[key] for key in _TOP1 if key in line]
