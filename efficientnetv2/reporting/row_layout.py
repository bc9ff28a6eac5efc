"""Lays out the prediction for an image as a row of a table, for each kind of labels."""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.data.sources.table_file import SEPARATOR
from hparams.label_kinds import NUMBERS, ONE, SEVERAL

Row = tuple[str, list[tuple[str, float]]]  # image, [(class, probability)] or [(name, number)]


@dataclasses.dataclass(frozen=True)
class RowLayout(abc.ABC):
    """The columns of a table of predictions, and the values in them.

    Attributes:
      names: of the classes or numbers, in the order of the network's outputs.
      count: classes that each row has; only where an image has one.
    """

    names: Sequence[str]
    count: int

    @property
    @abc.abstractmethod
    def columns(self) -> list[str]:
        """The names of the columns; the first is ``image``."""

    @property
    def text_columns(self) -> Sequence[str]:
        """The columns that hold text, not numbers."""
        return self.columns

    @abc.abstractmethod
    def cells(self, row: Row) -> list[Any]:
        """Returns a row's values, one a column."""

    def entry(self, row: Row) -> dict[str, Any]:
        """Returns a row as it is written as JSON."""
        image, classes = row
        return {"image": image, "classes": [{"name": n, "probability": p} for n, p in classes]}

    def row_of(self, entry: Mapping[str, Any]) -> Row:
        """Returns the row of which ``entry`` was made."""
        return entry["image"], [(c["name"], c["probability"]) for c in entry["classes"]]

    @property
    def headings(self) -> list[str]:
        """The names of the columns on a terminal, for the image and ``shown``."""
        return self.columns

    @abc.abstractmethod
    def shown(self, row: Row) -> list[str]:
        """Returns a row's values as text for a terminal, without the image."""


class ClassRows(RowLayout):
    """Of images of one class: the likeliest classes, each with its probability."""

    @property
    def columns(self) -> list[str]:
        """``image``, ``class_1``, ``probability_1``, ``class_2`` ..."""
        places = range(1, self.count + 1)
        return [
            "image",
            *(f"{what}_{place}" for place in places for what in ("class", "probability")),
        ]

    @property
    def headings(self) -> list[str]:
        """``image``, 1, 2 ..."""
        return ["image", *(str(place) for place in range(1, self.count + 1))]

    @property
    def text_columns(self) -> Sequence[str]:
        """``image`` and the classes."""
        return self.columns[:1] + self.columns[1::2]

    def cells(self, row: Row) -> list[Any]:
        """Returns image, class, probability, class ..."""
        image, classes = row
        return [image, *itertools.chain.from_iterable(classes)]

    def shown(self, row: Row) -> list[str]:
        """Returns a class and its probability a column."""
        return [f"{name} {probability:.1%}" for name, probability in row[1]]


class LabelRows(RowLayout):
    """Of images of several classes: those above their thresholds, the likeliest first."""

    @property
    def columns(self) -> list[str]:
        """``image``, ``labels`` and ``probabilities``: the latter two separated by ``|``."""
        return ["image", "labels", "probabilities"]

    @property
    def headings(self) -> list[str]:
        """``image`` and ``labels``, with the probabilities in one column."""
        return self.columns[:2]

    def cells(self, row: Row) -> list[Any]:
        """Returns image, labels, probabilities."""
        image, classes = row
        texts = ([name for name, _ in classes], [str(value) for _, value in classes])
        return [image, *map(SEPARATOR.join, texts)]

    def shown(self, row: Row) -> list[str]:
        """Returns all classes and their probabilities in one column."""
        return [", ".join(f"{name} {value:.1%}" for name, value in row[1]) or "none"]


class NumberRows(RowLayout):
    """Of images with numbers: the numbers, in the user's unit."""

    @property
    def columns(self) -> list[str]:
        """``image`` and the names of the numbers."""
        return ["image", *self.names]

    @property
    def text_columns(self) -> Sequence[str]:
        """``image``."""
        return ("image",)

    def cells(self, row: Row) -> list[Any]:
        """Returns the image and its numbers."""
        image, numbers = row
        return [image, *(value for _, value in numbers)]

    def entry(self, row: Row) -> dict[str, Any]:
        """Returns the image, and ``numbers``: their names and values."""
        return {"image": row[0], "numbers": dict(row[1])}

    def row_of(self, entry: Mapping[str, Any]) -> Row:
        """Returns the row of which ``entry`` was made."""
        return entry["image"], list(entry["numbers"].items())

    def shown(self, row: Row) -> list[str]:
        """Returns a number a column, with six digits."""
        return [f"{value:.6g}" for _, value in row[1]]


LAYOUTS: Mapping[str, type[RowLayout]] = {ONE: ClassRows, SEVERAL: LabelRows, NUMBERS: NumberRows}
