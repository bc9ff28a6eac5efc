"""Tests step times with a fake clock: warm-up, median, spread and repetition."""

import pytest

from efficientnetv2.search.step_timer import time_step


class Machine:
    """A fake step and clock: each step takes the next of the given seconds."""

    def __init__(self, *seconds):
        self._left = list(seconds)
        self._now = 0.0

    def step(self):
        self._now += self._left.pop(0)

    def clock(self):
        return self._now

    def time(self, steps, max_spread=0.1):
        timed = time_step(self.step, steps=steps, max_spread=max_spread, clock=self.clock)
        assert self._left == []
        return timed


def test_the_warm_up_does_not_count_and_the_median_does():
    timed = Machine(30, 9, 9, 1.0, 1.02, 1.01, 50.0, 1.0).time(5, max_spread=0.02)
    assert timed.seconds == pytest.approx(1.01)
    assert timed.spread == pytest.approx((1.02 - 1.0) / 1.01)  # quartiles, not the outlier
    assert timed.rounds == 1


def test_a_large_spread_is_measured_again():
    timed = Machine(0, 0, 0, 1, 2, 3, 4, 5, 2, 2, 2, 2, 2).time(5)
    assert (timed.seconds, timed.spread, timed.rounds) == (2, 0, 2)


def test_the_best_of_three_counts_and_its_spread_is_kept():
    first, second, third = (1, 2, 3, 4, 5), (3, 3.5, 4, 4.5, 5), (1, 2, 3, 5, 9)
    timed = Machine(0, 0, 0, *first, *second, *third).time(5)
    assert (timed.seconds, timed.spread, timed.rounds) == (4, 0.25, 3)
