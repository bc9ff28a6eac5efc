"""Has the functions of ``keras.applications`` for V2, V1 and Lite: one import line changes.

    from efficientnetv2.applications import EfficientNetV2S, decode_predictions, preprocess_input

Arguments, defaults and outputs are those of ``keras.applications``; docs/python.md has the few
differences. Importing this module does not import TensorFlow; the first call of a network does.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from efficientnetv2.runtime.keras_version import require_keras_3
from hparams.errors import UserError, shown
from hparams.model_names import our_spelling
from hparams.models import MODELS
from hparams.weights import IMAGENET_RELEASES, KERAS_FILES, NAMES, imagenet_synsets

if TYPE_CHECKING:
    from tensorflow import keras

    _Weights = str | os.PathLike[str] | None
    _Shape = tuple[int | None, int | None, int | None] | None
    _Activation = str | Callable[..., Any] | None


class _Application(Protocol):
    """A function with the arguments of Keras's for EfficientNet V1."""

    def __call__(
        self,
        include_top: bool = True,
        weights: _Weights = "imagenet",
        input_tensor: Any = None,
        input_shape: _Shape = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: _Activation = "softmax",
        name: str = ...,
    ) -> keras.Model: ...


class _ApplicationV2(Protocol):
    """A function with the arguments of Keras's for EfficientNetV2."""

    def __call__(
        self,
        include_top: bool = True,
        weights: _Weights = "imagenet",
        input_tensor: Any = None,
        input_shape: _Shape = None,
        pooling: str | None = None,
        classes: int = 1000,
        classifier_activation: _Activation = "softmax",
        include_preprocessing: bool = True,
        name: str = ...,
    ) -> keras.Model: ...


_DOCUMENTATION = """Builds {title}, for images of {size} pixels unless another shape is given.

The model takes pixels of 0..255, float32 ``[B, H, W, 3]``, and returns probabilities
``[B, classes]``.

Args:
  include_top: whether the model has a classifier.
  weights: ``imagenet`` ({imagenet}); None for random initial values;
    the path of a weight file of Keras, TensorFlow or PyTorch; or another release that
    ``efficientnetv2.get_model`` knows.
  input_tensor: a Keras tensor of images that the model continues; None: a new input.
  input_shape: of one image, at least 32 pixels; None: {size} pixels with a classifier, any size
    without.
  pooling: without a classifier: ``avg``, ``max``, or None for the 4-D output of the last layer.
  classes: outputs of the classifier; 1000 with ``imagenet``.
  classifier_activation: None for logits, or the name of an activation; with pretrained weights,
    None or ``softmax``.{include_preprocessing}
  name: of the model.

Returns:
  A functional ``keras.Model`` of stock layers.

Raises:
  ValueError: on a wrong value, and on weights that are damaged, cannot be downloaded, or do not
    fit.
  TypeError: on an argument of a wrong type, such as ``classes="10"``.
"""
_INCLUDE_PREPROCESSING = """
  include_preprocessing: False: the model takes images that are normalised already."""


def _application(function_name: str) -> Any:
    """Returns the function for one network, with the signature that Keras's has."""
    model_name = our_spelling(function_name)
    family = MODELS[model_name].family
    parameters = {
        "include_top": True,
        "weights": "imagenet",
        "input_tensor": None,
        "input_shape": None,
        "pooling": None,
        "classes": 1000,
        "classifier_activation": "softmax",
        **({} if family == "v1" else {"include_preprocessing": True}),
        # Keras writes a hyphen in the names of V2 alone.
        "name": model_name if family == "v2" else function_name.lower(),
    }
    signature = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, default in parameters.items()
        ]
    )

    def build(*args: Any, **kwargs: Any) -> keras.Model:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function_name}: {error}") from None
        given.apply_defaults()
        require_keras_3()
        from efficientnetv2.checkpoints.keras_application import Arguments, build_application

        return build_application(model_name, Arguments(**given.arguments))

    build.__name__ = build.__qualname__ = function_name
    build.__doc__ = _documentation(function_name, model_name)
    build.__signature__ = signature  # type: ignore[attr-defined]
    return build


def _documentation(function_name: str, model_name: str) -> str:
    row = MODELS[model_name]
    imagenet = "Keras's own file"
    if (model_name, True) not in KERAS_FILES:
        release = IMAGENET_RELEASES.get(model_name, "imagenet")
        imagenet = f"the official release, trained on {NAMES[release]}"
    return _DOCUMENTATION.format(
        title=function_name,
        size=row.eval_size,
        imagenet=imagenet,
        include_preprocessing="" if row.family == "v1" else _INCLUDE_PREPROCESSING,
    )


EfficientNetV2B0: _ApplicationV2 = _application("EfficientNetV2B0")
EfficientNetV2B1: _ApplicationV2 = _application("EfficientNetV2B1")
EfficientNetV2B2: _ApplicationV2 = _application("EfficientNetV2B2")
EfficientNetV2B3: _ApplicationV2 = _application("EfficientNetV2B3")
EfficientNetV2S: _ApplicationV2 = _application("EfficientNetV2S")
EfficientNetV2M: _ApplicationV2 = _application("EfficientNetV2M")
EfficientNetV2L: _ApplicationV2 = _application("EfficientNetV2L")
EfficientNetV2XL: _ApplicationV2 = _application("EfficientNetV2XL")
EfficientNetB0: _Application = _application("EfficientNetB0")
EfficientNetB1: _Application = _application("EfficientNetB1")
EfficientNetB2: _Application = _application("EfficientNetB2")
EfficientNetB3: _Application = _application("EfficientNetB3")
EfficientNetB4: _Application = _application("EfficientNetB4")
EfficientNetB5: _Application = _application("EfficientNetB5")
EfficientNetB6: _Application = _application("EfficientNetB6")
EfficientNetB7: _Application = _application("EfficientNetB7")
EfficientNetB8: _Application = _application("EfficientNetB8")
EfficientNetL2: _Application = _application("EfficientNetL2")
EfficientNetLite0: _ApplicationV2 = _application("EfficientNetLite0")
EfficientNetLite1: _ApplicationV2 = _application("EfficientNetLite1")
EfficientNetLite2: _ApplicationV2 = _application("EfficientNetLite2")
EfficientNetLite3: _ApplicationV2 = _application("EfficientNetLite3")
EfficientNetLite4: _ApplicationV2 = _application("EfficientNetLite4")


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Returns images as they are: the models normalise pixels of 0..255 themselves, as in Keras.

    Args:
      x: images.
      data_format: of no effect.
    """
    del data_format
    return x


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, Any]]]:
    """Returns the most probable classes of ImageNet for each image.

    Args:
      preds: probabilities or logits ``[B, 1000]``, an array or a tensor.
      top: number of classes an image.

    Returns:
      For each image, (identifier in WordNet, name, score), in the order of falling scores.

    Raises:
      ValueError: if the shape is another one.

    >>> decode_predictions(np.eye(1000)[[207]], top=1)[0][0][:2]
    ('n02099601', 'golden_retriever')
    """
    rows, synsets = np.asarray(preds), imagenet_synsets()
    if rows.ndim != 2 or rows.shape[1] != len(synsets):
        raise UserError(
            f"decode_predictions takes predictions of the shape (images, {len(synsets)}), got "
            f"{shown(rows.shape)}"
        )
    return [[(*synsets[label], row[label]) for label in row.argsort()[-top:][::-1]] for row in rows]
