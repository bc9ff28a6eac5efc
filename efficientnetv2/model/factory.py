"""Model names in, Keras models out: the one place of this package that opens the model config."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging
from tensorflow import keras

from efficientnetv2.model.baselines import build_baseline
from efficientnetv2.model.blocks import BlockStyle
from efficientnetv2.model.layers import STOCK_LAYERS, LayerSet
from efficientnetv2.model.network import Top, build_network
from efficientnetv2.model.pretrained import DEPTHWISE_NAMES, load_pretrained
from hparams.architecture import scaled_architecture
from hparams.preprocess import NORMALISATIONS, Normalisation
from hparams.resolve import Config, resolve_model

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
) -> keras.Model:
    """Builds a model of the registry; argument names follow ``keras.applications``.

    >>> model = get_model("efficientnetv2-b0", num_classes=10)
    >>> model.output_shape
    (None, 10)

    Args:
      model_name: one of ``list_models()``.
      weights: None for random initial values; ``imagenet``, ``imagenet21k``, ``imagenet21k-ft1k``
        or ``jft`` for released ones (downloaded once); or the path of a TensorFlow checkpoint, a
        run directory, or a ``.weights.h5``, ``.h5``, ``.keras``, ``.pth`` or ``.safetensors`` file
        (``checkpoints.reading.read_weights``).
      include_top: whether there is a classifier.
      num_classes: outputs of the classifier; None: what ``overrides`` say, or else 1000. With
        weights of another number of classes, a number given here makes a new classifier.
      input_shape: of one image; height and width may be None (any size). In the order of
        ``data_format``; the default also serves channels_first. For weights of colour images and
        other channels, the stem is summed or repeated over the colours.
      pooling: without a classifier: ``avg``, ``max``, or None for the 4-D output of the head.
      include_preprocessing: take pixels of 0..255 and normalise them inside the model, as
        ``keras.applications`` does; otherwise the input is normalised already.
      classifier_activation: None for logits, or the name of an activation such as ``softmax``.
      features_only: return ``{"reduction_1": ..., ..., "reduction_5": ...}``, the outputs at each
        size (1/2, 1/4, ... of the image); every other model has layers of these names.
      overrides: configuration keys of the section ``model``, for example
        ``{"survival_prob": 1.0}`` or ``"dropout_rate=0.5,bn_momentum=0.9"``.

    Returns:
      A functional model of stock Keras layers only.

    Raises:
      ConfigError: on an unknown name, key or impossible value.
      WeightsError: on weights that cannot be had or read, or do not fit; never are weights left
        at their initial values in silence.
      ValueError: on other wrong arguments.
    """
    config = resolve_model(model_name, overrides)
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    new_classifier = num_classes is not None
    if num_classes is None:
        num_classes = config.num_classes or _IMAGENET_CLASSES
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    model = build_model(
        config,
        num_classes=num_classes,
        include_top=include_top,
        input_shape=input_shape,
        pooling=pooling,
        include_preprocessing=include_preprocessing,
        classifier_activation=classifier_activation,
        features_only=features_only,
    )
    if weights is not None:
        report = load_pretrained(model, config, weights, new_classifier=new_classifier)
        if report.new or report.adapted:
            logging.warning("%s", report)
    return model


def build_model(
    config: Config,
    *,
    num_classes: int | None = None,
    include_top: bool = True,
    input_shape: tuple[int | None, ...] = (None, None, 3),
    pooling: str | None = None,
    include_preprocessing: bool = False,
    classifier_activation: str | None = None,
    features_only: bool = False,
    layer_set: LayerSet = STOCK_LAYERS,
) -> keras.Model:
    """Builds the network of a ``model`` section; other arguments as in ``get_model``.

    Args:
      config: the section ``model`` of a resolved configuration.
      num_classes: as in ``get_model``; None takes ``config.num_classes``.
      layer_set: ``STOCK_LAYERS``, or ``training_layers(...)`` for a network that will be trained.
    """
    shape = _ordered(input_shape, data_format=config.data_format)
    channels = shape[-1] if config.data_format == "channels_last" else shape[0]
    normalisation = _normalisation(config, channels) if include_preprocessing else None
    architecture = scaled_architecture(config)
    top = Top(
        head_filters=architecture.head_filters,
        include_top=include_top,
        pooling=pooling,
        num_classes=config.num_classes if num_classes is None else num_classes,
        classifier_activation=classifier_activation,
        dropout_rate=config.dropout_rate,
    )
    if config.family == "resnet":
        return build_baseline(
            config.model_name,
            top,
            layer_set=layer_set,
            bn_momentum=config.bn_momentum,
            input_shape=shape,
            normalisation=normalisation,
            features_only=features_only,
        )
    return build_network(
        architecture.stages,
        _style(config, layer_set),
        stem_filters=architecture.stem_filters,
        survival_prob=config.survival_prob,
        top=top,
        input_shape=shape,
        normalisation=normalisation,
        features_only=features_only,
        name=config.model_name,
    )


def _style(config: Config, layer_set: LayerSet) -> BlockStyle:
    return BlockStyle(
        layer_set=layer_set,
        act_fn=config.act_fn,
        bn_momentum=config.bn_momentum,
        bn_epsilon=config.bn_epsilon,
        data_format=config.data_format,
        depthwise_name=DEPTHWISE_NAMES[config.family],
    )


def _ordered(
    input_shape: tuple[int | None, ...], *, data_format: str
) -> tuple[int | None, int | None, int | None]:
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must have 3 entries, got {tuple(input_shape)}")
    first, second, third = input_shape
    if data_format == "channels_first" and first is None:
        first, second, third = third, first, second  # the channels are never None
    channels = third if data_format == "channels_last" else first
    if channels is None or channels < 1:
        raise ValueError(f"input_shape must name its channels, got {tuple(input_shape)}")
    return first, second, third


def _normalisation(config: Config, channels: int | None) -> Normalisation:
    # Means and deviations of red, green and blue say nothing about other numbers of channels.
    name = "v2" if config.preprocess == "v1" and channels != 3 else config.preprocess
    return NORMALISATIONS[name]
