"""EfficientNetV2 for TensorFlow: models, training, evaluation, prediction and export.

``list_models`` and the checks of arguments need no TensorFlow, which is imported for the work.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Three functions have the names of rooms. These are imported first, so that the functions stay.
import efficientnetv2.export
import efficientnetv2.search
import efficientnetv2.train  # noqa: F401
from efficientnetv2.commands import require_extra
from efficientnetv2.commands.api import (
    average_weights,
    convert,
    evaluate,
    export,
    predict,
    search,
    train,
)
from efficientnetv2.commands.api_outlook import benchmark, check, find_lr, preview
from efficientnetv2.commands.cross_validation import CrossValidation, cross_validate
from efficientnetv2.commands.trained_run import Run, load_run
from efficientnetv2.runtime.keras_version import require_keras_3
from hparams.arguments import check_text
from hparams.errors import UserError
from hparams.models import MODELS

if TYPE_CHECKING:
    from efficientnetv2.checkpoints.pretrained_model import get_model as get_model
    from efficientnetv2.evaluation.image_prediction import Prediction as Prediction
    from efficientnetv2.model.fold_batchnorm import for_inference as for_inference
    from efficientnetv2.model.parallel_inference import (
        set_inference_threads as set_inference_threads,
    )
    from efficientnetv2.reporting.check_report import DataCheck as DataCheck
    from efficientnetv2.reporting.prediction_files import (
        predictions_to_frame as predictions_to_frame,
    )
    from efficientnetv2.train.keras_fit import ProgressiveLearning as ProgressiveLearning
    from efficientnetv2.train.keras_fit import training_data as training_data
    from efficientnetv2.train.range_test import RangeTest as RangeTest

__all__ = [
    "CrossValidation",
    "DataCheck",
    "Prediction",
    "ProgressiveLearning",
    "RangeTest",
    "Run",
    "UserError",
    "average_weights",
    "benchmark",
    "check",
    "convert",
    "cross_validate",
    "evaluate",
    "export",
    "find_lr",
    "for_inference",
    "get_model",
    "list_models",
    "load_run",
    "predict",
    "predictions_to_frame",
    "preview",
    "search",
    "set_inference_threads",
    "train",
    "training_data",
]
__version__ = "0.1.0"
# Name -> its module, which takes long to import: most of them import TensorFlow.
_MODULES = {
    "DataCheck": "efficientnetv2.reporting.check_report",
    "Prediction": "efficientnetv2.evaluation.image_prediction",
    "ProgressiveLearning": "efficientnetv2.train.keras_fit",
    "RangeTest": "efficientnetv2.train.range_test",
    "for_inference": "efficientnetv2.model.fold_batchnorm",
    "get_model": "efficientnetv2.checkpoints.pretrained_model",
    "predictions_to_frame": "efficientnetv2.reporting.prediction_files",
    "set_inference_threads": "efficientnetv2.model.parallel_inference",
    "training_data": "efficientnetv2.train.keras_fit",
}
_FOR_TRAINING = ("DataCheck", "ProgressiveLearning", "RangeTest", "training_data")


def list_models(pattern: str | None = None) -> list[str]:
    """Returns the names that ``get_model`` takes.

    Args:
      pattern: those that match it, such as ``*lite*``; None: all.

    >>> list_models()[:2], list_models("*v2-b*")[-1]
    (['efficientnetv2-s', 'efficientnetv2-m'], 'efficientnetv2-b3')
    """
    return MODELS.matching(None if pattern is None else check_text("pattern", pattern))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        require_keras_3()
        if name in _FOR_TRAINING:
            require_extra("train", f"efficientnetv2.{name}")
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'efficientnetv2' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
