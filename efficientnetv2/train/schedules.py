"""A step (int64 scalar) in; the learning rate at it (float32 scalar) out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from hparams.resolve import Config


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """Linear warm-up from 0 to ``peak``, then a decay.

    Attributes:
      peak: learning rate at the end of the warm-up.
      name: exponential, cosine, linear or constant.
      warmup_steps: steps of the warm-up.
      total_steps: steps of the whole training; cosine and linear end here.
      decay_steps: exponential: steps between decays.
      decay_factor: exponential: factor of one decay.
      minimum: floor of the decayed rate (not of the warm-up).
      decay_in_warmup: count the decay from step 0 instead of from the warm-up's end, so that the
        rate jumps down where the warm-up ends (the official code).
    """

    peak: float
    name: str
    warmup_steps: float
    total_steps: float
    decay_steps: float = 1.0
    decay_factor: float = 1.0
    minimum: float = 0.0
    decay_in_warmup: bool = False

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of the update that follows ``step`` finished steps."""
        # float64: a float32 quotient can round up to a whole number of decays one step early.
        step = tf.cast(step, tf.float64)
        start = 0.0 if self.decay_in_warmup else self.warmup_steps
        length = max(self.total_steps - start, 1.0)
        decayed = self.peak * _DECAYS[self.name](self, step - start, length)
        decayed = tf.maximum(tf.cast(decayed, tf.float64), self.minimum)
        warm = self.peak * step / max(self.warmup_steps, 1.0)
        return tf.cast(tf.where(step < self.warmup_steps, warm, decayed), tf.float32)


def _exponential(rate: LearningRate, step: tf.Tensor, length: float) -> tf.Tensor:
    del length
    return tf.pow(tf.constant(rate.decay_factor, tf.float64), tf.floor(step / rate.decay_steps))


def _cosine(rate: LearningRate, step: tf.Tensor, length: float) -> tf.Tensor:
    del rate
    return 0.5 * (1.0 + tf.cos(math.pi * step / length))


def _linear(rate: LearningRate, step: tf.Tensor, length: float) -> tf.Tensor:
    del rate
    return 1.0 - step / length


def _constant(rate: LearningRate, step: tf.Tensor, length: float) -> float:
    del rate, step, length
    return 1.0


_DECAYS: dict[str, Callable[[LearningRate, tf.Tensor, float], tf.Tensor]] = {
    "exponential": _exponential,
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
}


class KerasSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """``LearningRate`` in the form that Keras optimizers read at each update."""

    def __init__(self, rate: LearningRate) -> None:
        self.rate = rate

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate at a step."""
        return self.rate(step)

    def get_config(self) -> dict[str, dict]:
        """Returns the schedule's numbers."""
        return {"rate": dataclasses.asdict(self.rate)}


def build_learning_rate(config: Config, *, steps_per_epoch: int) -> LearningRate:
    """Opens the configuration for the learning rate (paper section 5.1).

    The peak is ``train.lr_base * train.batch_size / 256``.
    """
    train = config.train
    return LearningRate(
        peak=train.lr_base * train.batch_size / 256,
        name=train.lr_sched,
        warmup_steps=train.lr_warmup_epoch * steps_per_epoch,
        total_steps=train.epochs * steps_per_epoch,
        decay_steps=train.lr_decay_epoch * steps_per_epoch,
        decay_factor=train.lr_decay_factor,
        minimum=train.lr_min,
        decay_in_warmup=train.lr_decay_in_warmup,
    )
