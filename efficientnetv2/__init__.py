"""EfficientNetV2 for TensorFlow: model names in, Keras models out.

``list_models`` answers without TensorFlow; it is imported when another name is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hparams.models import MODELS

if TYPE_CHECKING:
    from efficientnetv2.model.factory import get_model as get_model
    from efficientnetv2.model.folding import for_inference as for_inference
    from efficientnetv2.model.parts import set_inference_threads as set_inference_threads

__all__ = ["for_inference", "get_model", "list_models", "set_inference_threads"]
__version__ = "0.1.0"
_HOMES = {
    "for_inference": "efficientnetv2.model.folding",
    "get_model": "efficientnetv2.model.factory",
    "set_inference_threads": "efficientnetv2.model.parts",
}


def list_models() -> list[str]:
    """Returns the names that ``get_model`` takes.

    >>> list_models()[:2]
    ['efficientnetv2-s', 'efficientnetv2-m']
    """
    return list(MODELS)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'efficientnetv2' has no attribute '{name}'")
