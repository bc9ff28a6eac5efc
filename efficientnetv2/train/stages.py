"""Progressive learning with adaptive regularisation: end points in; a list of stages out.

Paper section 4, Algorithm 1 and Table 6. Pure arithmetic, no TensorFlow.
"""

from __future__ import annotations

import dataclasses

from hparams.resolve import Config

_SIZE_MULTIPLE = 8  # pixels


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      index: from 0.
      first_epoch: from 0, the first epoch of the stage.
      end_epoch: the first epoch after the stage.
      image_size: pixels.
      dropout_rate: before the classifier.
      magnitude: RandAugment magnitude.
      mixup_alpha: mixup strength.
      cutmix_alpha: CutMix strength.
    """

    index: int
    first_epoch: int
    end_epoch: int
    image_size: int
    dropout_rate: float
    magnitude: float
    mixup_alpha: float
    cutmix_alpha: float


def plan_stages(
    *,
    epochs: int,
    stages: int,
    image_size: tuple[int, int],
    dropout_rate: tuple[float, float],
    magnitude: tuple[float, float] = (0.0, 0.0),
    mixup_alpha: tuple[float, float] = (0.0, 0.0),
    cutmix_alpha: tuple[float, float] = (0.0, 0.0),
) -> list[Stage]:
    """Spreads every factor linearly over the stages: ``f_i = f_0 + (f_e - f_0) i / (M - 1)``.

    Each pair is the value of the first and of the last stage; both are trained at. Sizes between
    them are rounded to a multiple of 8. Stages are equally long, up to a whole epoch; with fewer
    epochs than stages, only the last ``epochs`` of them are run.

    >>> [stage.image_size for stage in plan_stages(
    ...     epochs=8, stages=4, image_size=(128, 300), dropout_rate=(0.1, 0.3))]
    [128, 184, 240, 300]

    Args:
      epochs: of the whole training, at least 1.
      stages: M, at least 1; a single stage has the last values.
      image_size: pixels.
      dropout_rate: before the classifier.
      magnitude: RandAugment magnitude.
      mixup_alpha: mixup strength.
      cutmix_alpha: CutMix strength.

    Returns:
      Stages that follow each other without a gap, from epoch 0 to ``epochs``.
    """
    count = min(stages, epochs)
    plan = []
    for index in range(count):
        position = index + stages - count
        share = position / (stages - 1) if stages > 1 else 1.0
        plan.append(
            Stage(
                index=index,
                first_epoch=epochs * index // count,
                end_epoch=epochs * (index + 1) // count,
                image_size=_size(image_size, share),
                dropout_rate=_between(dropout_rate, share),
                magnitude=_between(magnitude, share),
                mixup_alpha=_between(mixup_alpha, share),
                cutmix_alpha=_between(cutmix_alpha, share),
            )
        )
    return plan


def _between(ends: tuple[float, float], share: float) -> float:
    first, last = ends
    return first + (last - first) * share


def _size(ends: tuple[int, int], share: float) -> int:
    if share in (0.0, 1.0):
        return ends[int(share)]
    size = _SIZE_MULTIPLE * round(_between(ends, share) / _SIZE_MULTIPLE)
    return min(max(size, ends[0]), ends[1])


def build_stages(config: Config) -> list[Stage]:
    """Opens the configuration for the plan of stages."""
    model, data = config.model, config.data
    first_dropout = model.dropout_rate if model.dropout_base is None else model.dropout_base
    return plan_stages(
        epochs=config.train.epochs,
        stages=config.train.stages,
        image_size=(data.ibase, config.train.isize),
        dropout_rate=(first_dropout, model.dropout_rate),
        magnitude=(data.ram_base, data.ram) if data.augname == "randaug" else (0.0, 0.0),
        mixup_alpha=(0.0, data.mixup_alpha),
        cutmix_alpha=(0.0, data.cutmix_alpha),
    )


def stage_at(plan: list[Stage], epoch: int) -> Stage:
    """Returns the stage that an epoch (from 0) belongs to."""
    return next(stage for stage in plan if stage.first_epoch <= epoch < stage.end_epoch)
