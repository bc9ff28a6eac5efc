"""Progressive learning with adaptive regularisation: end points in; a list of stages out.

Paper section 4, Algorithm 1 and Table 6. Pure arithmetic, no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from hparams.resolve import Config

SIZE_MULTIPLE = 8  # pixels, of inner stages


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      index: from 0.
      first_epoch: from 0, the first epoch of the stage.
      end_epoch: the first epoch after the stage.
      first_step: from 0, the first step of the stage.
      steps_per_epoch: whole batches in one pass over the training split.
      batch_size: images a step, over all devices.
      image_size: pixels.
      dropout_rate: before the classifier.
      magnitude: RandAugment magnitude.
      mixup_alpha: mixup strength.
      cutmix_alpha: CutMix strength.
    """

    index: int
    first_epoch: int
    end_epoch: int
    first_step: int
    steps_per_epoch: int
    batch_size: int
    image_size: int
    dropout_rate: float
    magnitude: float
    mixup_alpha: float
    cutmix_alpha: float

    @property
    def end_step(self) -> int:
        """The first step after the stage."""
        return self.first_step + (self.end_epoch - self.first_epoch) * self.steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Ends:
    """Values of the first and of the last stage of each factor (a row of the paper's Table 6).

    Attributes:
      image_size: pixels.
      dropout_rate: before the classifier.
      magnitude: RandAugment magnitude.
      mixup_alpha: mixup strength.
      cutmix_alpha: CutMix strength.
    """

    image_size: tuple[int, int]
    dropout_rate: tuple[float, float]
    magnitude: tuple[float, float] = (0.0, 0.0)
    mixup_alpha: tuple[float, float] = (0.0, 0.0)
    cutmix_alpha: tuple[float, float] = (0.0, 0.0)

    def regularisation(self, share: Any) -> dict[str, Any]:
        """Returns every factor but the size, ``share`` (0..1, or an array) of the way to last."""
        return {
            "dropout_rate": between(self.dropout_rate, share),
            "magnitude": between(self.magnitude, share),
            "mixup_alpha": between(self.mixup_alpha, share),
            "cutmix_alpha": between(self.cutmix_alpha, share),
        }


def between(ends: tuple[float, float], share: Any) -> Any:
    """Returns the value ``share`` (0..1) of the way from the first to the last."""
    first, last = ends
    return first + (last - first) * share


def _paper_size(ends: tuple[int, int], index: int, stages: int) -> int:
    """Both ends are trained at; between them multiples of 8."""
    if stages == 1 or index == stages - 1:
        return ends[1]
    if index == 0:
        return ends[0]
    size = SIZE_MULTIPLE * round(between(ends, index / (stages - 1)) / SIZE_MULTIPLE)
    return min(max(size, ends[0]), ends[1])


def _official_size(ends: tuple[int, int], index: int, stages: int) -> int:
    """The official code's: the first size is never trained at."""
    return int(ends[0] + (ends[1] - ends[0]) * (index + 1) / stages)


SIZE_RULES: dict[str, Callable[[tuple[int, int], int, int], int]] = {
    "paper": _paper_size,
    "official": _official_size,
}


def plan_stages(
    ends: Ends,
    *,
    epochs: int,
    stages: int,
    num_images: int,
    batch_size: int,
    rule: Literal["paper", "official"] = "paper",
    adaptive: bool = True,
    scale_batch: bool = False,
) -> list[Stage]:
    """Spreads every factor linearly over the stages: ``f_i = f_0 + (f_e - f_0) i / (M - 1)``.

    Stages are equally long, up to a whole epoch; with fewer epochs than stages, only the last
    ``epochs`` of them are run.

    >>> [stage.image_size for stage in plan_stages(
    ...     Ends(image_size=(128, 300), dropout_rate=(0.1, 0.3)),
    ...     epochs=8, stages=4, num_images=1000, batch_size=10)]
    [128, 184, 240, 300]

    Args:
      ends: first and last values; a single stage has the last ones.
      epochs: of the whole training, at least 1.
      stages: M, at least 1.
      num_images: images in the training split, at least ``batch_size``.
      batch_size: images a step in the last stage, over all devices.
      rule: sizes as in the paper (both ends, inner ones multiples of 8) or as in the official code.
      adaptive: False keeps the last stage's regularisation in all stages; the size still grows.
      scale_batch: a stage has the largest multiple of ``batch_size`` that takes no more pixels a
        step than the last stage does.

    Returns:
      Stages that follow each other without a gap, from epoch 0 to ``epochs``.
    """
    count = min(stages, epochs)
    plan: list[Stage] = []
    for index in range(count):
        position = index + stages - count
        size = SIZE_RULES[rule](ends.image_size, position, stages)
        share = position / (stages - 1) if stages > 1 and adaptive else 1.0
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
                **ends.regularisation(share),
            )
        )
    return plan


def _scaled_batch(batch_size: int, factor: float, *, limit: int) -> int:
    # A whole multiple: it divides by the number of devices if the batch size does.
    return batch_size * max(1, min(int(factor), limit // batch_size))


def build_ends(config: Config) -> Ends:
    """Opens the configuration for the first and last values of each factor."""
    model, data = config.model, config.data
    first_dropout = model.dropout_rate if model.dropout_base is None else model.dropout_base
    return Ends(
        image_size=(data.ibase, config.train.isize),
        dropout_rate=(first_dropout, model.dropout_rate),
        magnitude=(data.ram_base, data.ram) if data.augname == "randaug" else (0.0, 0.0),
        mixup_alpha=(data.mixup_base, data.mixup_alpha),
        cutmix_alpha=(data.cutmix_base, data.cutmix_alpha),
    )


def build_stages(config: Config, *, num_images: int) -> list[Stage]:
    """Opens the configuration for the plan of stages; one stage where sizes do not grow."""
    train = config.train
    steps_per_epoch = max(num_images // train.batch_size, 1)
    return plan_stages(
        build_ends(config),
        epochs=max(train.epochs, -(-train.min_steps // steps_per_epoch)),
        stages=train.stages if train.size_schedule == "progressive" else 1,
        num_images=num_images,
        batch_size=train.batch_size,
        rule=train.stage_rule,
        adaptive=train.adaptive_regularisation,
        scale_batch=train.scale_batch_with_size,
    )


def stage_at(plan: Sequence[Stage], step: int) -> Stage:
    """Returns the stage that a step (from 0) belongs to."""
    return next(stage for stage in plan if stage.first_step <= step < stage.end_step)
