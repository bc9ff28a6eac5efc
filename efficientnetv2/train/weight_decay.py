"""Pulls weights towards 0, through a term of the loss or beside the optimizer's update."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

from hparams.config import Config
from hparams.errors import UserError


@dataclasses.dataclass(frozen=True)
class WeightDecay:
    """Which variables decay, and how fast.

    Attributes:
      factor: weight decay at the first step; 0: none.
      growth: increase of the factor per step, relative to ``factor``.
      variables: the variables that decay.
    """

    factor: float = 0.0
    growth: float = 0.0
    variables: Sequence[keras.Variable] = ()

    def at(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the factor after ``step`` finished steps, a float32 scalar."""
        factor = tf.constant(self.factor)
        if not self.growth:
            return factor
        return factor * (1.0 + self.growth * tf.cast(step, tf.float32))

    def l2_term(self, step: tf.Tensor) -> tf.Tensor:
        """Returns ``factor * sum(w ** 2) / 2`` after ``step`` finished steps, a float32 scalar."""
        if not self.factor or not self.variables:
            return tf.constant(0.0)
        losses = [tf.nn.l2_loss(tf.cast(value.value, tf.float32)) for value in self.variables]
        return self.at(step) * tf.add_n(losses)


NO_DECAY = WeightDecay()


def build_weight_decay(
    config: Config, variables: Sequence[keras.Variable], *, total_steps: float
) -> WeightDecay:
    """Builds the weight decay from the config.

    Args:
      config: its section ``train`` is read.
      variables: the variables that are trained.
      total_steps: number of steps of the whole training.

    Raises:
      UserError: if weight decay is on, but ``train.weight_decay_vars`` matches no variable.
    """
    train = config.train
    decayed = matching(variables, train.weight_decay_vars)
    if train.weight_decay and not decayed:
        raise UserError(
            f"train.weight_decay_vars='{train.weight_decay_vars}' matches no trainable variable "
            f"(for example '{variables[0].path}'); train.weight_decay=0 turns weight decay off"
        )
    growth = train.weight_decay_inc / max(total_steps - 1, 1)
    return WeightDecay(train.weight_decay, growth, decayed)


def matching(variables: Sequence[keras.Variable], expression: str) -> list[keras.Variable]:
    """Returns the variables whose path, ``layer/variable``, matches a regular expression."""
    return [variable for variable in variables if re.search(expression, variable.path)]
