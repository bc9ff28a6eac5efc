"""Compares the schedules of two lengths of one training, step by step."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from efficientnetv2.data.schedule import SettingsSchedule
from efficientnetv2.train.learning_rate import LearningRate, StagedRate, build_learning_rate
from efficientnetv2.train.progressive import build_settings, build_stages
from hparams.config import Config


@dataclasses.dataclass(frozen=True)
class ScheduleChange:
    """What another number of epochs changes in a training.

    Attributes:
      settings: names of what would have been different in the finished steps, besides the learning
        rate.
      changes_rate: whether their learning rate would have been different.
      last_rate: learning rate of the last finished step.
      next_rate: learning rate of the next step with the new number of epochs.
    """

    settings: tuple[str, ...]
    changes_rate: bool
    last_rate: float
    next_rate: float

    @property
    def is_exact(self) -> bool:
        """Whether the finished steps are those of a training that asked for it from the start."""
        return not self.settings and not self.changes_rate


def compare_schedules(
    before: Config, after: Config, *, num_images: int, step: int
) -> ScheduleChange:
    """Compares every step that is finished.

    The seeds, the data and the moving average do not depend on the number of epochs. Image and
    batch size, regularisation, learning rate and weight decay may.

    Args:
      before: the complete config of the training.
      after: the same with more epochs.
      num_images: of the training split.
      step: number of finished steps.
    """
    plans = [build_stages(config, num_images=num_images) for config in (before, after)]
    tables = [build_settings(*pair) for pair in zip((before, after), plans)]
    rates = [build_learning_rate(*pair) for pair in zip((before, after), plans)]
    settings = [name for name in _names(tables[0]) if _differs(name, *tables, step=step)]
    train = before.train
    grows = train.weight_decay and train.weight_decay_inc and step > 1
    if grows and rates[0].total_steps != rates[1].total_steps:
        settings.append("weight_decay")
    old, new = (_rates(rate, step + 1) for rate in rates)
    return ScheduleChange(
        settings=tuple(settings),
        changes_rate=not np.array_equal(old[:step], new[:step]),
        last_rate=float(old[max(step - 1, 0)]),
        next_rate=float(new[step]),
    )


def _names(table: SettingsSchedule) -> tuple[str, ...]:
    return table.rows.names()


def _differs(name: str, before: SettingsSchedule, after: SettingsSchedule, *, step: int) -> bool:
    steps = np.arange(step)
    one, other = (
        np.asarray(getattr(table.rows, name))[
            np.searchsorted(table.first_step, steps, side="right") - 1
        ]
        for table in (before, after)
    )
    return not np.array_equal(one, other)


def _rates(rate: LearningRate | StagedRate, count: int) -> np.ndarray:
    """Returns the learning rates of the first steps, as training computes them: float32."""
    all_rates = tf.function(
        lambda steps: tf.map_fn(rate, steps, fn_output_signature=tf.float32), autograph=False
    )
    return np.asarray(all_rates(tf.range(count, dtype=tf.int64)))
