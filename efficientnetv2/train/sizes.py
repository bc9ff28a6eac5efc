"""A plan of stages in; the table of settings by step out, with sizes that grow, vary or stay.

Paper Table 13: sizes that grow by stage, or that are drawn at random, each with adaptive
regularisation or without.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from efficientnetv2.data.pipeline import Leg
from efficientnetv2.data.settings import SettingsSchedule, StepSettings
from efficientnetv2.train.stages import SIZE_MULTIPLE, Ends, Stage, build_ends
from hparams.resolve import Config

_SALT = 0x512E5  # another stream than other users of the seed


def staged(plan: Sequence[Stage]) -> SettingsSchedule:
    """Settings that change where a stage begins."""
    return SettingsSchedule(
        first_step=np.array([stage.first_step for stage in plan], np.int64),
        rows=StepSettings(*map(np.array, zip(*map(settings_of, plan)))),
    )


def settings_of(stage: Stage) -> StepSettings:
    """The settings of each step of a stage, as Python numbers."""
    return StepSettings(*(getattr(stage, field) for field in StepSettings._fields))


def drawn(
    ends: Ends, *, total_steps: int, steps_per_draw: int, batch_size: int, adaptive: bool, seed: int
) -> SettingsSchedule:
    """Settings with a size drawn anew every few steps, and the regularisation for that size.

    Args:
      ends: smallest and largest size with their regularisation.
      total_steps: of the whole training.
      steps_per_draw: at least 1.
      batch_size: images a step.
      adaptive: False keeps the largest size's regularisation at all sizes.
      seed: the same seed draws the same sizes.
    """
    first, last = ends.image_size
    inner = range(first - first % SIZE_MULTIPLE + SIZE_MULTIPLE, last, SIZE_MULTIPLE)
    sizes = np.array(sorted({first, *inner, last}))
    count = -(-total_steps // steps_per_draw)
    size = np.random.default_rng([_SALT, seed]).choice(sizes, count)
    share = (size - first) / (last - first) if adaptive and last > first else np.ones(count)
    rest = {name: np.asarray(v) for name, v in ends.regularisation(share).items()}
    return SettingsSchedule(
        first_step=np.arange(count, dtype=np.int64) * steps_per_draw,
        rows=StepSettings(image_size=size, batch_size=np.full(count, batch_size), **rest),
    )


def build_settings(config: Config, plan: Sequence[Stage]) -> SettingsSchedule:
    """Opens the configuration for the settings of every step."""
    train = config.train
    if train.size_schedule != "random":
        return staged(plan)
    (stage,) = plan
    return drawn(
        build_ends(config),
        total_steps=stage.end_step,
        steps_per_draw=train.size_steps or stage.steps_per_epoch,
        batch_size=train.batch_size,
        adaptive=train.adaptive_regularisation,
        seed=train.seed,
    )


def legs_of(plan: Sequence[Stage]) -> list[Leg]:
    """Joins neighbouring stages of the same batch size."""
    legs: list[Leg] = []
    for stage in plan:
        leg = Leg(stage.first_epoch, stage.first_step, stage.steps_per_epoch, stage.batch_size)
        if not legs or legs[-1].batch_size != leg.batch_size:
            legs.append(leg)
    return legs
