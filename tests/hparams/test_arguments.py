"""Checks of the arguments of public functions: types, ranges, NumPy's scalars."""

import numpy as np
import pytest

from hparams.arguments import check_count, check_flag


@pytest.mark.parametrize("value", [7, np.int64(7), np.uint8(7), np.array(7)])
def test_whole_numbers(value):
    result = check_count("parts", value, high=7)
    assert result == 7
    assert type(result) is int


@pytest.mark.parametrize(
    "value", ["7", 7.0, True, np.bool_(True), np.float32(7), np.array([7, 8]), None, [7], b"7"]
)
def test_other_types(value):
    with pytest.raises(TypeError, match=r"^parts must be a whole number, got [^\n]+$"):
        check_count("parts", value, high=7)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "at least 1, got 0"),
        (-3, "at least 1, got -3"),
        (8, "at most 7, got 8"),
        pytest.param(10**5000, "at most 7, got a number of about 5001 digits", id="huge"),
    ],
)
def test_ranges(value, message):
    with pytest.raises(ValueError, match=f"^parts must be {message}$"):
        check_count("parts", value, high=7)


@pytest.mark.parametrize("value", [True, np.bool_(True)])
def test_flags(value):
    assert check_flag("include_top", value) is True


@pytest.mark.parametrize("value", [1, 0, None, "no", "false", np.int64(1), []])
def test_flags_are_true_or_false(value):
    with pytest.raises(TypeError, match=r"^include_top must be True or False, got [^\n]+$"):
        check_flag("include_top", value)
