"""A configuration and a learning rate in; a Keras optimizer out."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.schedules import KerasSchedule
from hparams.resolve import Config


class RMSPropTF1(keras.optimizers.RMSprop):
    """RMSProp as TensorFlow 1 had it, which EfficientNets were trained with.

    ``s = d s + (1 - d) g^2;  m = mu m + lr g / sqrt(s + epsilon);  w = w - m``

    Keras has the same update (epsilon inside the root) but starts ``s`` at 0 instead of 1, which
    makes its first steps many times longer.
    """

    def build(self, variables: list) -> None:
        """Creates the slots, with mean squares of 1."""
        super().build(variables)
        for mean_square in self._velocities:
            mean_square.assign(tf.ones(mean_square.shape, mean_square.dtype))


_RMSPROP_EPSILON = 1e-3  # of the EfficientNet papers' code


def _rmsprop(cls: type) -> Callable[[Config, KerasSchedule], keras.optimizers.Optimizer]:
    def build(config: Config, schedule: KerasSchedule) -> keras.optimizers.Optimizer:
        return cls(
            schedule,
            rho=config.train.rmsprop_decay,
            momentum=config.train.momentum,
            epsilon=_RMSPROP_EPSILON,
        )

    return build


OPTIMIZERS: dict[str, Callable[[Config, KerasSchedule], keras.optimizers.Optimizer]] = {
    "rmsprop": _rmsprop(RMSPropTF1),
    "rmsprop_keras": _rmsprop(keras.optimizers.RMSprop),
    "sgd": lambda _, schedule: keras.optimizers.SGD(schedule),
    "momentum": lambda config, schedule: keras.optimizers.SGD(
        schedule, momentum=config.train.momentum
    ),
    "adam": lambda _, schedule: keras.optimizers.Adam(schedule),
    # Weight decay is the L2 term of the loss for every optimizer; AdamW's own is its default 0.004.
    "adamw": lambda _, schedule: keras.optimizers.AdamW(schedule),
    "lamb": lambda _, schedule: keras.optimizers.Lamb(schedule),
}


def build_optimizer(config: Config, schedule: KerasSchedule) -> keras.optimizers.Optimizer:
    """Opens the configuration for the optimizer; its slots are made when it is built."""
    return OPTIMIZERS[config.train.optimizer](config, schedule)
