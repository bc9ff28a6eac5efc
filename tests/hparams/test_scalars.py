"""Conversion of single values: decimal digits alone, and NumPy's scalars as Python's."""

import math

import numpy as np
import pytest

from hparams.scalars import CONVERTERS, plain, to_bool, to_float, to_int, to_str


@pytest.mark.parametrize(
    ("convert", "value", "expected"),
    [
        (to_bool, "True", True),
        (to_bool, np.bool_(False), False),
        (to_int, "-012", -12),
        (to_int, "+3", 3),
        (to_int, np.int16(-4), -4),
        (to_int, np.array(5), 5),
        (to_float, "1e-3", 0.001),
        (to_float, "-.5E+2", -50.0),
        (to_float, "5.", 5.0),
        (to_float, 7, 7.0),
        (to_float, np.float32(0.25), 0.25),
        (to_str, np.str_("a"), "a"),
        (to_str, "", ""),
    ],
)
def test_values_become_plain_python(convert, value, expected):
    result = convert(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("kind", CONVERTERS)
@pytest.mark.parametrize("value", [None, b"1", [1], 1j, object(), np.array([1])])
def test_nothing_else_is_converted(kind, value):
    with pytest.raises(ValueError, match=r"^$"):
        CONVERTERS[kind](value)


@pytest.mark.parametrize(
    "text",
    ["1_000", "\u0661\u0662", "\uff11", "\u00b2", " 1", "1\n", "", "+", "--1", "0x1", "nan", "inf"],
)
@pytest.mark.parametrize("convert", [to_int, to_float])
def test_numbers_have_decimal_digits_alone(convert, text):
    with pytest.raises(ValueError, match=r"^$"):
        convert(text)


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("inf"), "1e400", 10**400, True])
def test_floats_are_finite(value):
    with pytest.raises(ValueError, match=r"^$"):
        to_float(value)


def test_text_holds_no_nul():
    with pytest.raises(ValueError, match=r"^$"):
        to_str("a\0b")


def test_only_numpy_scalars_are_changed():
    values = [1, "a", [1], np.array([1])]
    assert all(plain(value) is value for value in values)
    assert type(plain(np.float64(0.5))) is float
