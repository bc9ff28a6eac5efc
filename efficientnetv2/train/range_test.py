"""Runs a learning rate range test: the loss while the rate grows from step to step.

Leslie N. Smith, arXiv:1506.01186 section 3.3 and arXiv:1803.09820. Weights, batches and optimizer
are those that a training starts with; nothing is written.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.sources import Source
from efficientnetv2.data.train_input import build_training_input
from efficientnetv2.runtime.cluster import require_for_replicas
from efficientnetv2.train.learning_rate import LearningRate
from efficientnetv2.train.progressive import Stage, build_settings, build_stages, phases_of
from efficientnetv2.train.step import build_trainer
from efficientnetv2.train.strategy import build_strategy, distribute_training
from efficientnetv2.train.train_state import TrainState, build_train_state, start_from_pretrained
from hparams.config import Config
from hparams.errors import UserError
from hparams.resolve import with_overrides
from hparams.train_keys import BASE_BATCH

LOWEST, HIGHEST = 1e-6, 10.0  # learning rates of the optimizer in the first and the last step
BLOWN_UP = 4.0  # times the least smoothed loss: the test ends
_WIDTHS = 40  # standard deviations of the smoothing kernel in the whole test
_FALL = 0.02  # of the loss at the start, by which it must fall


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a learning rate range test has measured.

    Rates are given for a batch of 256, as ``--learning_rate`` takes them.

    Attributes:
      rates: ``[N]``, of each step, rising.
      losses: ``[N]``, the cross-entropy of each step's batch, before its update.
      smoothed: ``[N]``, the losses without their noise.
      configured: the peak in the settings of the training, ``train.lr_base``.
      batch_size: images a step.
      image_size: pixels; the mean where sizes are drawn at random.
      picture: the path of the plot; None: not drawn.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    configured: float
    batch_size: int
    image_size: float
    picture: pathlib.Path | None = None

    @property
    def suggestion(self) -> float | None:
        """The suggested peak; None: the loss fell at no rate."""
        return suggest(self.rates, self.smoothed)


def smooth(losses: np.ndarray, *, width: float) -> np.ndarray:
    """Averages each loss with its neighbours, weighted by a Gaussian.

    Args:
      losses: ``[N]``.
      width: its standard deviation, in steps.
    """
    steps = np.arange(len(losses))
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / width) ** 2)
    return weights @ losses / weights.sum(1)


def suggest(rates: np.ndarray, smoothed: np.ndarray) -> float | None:
    """Returns a tenth of the rate at which the smoothed loss is least; None: it falls at no rate.

    Where it is least, some weights already go astray; docs/training.md has trainings with rates
    below and above a tenth. Two digits, as the noise of the batches moves it by more.

    Args:
      rates: ``[N]``.
      smoothed: ``[N]``, the smoothed loss at each rate.
    """
    best = int(np.argmin(smoothed))
    if smoothed[best] > (1.0 - _FALL) * smoothed[0]:
        return None
    return float(f"{rates[best] / 10:.1e}")


def run_range_test(
    config: Config,
    source: Source,
    *,
    steps: int,
    after_step: Callable[[], object],
    show: Callable[[str], object],
) -> RangeTest:
    """Trains with a learning rate that grows exponentially, until the loss blows up.

    Args:
      config: the complete config of a training.
      source: the data set.
      steps: from the lowest to the highest rate.
      after_step: called after each step.
      show: called with what is loaded, if the training starts from pretrained weights.

    Raises:
      UserError: if the first loss is not finite, the machine lacks the devices, or an image or the
        weights cannot be read.
    """
    config = with_overrides(config, {"train.ema_decay": 0.0, "runtime.steps_per_loop": 1})
    plan = build_stages(config, num_images=source.num_images(config.data.train_split))
    stage, settings = plan[0], build_settings(config, plan[:1])
    losses, rates = [], []
    for rate, loss in _steps(config, source, plan, steps=steps, show=show):
        if not math.isfinite(loss):
            break
        rates.append(rate * BASE_BATCH / stage.batch_size)
        losses.append(loss)
        smoothed = smooth(np.array(losses), width=steps / _WIDTHS)
        after_step()
        if smoothed[-1] > BLOWN_UP * smoothed.min():
            break
    if not losses:
        raise UserError("the loss of the first step is not finite, at the lowest learning rate")
    return RangeTest(
        rates=np.array(rates),
        losses=np.array(losses),
        smoothed=smoothed,
        configured=config.train.lr_base,
        batch_size=stage.batch_size,
        image_size=settings.mean(0, len(losses))["image_size"],
    )


def _steps(
    config: Config,
    source: Source,
    plan: Sequence[Stage],
    *,
    steps: int,
    show: Callable[[str], object],
) -> Iterator[tuple[float, float]]:
    """Yields the learning rate and the loss of one training step after the other."""
    strategy = build_strategy(config)
    require_for_replicas(config, strategy.num_replicas_in_sync)
    rate = LearningRate(
        peak=LOWEST,
        name="exponential",
        warmup_steps=0,
        total_steps=plan[-1].end_step,  # weight decay may grow over the training
        decay_factor=(HIGHEST / LOWEST) ** (1 / (steps - 1)),
    )
    tf.keras.utils.set_random_seed(config.train.seed)
    with strategy.scope():
        train_state = build_train_state(config, rate)
    report = start_from_pretrained(config, train_state)
    if report is not None:
        show(f"starting from {report}")
    settings = build_settings(config, plan[:1])  # the first stage has no end
    trainer = build_trainer(
        config, train_state, strategy, settings=settings, after_step=lambda _: None
    )
    batches = build_training_input(
        config,
        source,
        phases=phases_of(plan[:1]),
        settings=settings,
        microbatches=config.train.accumulate,
    )
    trainer.set_input(distribute_training(strategy, batches, start_step=0))
    try:
        for step in range(steps):
            used = _learning_rate(train_state)
            try:
                trainer.train(tf.constant(1))
            except tf.errors.OpError as error:
                batches.raise_bad_image(error, step=step)
            yield used, train_state.metrics.result()["loss"]
            train_state.metrics.reset()
    finally:  # also if the caller stops here
        trainer.clear_input()


def _learning_rate(train_state: TrainState) -> float:
    """Returns the rate of the next update; float16 repeats that of a step which it skipped."""
    optimizer = train_state.optimizer
    return float(tf.convert_to_tensor(optimizer.learning_rate))
