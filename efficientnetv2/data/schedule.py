"""Looks up the image size, regularisation strengths and batch size of each training step.

A schedule is a piecewise constant table that is read inside the graph. The input pipeline and the
training step read the same table, so an image size and its regularisation arrive together, whatever
has been prefetched.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from hparams.factors import Factors


@dataclasses.dataclass(frozen=True)
class StepSettings(Factors):
    """The value of each factor of progressive learning, for one step or for many.

    Attributes:
      batch_size: images per step over all devices, int.
    """

    batch_size: Any

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Returns the names of all settings."""
        return tuple(field.name for field in dataclasses.fields(StepSettings))

    def asdict(self) -> dict[str, Any]:
        """Returns name -> value."""
        return {name: getattr(self, name) for name in self.names()}


@dataclasses.dataclass(frozen=True)
class SettingsSchedule:
    """A table of settings, each row of which holds for a range of steps.

    Attributes:
      first_step: int64 ``[N]``, ascending from 0: row n holds from this step on.
      rows: N settings, as NumPy arrays ``[N]``.
    """

    first_step: np.ndarray
    rows: StepSettings

    def at(self, step: tf.Tensor) -> StepSettings:
        """Returns the settings of a step (int64 scalar): int32 and float32 scalars."""
        row = row_at(self.first_step, step)
        columns = self.rows.asdict().items()
        return StepSettings(**{name: tf.gather(_tensor(column), row) for name, column in columns})

    def mean(self, first_step: int, end_step: int) -> dict[str, float]:
        """Returns the mean of each setting over the steps ``first_step`` .. ``end_step - 1``."""
        steps = np.arange(first_step, end_step)
        rows = np.searchsorted(self.first_step, steps, side="right") - 1
        means = {name: _mean(column[rows]) for name, column in self.rows.asdict().items()}
        return {name: int(mean) if mean == int(mean) else mean for name, mean in means.items()}


def row_at(first_step: npt.ArrayLike, step: tf.Tensor) -> tf.Tensor:
    """Returns the index of the row that holds at a step, an int32 scalar.

    Args:
      first_step: ``[N]``, ascending: row n holds from this step on.
      step: int64 scalar, at least ``first_step[0]``.
    """
    first = tf.constant(first_step, tf.int64)
    return tf.searchsorted(first, tf.reshape(step, [1]), side="right")[0] - 1


def _mean(values: np.ndarray) -> float:
    # Relative to the first value: the mean of equal values is then exact.
    return float(values[0] + (values - values[0]).mean())


def _tensor(column: np.ndarray) -> tf.Tensor:
    dtype = tf.int32 if np.issubdtype(np.asarray(column).dtype, np.integer) else tf.float32
    return tf.constant(column, dtype)
