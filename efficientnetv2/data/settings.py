"""Steps in; the image size and the strength of each regularisation at a step out.

A schedule is piecewise constant, and looked up inside the graph: the input and the training step
ask the same table, so that a size and its regularisation arrive together, whatever is prefetched.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf


class StepSettings(NamedTuple):
    """What adaptive regularisation sets (paper section 4), for one step or for many.

    Attributes:
      image_size: pixels, int.
      magnitude: of RandAugment.
      mixup_alpha: of mixup; 0: none.
      cutmix_alpha: of CutMix; 0: none.
      dropout_rate: before the classifier.
      batch_size: images a step over all devices, int.
    """

    image_size: tf.Tensor
    magnitude: tf.Tensor
    mixup_alpha: tf.Tensor
    cutmix_alpha: tf.Tensor
    dropout_rate: tf.Tensor
    batch_size: tf.Tensor


@dataclasses.dataclass(frozen=True)
class SettingsSchedule:
    """A table of settings.

    Attributes:
      first_step: int64 ``[N]``, rising from 0: row n holds from this step on.
      rows: N settings, as NumPy arrays ``[N]``.
    """

    first_step: np.ndarray
    rows: StepSettings

    def at(self, step: tf.Tensor) -> StepSettings:
        """Returns the settings of an int64 scalar step: int32 and float32 scalars."""
        row = row_at(self.first_step, step)
        return StepSettings(*(tf.gather(_tensor(column), row) for column in self.rows))

    def mean(self, first_step: int, end_step: int) -> dict[str, float]:
        """Returns the mean of each setting over the steps ``first_step`` .. ``end_step - 1``."""
        steps = np.arange(first_step, end_step)
        rows = np.searchsorted(self.first_step, steps, side="right") - 1
        means = {name: _mean(column[rows]) for name, column in self.rows._asdict().items()}
        return {name: int(mean) if mean == int(mean) else mean for name, mean in means.items()}


def row_at(first_step: npt.ArrayLike, step: tf.Tensor) -> tf.Tensor:
    """Returns which row of a table holds at a step.

    Args:
      first_step: ``[N]``, rising: row n holds from this step on.
      step: int64 scalar, at least the first of these.
    """
    first = tf.constant(first_step, tf.int64)
    return tf.searchsorted(first, tf.reshape(step, [1]), side="right")[0] - 1


def _mean(values: np.ndarray) -> float:
    # Around the first: the mean of equal values is that value, without rounding.
    return float(values[0] + (values - values[0]).mean())


def _tensor(column: np.ndarray) -> tf.Tensor:
    dtype = tf.int32 if np.issubdtype(np.asarray(column).dtype, np.integer) else tf.float32
    return tf.constant(column, dtype)
