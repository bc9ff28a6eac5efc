"""Finds the best minival accuracy in metrics.jsonl, and how many epochs ago it was reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_TOP1 = ("minival_top1", "minival_ema_top1")
SIZE = "minival_size"  # pixels; accuracies at different image sizes cannot be compared


def best_top1(lines: Iterable[Mapping[str, Any]], *, image_size: int | None = None) -> float:
    """Returns the best top-1 accuracy (0..1) of raw or averaged weights; 0 if there is none.

    Args:
      lines: of metrics.jsonl.
      image_size: pixels; evaluations of another size do not count. None: all of them count.
    """
    of_size = (
        line for line in lines if image_size is None or line.get(SIZE, image_size) == image_size
    )
    return max((max(values) for values in map(_values, of_size) if values), default=0.0)


def epochs_without_better(lines: Iterable[Mapping[str, Any]]) -> int:
    """Returns how many validated epochs came after the best one; an equal one is not better.

    The count starts anew when progressive learning changes the image size.
    """
    best, epochs_since, size = 0.0, 0, None
    for line in lines:
        values = _values(line)
        if not values:
            continue
        if line.get(SIZE) != size:
            best, epochs_since, size = 0.0, 0, line.get(SIZE)
        epochs_since += 1
        if max(values) > best:
            best, epochs_since = max(values), 0
    return epochs_since


def _values(line: Mapping[str, Any]) -> list[float]:
    return [line[key] for key in _TOP1 if key in line]
