"""A step that can be called in; how long it takes, and how sure that is, out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

_WARM_UP = 3  # calls; the first one traces
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The time of one step.

    Attributes:
      seconds: median.
      spread: of the middle half of the steps, as a share of the median.
      rounds: how often it was measured; the one with the least spread counts.
      timed_from: when that began, seconds since 1970.
      timed_until: when it ended.
    """

    seconds: float
    spread: float
    rounds: int
    timed_from: float
    timed_until: float


def time_step(
    step: Callable[[], object],
    *,
    steps: int,
    max_spread: float,
    clock: Callable[[], float] = time.perf_counter,
) -> StepTime:
    """Times a step, again where the spread is large.

    Args:
      step: returns when the device is done.
      steps: timed calls a round.
      max_spread: that is small enough.
      clock: in seconds.
    """
    start = time.time()
    for _ in range(_WARM_UP):
        step()
    rounds: list[tuple[float, float]] = []  # spread, seconds
    while len(rounds) < _ROUNDS and (not rounds or rounds[-1][0] > max_spread):
        rounds.append(_middle([_seconds(step, clock) for _ in range(steps)]))
    spread, seconds = min(rounds)
    return StepTime(seconds, spread, len(rounds), start, time.time())


def _seconds(step: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return clock() - start


def _middle(times: Sequence[float]) -> tuple[float, float]:
    low, median, high = np.percentile(times, [25, 50, 75])
    return float((high - low) / median), float(median)
