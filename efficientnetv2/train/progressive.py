"""Plans progressive learning with adaptive regularisation: stages, and the settings of each step.

Paper section 4, Algorithm 1 and Table 6. The image size grows by stage, is drawn at random (paper
Table 13) or is fixed; regularisation follows the size, or stays at the strength of the last stage.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.data.train_input import Phase
from hparams.choices import AUGMENTATIONS
from hparams.config import Config
from hparams.factors import FACTORS, Factor, Factors
from hparams.keys import value_of

SIZE_MULTIPLE = 8  # pixels; sizes between the first and the last are multiples of this
_SALT = 0x512E5  # makes the random stream differ from those of other users of the seed


@dataclasses.dataclass(frozen=True)
class Stage(StepSettings):
    """One stage of training, and the settings of its steps as Python numbers.

    Attributes:
      index: number of the stage, from 0.
      first_epoch: the first epoch of the stage, from 0.
      end_epoch: the first epoch after the stage.
      first_step: the first step of the stage, from 0.
      steps_per_epoch: number of full batches in one pass over the training split.
    """

    index: int
    first_epoch: int
    end_epoch: int
    first_step: int
    steps_per_epoch: int

    @property
    def end_step(self) -> int:
        """The first step after the stage."""
        return self.first_step + (self.end_epoch - self.first_epoch) * self.steps_per_epoch


def regularisation(ends: Factors, fraction: Any) -> dict[str, Any]:
    """Returns every factor except the size, interpolated between its first and last value.

    Args:
      ends: (first, last) value of each factor.
      fraction: 0..1, a number or an array; 0 gives the first values and 1 the last ones.
    """
    return {
        name: interpolate(getattr(ends, name), fraction)
        for name, factor in FACTORS.items()
        if factor.is_regularisation
    }


def interpolate(ends: tuple[float, float], fraction: Any) -> Any:
    """Interpolates linearly between a first (``fraction`` 0) and a last value (``fraction`` 1)."""
    first, last = ends
    return first + (last - first) * fraction


def _paper_size(ends: tuple[int, int], index: int, stages: int) -> int:
    """Returns a stage's size by the paper's rule: from first to last, rounded to multiples of 8."""
    if stages == 1 or index == stages - 1:
        return ends[1]
    if index == 0:
        return ends[0]
    size = SIZE_MULTIPLE * round(interpolate(ends, index / (stages - 1)) / SIZE_MULTIPLE)
    return min(max(size, ends[0]), ends[1])


def _official_size(ends: tuple[int, int], index: int, stages: int) -> int:
    """Returns a stage's size by the official code's rule: no stage has the first size."""
    return int(ends[0] + (ends[1] - ends[0]) * (index + 1) / stages)


SIZE_RULES: dict[str, Callable[[tuple[int, int], int, int], int]] = {
    "paper": _paper_size,
    "official": _official_size,
}


def plan_stages(
    ends: Factors,
    *,
    epochs: int,
    stages: int,
    num_images: int,
    batch_size: int,
    rule: str = "paper",
    adaptive: bool = True,
    scale_batch: bool = False,
) -> list[Stage]:
    """Spreads every factor linearly over the stages: ``f_i = f_0 + (f_e - f_0) i / (M - 1)``.

    Stages have the same number of epochs, up to rounding; with fewer epochs than stages, only the
    last ``epochs`` stages are run.

    >>> from hparams.factors import first_to_last
    >>> [stage.image_size for stage in plan_stages(
    ...     first_to_last(image_size=(128, 300), dropout_rate=(0.1, 0.3)),
    ...     epochs=8, stages=4, num_images=1000, batch_size=10)]
    [128, 184, 240, 300]

    Args:
      ends: (first, last) value of each factor; a single stage has the last values.
      epochs: length of the whole training, at least 1.
      stages: M, at least 1.
      num_images: images in the training split, at least ``batch_size``.
      batch_size: global batch size of the last stage.
      rule: image sizes as in the paper (the first and the last, and multiples of 8 between them) or
        as in the official code.
      adaptive: whether regularisation grows with the size; False: all stages have that of the last.
      scale_batch: whether the batch grows where images are small: to the largest multiple of
        ``batch_size`` with no more pixels per step than in the last stage.

    Returns:
      The stages in order; without gaps, they cover the epochs from 0 to ``epochs``.
    """
    count = min(stages, epochs)
    plan: list[Stage] = []
    for index in range(count):
        position = index + stages - count
        size = SIZE_RULES[rule](ends.image_size, position, stages)
        fraction = position / (stages - 1) if stages > 1 and adaptive else 1.0
        batch = batch_size
        if scale_batch:
            batch = _scaled_batch(batch_size, (ends.image_size[1] / size) ** 2, limit=num_images)
        plan.append(
            Stage(
                index=index,
                first_epoch=epochs * index // count,
                end_epoch=epochs * (index + 1) // count,
                first_step=plan[-1].end_step if plan else 0,
                steps_per_epoch=num_images // batch,
                batch_size=batch,
                image_size=size,
                **regularisation(ends, fraction),
            )
        )
    return plan


def _scaled_batch(batch_size: int, factor: float, *, limit: int) -> int:
    # A whole multiple, so that it can still be split evenly among the devices.
    return batch_size * max(1, min(int(factor), limit // batch_size))


def build_ends(config: Config) -> Factors:
    """Reads the (first, last) value of each factor from the config."""
    arguments = AUGMENTATIONS[config.data.augname].arguments
    return Factors(
        **{
            name: (0.0, 0.0)
            if factor.of_augmentation and name not in arguments
            else _pair(config, factor)
            for name, factor in FACTORS.items()
        }
    )


def _pair(config: Config, factor: Factor) -> tuple[Any, Any]:
    first, last = (value_of(config, name) for name in (factor.first, factor.last))
    return (last if first is None else first), last


def build_stages(config: Config, *, num_images: int) -> list[Stage]:
    """Plans the stages of a training run; a single stage unless the image size grows.

    Epochs are added until there are ``train.min_steps``.
    """
    train = config.train
    plan = functools.partial(
        plan_stages,
        build_ends(config),
        stages=train.stages if train.size_schedule == "progressive" else 1,
        num_images=num_images,
        batch_size=train.batch_size,
        rule=train.stage_rule,
        adaptive=train.adaptive_regularisation,
        scale_batch=train.scale_batch_with_size,
    )
    stages = plan(epochs=train.epochs)
    epochs = train.epochs
    while stages[-1].end_step < train.min_steps:  # larger batches of small images make fewer steps
        steps_per_epoch = max(1, num_images // train.batch_size)
        missing = train.min_steps - stages[-1].end_step
        epochs += -(-missing // steps_per_epoch)
        stages = plan(epochs=epochs)
    return stages


def stage_at(plan: Sequence[Stage], step: int) -> Stage:
    """Returns the stage that a step (from 0) belongs to."""
    return next(stage for stage in plan if stage.first_step <= step < stage.end_step)


def validation_size(config: Config, stage: Stage) -> int:
    """Returns the image size, pixels, at which a network is evaluated in a stage.

    It grows with that of the training up to ``eval.isize``: a network that has seen images of 32 px
    only is right about few of 64 px, and soon about most after some steps with these.
    """
    train = config.train
    if train.size_schedule != "progressive":
        return config.eval.isize
    return max(1, round(config.eval.isize * stage.image_size / train.isize))


def stage_settings(plan: Sequence[Stage]) -> SettingsSchedule:
    """Returns the settings by step, if they change only where a stage begins."""
    return SettingsSchedule(
        first_step=np.array([stage.first_step for stage in plan], np.int64),
        rows=StepSettings(
            **{
                name: np.array([getattr(stage, name) for stage in plan])
                for name in StepSettings.names()
            }
        ),
    )


def random_sizes(
    ends: Factors,
    *,
    total_steps: int,
    steps_per_draw: int,
    batch_size: int,
    adaptive: bool,
    seed: int,
) -> SettingsSchedule:
    """Returns settings with a random size every few steps, and the regularisation for that size.

    Args:
      ends: smallest and largest size with their regularisation.
      total_steps: length of the whole training.
      steps_per_draw: number of steps with the same size, at least 1.
      batch_size: global batch size.
      adaptive: whether regularisation grows with the size; False: all sizes have that of the
        largest.
      seed: the same seed draws the same sizes.
    """
    first, last = ends.image_size
    inner = range(first - first % SIZE_MULTIPLE + SIZE_MULTIPLE, last, SIZE_MULTIPLE)
    sizes = np.array(sorted({first, *inner, last}))
    count = -(-total_steps // steps_per_draw)
    size = np.random.default_rng([_SALT, seed]).choice(sizes, count)
    fraction = (size - first) / (last - first) if adaptive and last > first else np.ones(count)
    factors = {name: np.asarray(values) for name, values in regularisation(ends, fraction).items()}
    return SettingsSchedule(
        first_step=np.arange(count, dtype=np.int64) * steps_per_draw,
        rows=StepSettings(image_size=size, batch_size=np.full(count, batch_size), **factors),
    )


def build_settings(config: Config, plan: Sequence[Stage]) -> SettingsSchedule:
    """Returns the settings of every step of a training run."""
    train = config.train
    if train.size_schedule != "random":
        return stage_settings(plan)
    (stage,) = plan
    return random_sizes(
        build_ends(config),
        total_steps=stage.end_step,
        steps_per_draw=train.size_steps or stage.steps_per_epoch,
        batch_size=train.batch_size,
        adaptive=train.adaptive_regularisation,
        seed=train.seed,
    )


def phases_of(plan: Sequence[Stage]) -> list[Phase]:
    """Returns the phases of the input, each of which joins consecutive stages of one batch size."""
    phases: list[Phase] = []
    for stage in plan:
        phase = Phase(stage.first_epoch, stage.first_step, stage.steps_per_epoch, stage.batch_size)
        if not phases or phases[-1].batch_size != phase.batch_size:
            phases.append(phase)
    return phases
