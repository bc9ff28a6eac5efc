"""Holds what a network says of one image file, or why the file cannot be read. No TensorFlow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

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
      class_names: K names.
      probabilities: float32 ``[K]``, 0..1, in the order of the names.
      features: float32 ``[F]``, the classifier's input; None: not requested.
      image: float32 ``[S, S, 3]``, normalised, the crop that was used (of several, the central);
        None: not requested.
    """

    path: pathlib.Path
    class_names: Sequence[str]
    probabilities: np.ndarray
    features: np.ndarray | None = None
    image: np.ndarray | None = None

    @property
    def class_name(self) -> str:
        """The likeliest class."""
        return self.class_names[int(self.probabilities.argmax())]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns (class, probability) of the ``count`` likeliest classes, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.class_names[index], float(self.probabilities[index])) for index in order]

    def __repr__(self) -> str:
        best = (f"{name} {probability:.1%}" for name, probability in self.top(_SHOWN))
        more = ["..."] if len(self.class_names) > _SHOWN else []
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
