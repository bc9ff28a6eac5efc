"""Builds models by name, optionally with pretrained weights: the public ``get_model``."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging
from tensorflow import keras

from efficientnetv2.checkpoints.download import fetch, fetch_remote
from efficientnetv2.checkpoints.layer_map import WeightLayer, layer_map
from efficientnetv2.checkpoints.loader import WeightsReport, load_weights
from efficientnetv2.checkpoints.model_arguments import (
    check_input_shape,
    check_num_classes,
    check_outputs,
    check_weights,
    model_config,
)
from efficientnetv2.checkpoints.reader import StoredWeights, read_weights
from efficientnetv2.model.blocks import DEPTHWISE_NAMES
from efficientnetv2.model.factory import build_model, image_input
from efficientnetv2.model.variable_dropout import vary_dropout
from efficientnetv2.runtime.float_run import require_float_weights
from hparams.architecture import scaled_architecture
from hparams.arguments import check_flag
from hparams.config import ModelSection
from hparams.errors import WeightsError
from hparams.published_weights import BEST, why_best
from hparams.remote_weights import is_remote
from hparams.weights import NAMES, find_release, name_and_weights, require_weights

_IMAGENET_CLASSES = 1000


def get_model(
    model_name: str,
    *,
    weights: str | pathlib.Path | None = None,
    include_top: bool = True,
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] = (None, None, 3),
    pooling: str | None = None,
    include_preprocessing: bool = False,
    classifier_activation: str | None = None,
    features_only: bool = False,
    overrides: Mapping[str, Any] | str | None = None,
    for_training: bool = False,
) -> keras.Model:
    """Builds a model of the registry; argument names follow ``keras.applications``.

    >>> model = get_model("efficientnetv2-b0", num_classes=10)
    >>> model.output_shape
    (None, 10)

    Args:
      model_name: one of ``list_models()``, also as Keras, timm and torchvision spell it. A name of
        timm with weights, such as ``tf_efficientnetv2_s.in21k_ft_in1k``, loads them.
      weights: None for random initial values; ``imagenet``, ``imagenet21k``, ``imagenet21k-ft1k``
        or ``jft`` for released ones, or ``torchvision:NAME``, ``timm:NAME``, ``keras:NAME`` or
        ``hf://OWNER/NAME`` (downloaded once); ``best`` for the release with the highest published
        accuracy (``hparams.published_weights``); or the path of a TensorFlow checkpoint, a run
        directory, or a ``.weights.h5``, ``.h5``, ``.keras``, ``.pth`` or ``.safetensors`` file
        (``checkpoints.reader.read_weights``). A file of torchvision or timm also says how its
        network pads, normalises and sees images; ``overrides`` win.
      include_top: whether the model has a classifier.
      num_classes: outputs of the classifier; None: the number in ``overrides``, or else 1000. If
        the weights have another number of classes, a number given here makes a new classifier.
      input_shape: of one image; height and width may be None (any size). In the order of
        ``data_format``; the default also works for channels_first. If the weights are for RGB and
        the number of channels is not 3, the stem is summed or repeated over the colours.
      pooling: only without a classifier: ``avg``, ``max``, or None for the 4-D output of the head.
      include_preprocessing: take pixels of 0..255 and normalise them inside the model, as
        ``keras.applications`` does; otherwise the input must be normalised. With ``weights``, a
        layer that does nothing says how, by its name in ``model.summary()``: for example
        ``expects_-1_to_1``.
      classifier_activation: None for logits, or the name of an activation such as ``softmax``.
      features_only: return ``{"reduction_1": ..., ..., "reduction_5": ...}``, the outputs at each
        size (1/2, 1/4, ... of the image); every other model has layers of these names.
      overrides: config keys of the section ``model``, for example
        ``{"survival_prob": 1.0}`` or ``"dropout_rate=0.5,bn_momentum=0.9"``; not those that only
        training has (bn_type, bn_mode, dropout_base).
      for_training: let ``fit`` change the rate of the dropout before the classifier, as progressive
        learning does (``training_data``); what is saved is the same.

    Returns:
      A functional model of stock Keras layers only.

    Raises:
      ConfigError: on an unknown name or key, or an impossible value; a ValueError, as the others.
      WeightsError: if the weights cannot be downloaded or read, or do not fit the model. No weight
        silently keeps its initial value.
      ValueError: on other wrong arguments, and on one without an effect, such as ``pooling`` with a
        classifier.
      TypeError: on an argument of a wrong type, such as ``num_classes="10"``.
    """
    include_top = check_flag("include_top", include_top)
    include_preprocessing = check_flag("include_preprocessing", include_preprocessing)
    features_only = check_flag("features_only", features_only)
    for_training = check_flag("for_training", for_training)
    check_outputs(
        include_top=include_top,
        features_only=features_only,
        pooling=pooling,
        classifier_activation=classifier_activation,
    )
    input_shape = check_input_shape(input_shape)
    check_weights(weights)
    if isinstance(model_name, str):
        wanted, (model_name, weights) = weights, name_and_weights(model_name, weights)
        if wanted == BEST:
            logging.warning("%s", why_best(model_name))
    config = model_config(
        model_name, overrides, include_preprocessing=include_preprocessing, weights=weights
    )
    new_classifier = num_classes is not None
    if num_classes is None:
        num_classes = config.num_classes or _IMAGENET_CLASSES
    num_classes = check_num_classes(num_classes)
    if weights is not None:  # before a network is built, which takes seconds
        require_weights(weights, model_name=config.model_name)
    images = image_input(
        config,
        input_shape=input_shape,
        include_preprocessing=include_preprocessing,
        show_range=weights is not None,
    )
    model = build_model(
        config,
        images=images,
        num_classes=num_classes,
        include_top=include_top,
        pooling=pooling,
        classifier_activation=classifier_activation,
        features_only=features_only,
    )
    if weights is not None:
        report = load_pretrained(model, config, weights, new_classifier=new_classifier)
        if report.new or report.adapted:
            logging.warning("%s", report)
    return vary_dropout(model) if for_training else model


def layer_map_of(config: ModelSection) -> tuple[WeightLayer, ...]:
    """Returns the layers with weights of a ``model`` section's network, classifier included.

    Raises:
      WeightsError: for a ResNet, whose body comes from Keras and is not mapped.
    """
    if config.family == "resnet":
        raise WeightsError(f"pretrained weights are not supported for {config.model_name}")
    architecture = scaled_architecture(config)
    return tuple(
        layer_map(
            architecture.stages,
            depthwise_name=DEPTHWISE_NAMES[config.family],
            head_filters=architecture.head_filters,
        )
    )


def weights_path(weights: str | pathlib.Path, *, model_name: str) -> pathlib.Path:
    """Returns the path of weights; those of a release are downloaded once.

    Args:
      weights: a name of ``hparams.weights.NAMES`` or ``hparams.remote_weights``, or a path.
      model_name: of the model.

    Raises:
      UserError: if the path does not exist, or the release cannot be downloaded.
    """
    require_weights(weights, model_name=model_name)
    if str(weights) in NAMES:
        return fetch(find_release(model_name, str(weights)))
    if is_remote(weights):
        return fetch_remote(str(weights), model_name=model_name)
    return pathlib.Path(weights)


def load_pretrained(
    model: keras.Model,
    config: ModelSection,
    weights: str | pathlib.Path,
    *,
    new_classifier: bool = False,
) -> WeightsReport:
    """Loads pretrained weights into a model.

    Args:
      model: built from ``config``.
      config: the section ``model``.
      weights: as in ``weights_path``.
      new_classifier: as in ``checkpoints.loader.load_weights``.

    Raises:
      WeightsError: as in ``weights_path``, ``read_weights`` and ``load_weights``.
    """
    stored = stored_weights(config, weights)
    return load_weights(model, stored, new_classifier=new_classifier)


def stored_weights(config: ModelSection, weights: str | pathlib.Path) -> StoredWeights:
    """Reads pretrained weights for the network of a ``model`` section, of any number of classes.

    Raises:
      UserError: if they are those of a run with ``train.quantise``.
      WeightsError: as in ``weights_path`` and ``read_weights``.
    """
    require_float_weights(weights)
    path = weights_path(weights, model_name=config.model_name)
    return read_weights(path, layer_map_of(config), model_name=config.model_name)
