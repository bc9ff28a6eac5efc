"""Converts single values, given as text or by Python code, to bool, int, float and str.

Numbers are written with the digits 0 to 9. Python's own ``int`` and ``float`` also take ``1_000``,
the digits of other scripts, ``nan`` and ``inf``, which are more likely mistakes than settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def plain(value: Any) -> Any:
    """Returns a NumPy scalar as the Python value that it stands for, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def to_bool(value: Any) -> bool:
    """Converts a bool, or the text ``true`` or ``false`` in any case.

    Raises:
      ValueError: if it is anything else.
    """
    value = plain(value)
    if isinstance(value, bool):
        return value
    words = {"true": True, "false": False}
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError
    return words[value.lower()]


def to_int(value: Any) -> int:
    """Converts an integer, or the text of one in decimal digits.

    Raises:
      ValueError: if it is anything else, a bool and 3.0 included.
    """
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError
    if isinstance(value, str) and _WHOLE.fullmatch(value) is None:
        raise ValueError
    return int(value)


def to_float(value: Any) -> float:
    """Converts a finite number, or the text of one such as ``0.5``, ``2`` or ``1e-3``.

    Raises:
      ValueError: if it is anything else.
    """
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    if isinstance(value, str) and _DECIMAL.fullmatch(value) is None:
        raise ValueError
    try:
        number = float(value)
    except OverflowError:
        raise ValueError from None
    if not math.isfinite(number):
        raise ValueError
    return number


def to_str(value: Any) -> str:
    """Converts text; NumPy's text becomes Python's.

    Raises:
      ValueError: if it is not text, or holds the character NUL, which no path may have.
    """
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    return str(value)


CONVERTERS: dict[type, Callable[[Any], Any]] = {
    bool: to_bool,
    int: to_int,
    float: to_float,
    str: to_str,
}
