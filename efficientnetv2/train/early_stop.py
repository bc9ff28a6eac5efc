"""Finds the best minival result in metrics.jsonl, and how many epochs ago it was reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

SIZE = "minival_size"  # pixels; results at different image sizes cannot be compared


def best_result(
    lines: Iterable[Mapping[str, Any]], metric: str, *, image_size: int | None = None
) -> float | None:
    """Returns the best result of raw or averaged weights; None if there is none.

    Args:
      lines: of metrics.jsonl.
      metric: a row of ``hparams.label_kinds.METRICS``.
      image_size: pixels; evaluations of another size do not count. None: all of them count.
    """
    of_size = (
        line for line in lines if image_size is None or line.get(SIZE, image_size) == image_size
    )
    return max((value for line in of_size for value in results(line, metric)), default=None)


def epochs_without_better(lines: Iterable[Mapping[str, Any]], metric: str) -> int:
    """Returns how many validated epochs came after the best one; an equal one is not better.

    The count starts anew when progressive learning changes the image size.
    """
    best, epochs_since, size = -math.inf, 0, None
    for line in lines:
        values = results(line, metric)
        if not values:
            continue
        if line.get(SIZE) != size:
            best, epochs_since, size = -math.inf, 0, line.get(SIZE)
        epochs_since += 1
        if max(values) > best:
            best, epochs_since = max(values), 0
    return epochs_since


def results(line: Mapping[str, Any], metric: str) -> list[float]:
    """Returns the results of raw and of averaged weights in a line, as far as there are any."""
    keys = (f"minival_{metric}", f"minival_ema_{metric}")
    return [line[key] for key in keys if key in line]
