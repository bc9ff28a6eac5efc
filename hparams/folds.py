"""Reads which fold of a cross-validation ``data.fold`` and ``--folds`` mean."""

from __future__ import annotations

import dataclasses
import re

from hparams.errors import UserError, shown

MOST_FOLDS = 1000


@dataclasses.dataclass(frozen=True)
class Fold:
    """One of several equal parts of the images: the one that a training holds out.

    Attributes:
      number: from 1.
      count: of all folds, at least 2.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_fold(text: str) -> Fold:
    """Returns the fold that ``data.fold`` names: ``2/5`` is the second of five.

    Raises:
      ValueError: if it is no such text.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})", text)
    if match is None:
        raise ValueError
    fold = Fold(int(match[1]), int(match[2]))
    if not 2 <= fold.count <= MOST_FOLDS or fold.number > fold.count:
        raise ValueError
    return fold


def parse_count(text: str) -> int:
    """Returns the number of ``--folds``.

    Raises:
      UserError: if it is no whole number from 2 to ``MOST_FOLDS``.
    """
    if re.fullmatch(r"[0-9]{1,4}", text) and 2 <= int(text) <= MOST_FOLDS:
        return int(text)
    raise UserError(f"--folds must be a whole number from 2 to {MOST_FOLDS}, got {shown(text)}")
