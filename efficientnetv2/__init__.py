"""Builds EfficientNetV2 models for TensorFlow, with or without pretrained weights.

``list_models`` needs no TensorFlow, which is imported on the first use of any other name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from efficientnetv2.runtime.keras_version import require_keras_3
from hparams.models import MODELS

if TYPE_CHECKING:
    from efficientnetv2.checkpoints.pretrained_model import get_model as get_model
    from efficientnetv2.model.fold_batchnorm import for_inference as for_inference
    from efficientnetv2.model.parallel_inference import (
        set_inference_threads as set_inference_threads,
    )
    from efficientnetv2.train.keras_fit import ProgressiveLearning as ProgressiveLearning
    from efficientnetv2.train.keras_fit import training_data as training_data

__all__ = [
    "ProgressiveLearning",
    "for_inference",
    "get_model",
    "list_models",
    "set_inference_threads",
    "training_data",
]
__version__ = "0.1.0"
_MODULES = {
    "ProgressiveLearning": "efficientnetv2.train.keras_fit",
    "for_inference": "efficientnetv2.model.fold_batchnorm",
    "get_model": "efficientnetv2.checkpoints.pretrained_model",
    "set_inference_threads": "efficientnetv2.model.parallel_inference",
    "training_data": "efficientnetv2.train.keras_fit",
}


def list_models(pattern: str | None = None) -> list[str]:
    """Returns the names that ``get_model`` takes.

    Args:
      pattern: those that match it, such as ``*lite*``; None: all.

    >>> list_models()[:2], list_models("*v2-b*")[-1]
    (['efficientnetv2-s', 'efficientnetv2-m'], 'efficientnetv2-b3')
    """
    return MODELS.matching(pattern)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        require_keras_3()
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'efficientnetv2' has no attribute '{name}'")
