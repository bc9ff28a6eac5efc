"""Holds a network's prediction for one image file, or why it cannot be read. No TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from hparams.label_kinds import DEFAULT_THRESHOLD, NUMBERS, ONE, SEVERAL, UNKNOWN

_SHOWN = 3  # classes in a ``repr``


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """A network's prediction for one image.

    >>> prediction = Prediction(
    ...     pathlib.Path("new/1.jpg"), ["cat", "dog"], np.array([0.25, 0.75], np.float32)
    ... )
    >>> prediction
    Prediction('new/1.jpg', dog 75.0%, cat 25.0%)
    >>> prediction.class_name, prediction.top(1)
    ('dog', [('dog', 0.75)])

    Attributes:
      path: the image file.
      class_names: K names, of the classes or the numbers.
      probabilities: float32 ``[K]``, 0..1, in the order of the names; of a network that predicts
        numbers, these.
      features: float32 ``[F]``, the classifier's input; None: not requested.
      image: float32 ``[S, S, 3]``, normalised, the crop that was used (of several, the central);
        None: not requested.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      thresholds: float32 ``[K]``, from which on an image has a class, where it may have several;
        None: 0.5 each.
      known_from: 0..1, an image whose best probability is below it is unknown; None: none is.
    """

    path: pathlib.Path
    class_names: Sequence[str]
    probabilities: np.ndarray
    features: np.ndarray | None = None
    image: np.ndarray | None = None
    kind: str = ONE
    thresholds: np.ndarray | None = None
    known_from: float | None = None

    @property
    def class_name(self) -> str:
        """The likeliest class, of an unknown image too."""
        return self.class_names[int(self.probabilities.argmax())]

    @property
    def is_unknown(self) -> bool:
        """Whether the image seems to be of none of the classes: no probability is high enough."""
        return self.known_from is not None and bool(self.probabilities.max() < self.known_from)

    @property
    def answer(self) -> str:
        """``unknown``, or the likeliest class, or all ``labels`` with ``|`` between them."""
        if self.is_unknown:
            return UNKNOWN
        return "|".join(self.labels) if self.kind == SEVERAL else self.class_name

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns (class, probability) of the ``count`` likeliest classes, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.class_names[index], float(self.probabilities[index])) for index in order]

    @property
    def labels(self) -> list[str]:
        """The classes whose probability is at least their threshold, the likeliest first."""
        thresholds = DEFAULT_THRESHOLD if self.thresholds is None else self.thresholds
        order = np.argsort(-self.probabilities, kind="stable")
        chosen = (self.probabilities >= thresholds)[order]
        return [self.class_names[index] for index in order[chosen]]

    @property
    def numbers(self) -> dict[str, float]:
        """Name -> number, of a network that predicts numbers, in the unit of its labels."""
        return {name: float(value) for name, value in zip(self.class_names, self.probabilities)}

    def row(self, top_k: int) -> list[tuple[str, float]]:
        """Returns what a table of predictions says of the image.

        The ``top_k`` likeliest classes with their probabilities; where an image may have several,
        those above their thresholds; or the numbers.
        """
        if self.kind == ONE:
            return self.top(top_k)
        values = self.numbers
        names = self.labels if self.kind == SEVERAL else self.class_names
        return [(name, values[name]) for name in names]

    def __repr__(self) -> str:
        form = ".6g" if self.kind == NUMBERS else ".1%"
        rows = self.row(_SHOWN)
        best = (f"{name} {value:{form}}" for name, value in rows[:_SHOWN])
        several = len(self.class_names) if self.kind == ONE else len(rows)
        more = ["..."] if several > _SHOWN else []
        return f"Prediction({', '.join([repr(str(self.path)), *best, *more])})"


@dataclasses.dataclass(frozen=True)
class UnreadableImage:
    """An image file that cannot be read.

    Attributes:
      path: the image file.
      reason: what is wrong, in one line that names the file.
    """

    path: pathlib.Path
    reason: str


def numbered_class_names(count: int) -> list[str]:
    """Returns names for classes that have none: "class 0", "class 1", ..."""
    return [f"class {number}" for number in range(count)]
