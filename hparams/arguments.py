"""Checks the arguments of public functions, which Python code may call with any value."""

from __future__ import annotations

import numbers
import operator
import os
from typing import Any

from hparams.errors import UserError, shown
from hparams.scalars import plain


def check_flag(name: str, value: Any) -> bool:
    """Returns an argument that must be True or False.

    Raises:
      TypeError: if it is neither; ``include_top="no"`` would count as true.
    """
    value = plain(value)
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def check_count(name: str, value: Any, *, high: int) -> int:
    """Returns an argument that must be a whole number from 1 to ``high``.

    Raises:
      TypeError: if it is no whole number; text, floats and bools are none.
      ValueError: if it is out of range.
    """
    value = plain(value)
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(number)}")
    if number > high:
        raise ValueError(f"{name} must be at most {high}, got {shown(number)}")
    return number


def check_text(name: str, value: Any, *, what: str = "text or a path") -> str:
    """Returns an argument that must be text or a ``pathlib.Path``, as text.

    Raises:
      UserError: if it is neither; its ``str`` would be taken for a name.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise UserError(f"{name} must be {what}, got {shown(value)}")
    return value


def check_setting(name: str, value: Any) -> Any:
    """Returns an argument that stands for a setting: a number or text, to be checked as one.

    Raises:
      UserError: if it is neither.
    """
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):
        raise UserError(f"{name} must be a number or a name, got {shown(value)}")
    return value
