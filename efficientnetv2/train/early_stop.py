"""Finds the best minival accuracy in metrics.jsonl, and how many epochs ago it was reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_TOP1 = ("minival_top1", "minival_ema_top1")


def best_top1(lines: Iterable[Mapping[str, Any]]) -> float:
    """Returns the best top-1 accuracy (0..1) of raw or averaged weights; 0 if there is none."""
    return max((max(values) for values in map(_values, lines) if values), default=0.0)


def epochs_without_better(lines: Iterable[Mapping[str, Any]]) -> int:
    """Returns how many validated epochs came after the best one; an equal one is not better."""
    best, epochs_since = 0.0, 0
    for values in filter(None, map(_values, lines)):
        epochs_since += 1
        if max(values) > best:
            best, epochs_since = max(values), 0
    return epochs_since


def _values(line: Mapping[str, Any]) -> list[float]:
    return [line[key] for key in _TOP1 if key in line]
