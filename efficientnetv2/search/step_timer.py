"""Times a step, and repeats the measurement where it is noisy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

_WARM_UP = 3  # calls that are not timed; the first one traces
_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The measured time of one step.

    Attributes:
      seconds: median over the steps of a round.
      spread: interquartile range of the steps, as a fraction of the median.
      rounds: number of rounds measured; the one with the smallest spread counts.
      timed_from: when the measurement began, seconds since 1970.
      timed_until: when the measurement ended, seconds since 1970.
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
    """Times a step, in up to three rounds, until the spread of a round is small enough.

    Args:
      step: runs one step; returns when the device is done.
      steps: timed calls in a round.
      max_spread: spread that needs no further round.
      clock: returns the time in seconds.
    """
    start = time.time()
    for _ in range(_WARM_UP):
        step()
    rounds: list[tuple[float, float]] = []  # spread, seconds
    while len(rounds) < _ROUNDS and (not rounds or rounds[-1][0] > max_spread):
        rounds.append(_spread_and_median([_seconds(step, clock) for _ in range(steps)]))
    spread, seconds = min(rounds)
    return StepTime(seconds, spread, len(rounds), start, time.time())


def _seconds(step: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return clock() - start


def _spread_and_median(times: Sequence[float]) -> tuple[float, float]:
    low, median, high = np.percentile(times, [25, 50, 75])
    return float((high - low) / median), float(median)
