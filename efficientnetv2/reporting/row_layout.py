"""Lays out the prediction for an image as a row of a table, for each kind of labels."""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from efficientnetv2.data.sources.table_file import SEPARATOR
from hparams.label_kinds import NUMBERS, ONE, SEVERAL


class Row(NamedTuple):
    """What is predicted for an image.

    Attributes:
      image: its name.
      values: (class, probability) or (name, number).
      answer: the likeliest class or ``unknown``; only shown where the layout has answers.
    """

    image: str
    values: list[tuple[str, float]]
    answer: str = ""


@dataclasses.dataclass(frozen=True)
class RowLayout(abc.ABC):
    """The columns of a table of predictions, and the values in them.

    Attributes:
      names: of the classes or numbers, in the order of the network's outputs.
      count: classes that each row has; only where an image has one.
      with_answer: whether a column says which class it is, or ``unknown``; not with numbers.
    """

    names: Sequence[str]
    count: int
    with_answer: bool = False

    @property
    @abc.abstractmethod
    def columns(self) -> list[str]:
        """The names of the columns; the first is ``image``."""

    @property
    def first_columns(self) -> list[str]:
        """``image``, and ``answer`` if there are answers."""
        return ["image", *["answer"] * self.with_answer]

    def first_cells(self, row: Row) -> list[Any]:
        """Returns the values of ``first_columns``."""
        return [row.image, *[row.answer] * self.with_answer]

    @property
    def text_columns(self) -> Sequence[str]:
        """The columns that hold text, not numbers."""
        return self.columns

    @abc.abstractmethod
    def cells(self, row: Row) -> list[Any]:
        """Returns a row's values, one a column."""

    def entry(self, row: Row) -> dict[str, Any]:
        """Returns a row as it is written as JSON."""
        first = dict(zip(self.first_columns, self.first_cells(row)))
        return {**first, "classes": [{"name": n, "probability": p} for n, p in row.values]}

    def row_of(self, entry: Mapping[str, Any]) -> Row:
        """Returns the row of which ``entry`` was made."""
        classes = [(c["name"], c["probability"]) for c in entry["classes"]]
        return Row(entry["image"], classes, entry.get("answer", ""))

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
        """``image``, maybe ``answer``, ``class_1``, ``probability_1``, ``class_2`` ..."""
        places = range(1, self.count + 1)
        return [
            *self.first_columns,
            *(f"{what}_{place}" for place in places for what in ("class", "probability")),
        ]

    @property
    def headings(self) -> list[str]:
        """``image``, maybe ``answer``, 1, 2 ..."""
        return [*self.first_columns, *(str(place) for place in range(1, self.count + 1))]

    @property
    def text_columns(self) -> Sequence[str]:
        """``image``, the answer and the classes."""
        first = len(self.first_columns)
        return self.columns[:first] + self.columns[first::2]

    def cells(self, row: Row) -> list[Any]:
        """Returns image, maybe answer, class, probability, class ..."""
        return [*self.first_cells(row), *itertools.chain.from_iterable(row.values)]

    def shown(self, row: Row) -> list[str]:
        """Returns a class and its probability a column."""
        classes = (f"{name} {probability:.1%}" for name, probability in row.values)
        return [*self.first_cells(row)[1:], *classes]


class LabelRows(RowLayout):
    """Of images of several classes: those above their thresholds, the likeliest first."""

    @property
    def columns(self) -> list[str]:
        """``image``, maybe ``answer``, ``labels`` and ``probabilities``.

        The latter two are separated by ``|``.
        """
        return [*self.first_columns, "labels", "probabilities"]

    @property
    def headings(self) -> list[str]:
        """``image`` and ``labels``, with the probabilities in one column."""
        return self.columns[:-1]

    def cells(self, row: Row) -> list[Any]:
        """Returns image, maybe answer, labels, probabilities."""
        texts = ([name for name, _ in row.values], [str(value) for _, value in row.values])
        return [*self.first_cells(row), *map(SEPARATOR.join, texts)]

    def shown(self, row: Row) -> list[str]:
        """Returns all classes and their probabilities in one column."""
        labels = ", ".join(f"{name} {value:.1%}" for name, value in row.values) or "none"
        return [*self.first_cells(row)[1:], labels]


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
        return [row.image, *(value for _, value in row.values)]

    def entry(self, row: Row) -> dict[str, Any]:
        """Returns the image, and ``numbers``: their names and values."""
        return {"image": row.image, "numbers": dict(row.values)}

    def row_of(self, entry: Mapping[str, Any]) -> Row:
        """Returns the row of which ``entry`` was made."""
        return Row(entry["image"], list(entry["numbers"].items()))

    def shown(self, row: Row) -> list[str]:
        """Returns a number a column, with six digits."""
        return [f"{value:.6g}" for _, value in row.values]


LAYOUTS: Mapping[str, type[RowLayout]] = {ONE: ClassRows, SEVERAL: LabelRows, NUMBERS: NumberRows}
