"""Computes the learning rate of each step: a linear warm-up, then one of several decays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.schedule import row_at
from efficientnetv2.train.progressive import Stage
from hparams.config import Config
from hparams.errors import UserError
from hparams.train_keys import BASE_BATCH

_ROUNDING = 1e-9  # decays; larger than any rounding error of a quotient, smaller than one step


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """Linear warm-up from 0 to ``peak``, then a decay.

    Attributes:
      peak: learning rate at the end of the warm-up.
      name: the decay: exponential, cosine, linear or constant.
      warmup_steps: length of the warm-up.
      total_steps: length of the whole training; cosine and linear decay end here.
      decay_steps: steps between decays (exponential only).
      decay_factor: factor of one decay (exponential only).
      minimum: lower bound of the decayed rate; does not apply to the warm-up.
      decay_in_warmup: count the decay from step 0 instead of from the end of the warm-up, so that
        the rate drops suddenly where the warm-up ends, as in the official code.
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
        """Returns the learning rate (float32 scalar) of the update after ``step`` finished steps.

        Args:
          step: int64 scalar.
        """
        # In float64, as a float32 quotient can round up to a whole number of decays a step early.
        step = tf.cast(step, tf.float64)
        start = 0.0 if self.decay_in_warmup else self.warmup_steps
        length = max(self.total_steps - start, 1.0)
        decayed = self.peak * _DECAYS[self.name](self, step - start, length)
        decayed = tf.maximum(tf.cast(decayed, tf.float64), self.minimum)
        warm = self.peak * step / max(self.warmup_steps, 1.0)
        return tf.cast(tf.where(step < self.warmup_steps, warm, decayed), tf.float32)


def _exponential(rate: LearningRate, step: tf.Tensor, length: float) -> tf.Tensor:
    del length
    # A graph divides by a constant by multiplying with its reciprocal, so 49 / 49 is less than 1.
    decays = tf.floor(step / rate.decay_steps + _ROUNDING)
    return tf.pow(tf.constant(rate.decay_factor, tf.float64), decays)


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


@dataclasses.dataclass(frozen=True)
class StagedRate:
    """A learning rate for stages with different batch sizes, so different steps per epoch.

    The rate is a function of the epochs trained, and is proportional to the batch size, as
    ``lr_base`` is.

    Attributes:
      rate: the learning rate for the batch size of the last stage.
      first_step: first step of each stage.
      first_epoch: first epoch of each stage.
      steps_per_epoch: of each stage.
      batch_factor: batch size of each stage divided by that of the last stage.
    """

    rate: LearningRate
    first_step: tuple[int, ...]
    first_epoch: tuple[int, ...]
    steps_per_epoch: tuple[int, ...]
    batch_factor: tuple[float, ...]

    @property
    def total_steps(self) -> float:
        """Number of steps of the whole training."""
        last_steps = self.rate.total_steps - self.first_epoch[-1] * self.steps_per_epoch[-1]
        return self.first_step[-1] + last_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate of the update that follows ``step`` finished steps."""
        step = tf.cast(step, tf.int64)
        row = row_at(self.first_step, step)
        first = tf.gather(tf.constant(self.first_step, tf.int64), row)
        steps = tf.cast(step - first, tf.float64)
        per_epoch = tf.gather(tf.constant(self.steps_per_epoch, tf.float64), row)
        epoch = tf.gather(tf.constant(self.first_epoch, tf.float64), row) + steps / per_epoch
        rate = self.rate(epoch * self.steps_per_epoch[-1])
        return rate * tf.gather(tf.constant(self.batch_factor, tf.float32), row)


class KerasSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Wraps a learning rate as a Keras schedule, which Keras optimizers read at each update."""

    def __init__(self, rate: LearningRate | StagedRate) -> None:
        self.rate = rate

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate at a step."""
        return self.rate(step)

    def get_config(self) -> dict[str, dict]:
        """Returns the fields of the learning rate."""
        return {"rate": dataclasses.asdict(self.rate)}


def build_learning_rate(config: Config, plan: Sequence[Stage]) -> LearningRate | StagedRate:
    """Builds the learning rate from the config (paper section 5.1).

    The peak is ``train.lr_base * train.batch_size / 256``.
    """
    train = config.train
    steps_per_epoch = plan[-1].steps_per_epoch
    rate = LearningRate(
        peak=train.lr_base * train.batch_size / BASE_BATCH,
        name=train.lr_sched,
        warmup_steps=train.lr_warmup_epoch * steps_per_epoch,
        total_steps=plan[-1].end_epoch * steps_per_epoch,
        decay_steps=train.lr_decay_epoch * steps_per_epoch,
        decay_factor=train.lr_decay_factor,
        minimum=train.lr_min,
        decay_in_warmup=train.lr_decay_in_warmup,
    )
    if all(stage.batch_size == train.batch_size for stage in plan):
        return rate
    return StagedRate(
        rate,
        first_step=tuple(stage.first_step for stage in plan),
        first_epoch=tuple(stage.first_epoch for stage in plan),
        steps_per_epoch=tuple(stage.steps_per_epoch for stage in plan),
        batch_factor=tuple(stage.batch_size / train.batch_size for stage in plan),
    )


_schedules = keras.optimizers.schedules
# (decay, whether there is a warm-up) -> what stock Keras has for it; see ``stock_rate``.
_STOCK_RATES: dict[tuple[str, bool], Callable[[LearningRate], Any]] = {
    ("constant", False): lambda rate: rate.peak,
    ("cosine", False): lambda rate: _schedules.CosineDecay(rate.peak, rate.total_steps),
    ("cosine", True): lambda rate: _schedules.CosineDecay(
        0.0,
        max(rate.total_steps - rate.warmup_steps, 1.0),
        warmup_target=rate.peak,
        warmup_steps=rate.warmup_steps,
    ),
    ("linear", False): lambda rate: _schedules.PolynomialDecay(
        rate.peak, rate.total_steps, end_learning_rate=0.0
    ),
    ("exponential", False): lambda rate: _schedules.ExponentialDecay(
        rate.peak, rate.decay_steps, rate.decay_factor, staircase=True
    ),
}


def stock_rate(rate: LearningRate) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Returns an equal learning rate of stock Keras, which opens without this package.

    Raises:
      UserError: if Keras has none.
    """
    row = _STOCK_RATES.get((rate.name, rate.warmup_steps > 0))
    if row is None or rate.minimum or (rate.warmup_steps and rate.decay_in_warmup):
        raise UserError(
            f"stock Keras has no schedule for train.lr_sched={rate.name} with these settings of "
            "train.lr_warmup_epoch, lr_min and lr_decay_in_warmup; cosine with a warm-up works"
        )
    return row(rate)
