"""Tests the reward against numbers computed by hand."""

import math

import pytest

from efficientnetv2.search.reward import Reward

PAPER = Reward(w=-0.07, v=-0.05, seconds=0.5, parameters=4_000_000)


def test_the_backbone_has_its_accuracy():
    assert PAPER(0.83, seconds=0.5, parameters=4_000_000) == 0.83


@pytest.mark.parametrize(
    ("accuracy", "seconds", "parameters", "expected"),
    [
        (0.80, 1.0, 4_000_000, 0.7621104),  # 0.8 * 2^-0.07: ln 2 * 0.07 = 0.04852030
        (0.80, 0.5, 8_000_000, 0.7727491),  # 0.8 * 2^-0.05: ln 2 * 0.05 = 0.03465736
        (0.80, 0.25, 2_000_000, 0.8693879),  # 0.8 * 2^0.12: ln 2 * 0.12 = 0.08317766
        (0.0, 0.25, 2_000_000, 0.0),
    ],
)
def test_by_hand(accuracy, seconds, parameters, expected):
    value = PAPER(accuracy, seconds=seconds, parameters=parameters)
    assert value == pytest.approx(expected, abs=1e-7)


def test_a_zero_exponent_leaves_its_factor_out():
    reward = Reward(w=0.0, v=0.0, seconds=1.0, parameters=1)
    assert reward(0.5, seconds=9.0, parameters=9) == 0.5


def test_units_do_not_matter():
    other = Reward(w=-0.07, v=-0.05, seconds=500.0, parameters=4)
    assert other(0.7, seconds=300.0, parameters=5) == pytest.approx(
        PAPER(0.7, seconds=0.3, parameters=5_000_000)
    )


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_time_is_refused(wrong):
    with pytest.raises(ValueError, match=f"step time must be above 0, got {wrong}"):
        PAPER(0.5, seconds=wrong, parameters=1)
    with pytest.raises(ValueError, match="number of parameters must be above 0"):
        PAPER(0.5, seconds=1.0, parameters=wrong)
    with pytest.raises(ValueError, match="the backbone's step time must be above 0"):
        Reward(w=-0.07, v=-0.05, seconds=wrong, parameters=1)
    with pytest.raises(ValueError, match="the backbone's number of parameters"):
        Reward(w=-0.07, v=-0.05, seconds=1.0, parameters=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_what_is_no_accuracy_is_refused(wrong):
    with pytest.raises(ValueError, match=r"accuracy must be in 0\.\.1"):
        PAPER(wrong, seconds=1.0, parameters=1)
