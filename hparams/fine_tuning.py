"""Fine-tuning from pretrained weights: a batch size in; the recipe, as configuration values, out.

EfficientNetV2 paper, sections 5.2 (15 epochs, cosine) and 5.3 (10,000 steps of 512 images, cosine
from 0.001, no weight decay, cutout); the moving average is the official code's.
"""

from __future__ import annotations

from collections.abc import Mapping

_PEAK = 0.001  # learning rate of a whole batch; train.lr_base is for 256 images


def fine_tuning(
    base: Mapping[str, object], *, batch_size: int, epochs: int, min_steps: int = 0
) -> Mapping[str, object]:
    """Returns the recipe of a data set, changed for weights that have learnt already.

    Args:
      base: the recipe of a training from the start.
      batch_size: images a step.
      epochs: at least so many.
      min_steps: at least so many.
    """
    return {
        **base,
        "model.dropout_base": None,
        "train.epochs": epochs,
        "train.min_steps": min_steps,
        "train.batch_size": batch_size,
        "train.stages": 1,
        "train.optimizer": "rmsprop",
        "train.lr_base": _PEAK * 256 / batch_size,
        "train.lr_sched": "cosine",
        "train.lr_warmup_epoch": 1.0,
        "train.weight_decay": 0.0,
        "train.ema_decay": 0.9996,
        "data.augname": "none",
        "data.cutout": 0.5,
        "data.mixup_alpha": 0.0,
        "data.cutmix_alpha": 0.0,
        "data.eval_crop": False,
    }
