"""Default, type and limits of a configuration key in; a ``Key``, which holds them, out."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration key.

    Attributes:
      default: the value where no model, data set or user sets another; None means "not set".
      kind: bool, int, float, str or list (of ``item`` values).
      meaning: unit and meaning, one line.
      low: smallest value allowed, if any.
      high: largest value allowed, if any.
      above: the value must be greater than this, if given.
      choices: the only values allowed, if given.
      item: type of a list's items.
      length: exact number of a list's items, if fixed.
    """

    default: Any
    kind: type
    meaning: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    item: type = str
    length: int | None = None
