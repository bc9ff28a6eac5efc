"""Builds the Keras model of a config's ``model`` section."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tensorflow import keras

from efficientnetv2.model.blocks import DEPTHWISE_NAMES, BlockStyle
from efficientnetv2.model.layers import STOCK_LAYERS, LayerSet
from efficientnetv2.model.network import Top, build_network, normalise_input
from efficientnetv2.model.resnet import build_baseline
from hparams.architecture import scaled_architecture
from hparams.channels import measured_normalisation
from hparams.choices import NORMALISATIONS
from hparams.config import ModelSection


def build_model(
    config: ModelSection,
    *,
    num_classes: int | None = None,
    include_top: bool = True,
    input_shape: tuple[int | None, ...] | None = None,
    pooling: str | None = None,
    include_preprocessing: bool = False,
    classifier_activation: str | None = None,
    features_only: bool = False,
    layer_set: LayerSet = STOCK_LAYERS,
    images: keras.KerasTensor | None = None,
    name: str | None = None,
) -> keras.Model:
    """Builds the network of a ``model`` section; arguments not listed are those of ``get_model``.

    Args:
      config: the ``model`` section of a resolved config.
      num_classes: as in ``get_model``; None takes ``config.num_classes``.
      input_shape: as in ``get_model``; None: any size, and ``config.channels``.
      layer_set: ``STOCK_LAYERS``, or ``training_layers(...)`` for a network that will be trained.
      images: what the network computes on, in place of ``input_shape`` and
        ``include_preprocessing``: normalised images from any Keras layers; None: a new input.
      name: of the model; None: that of the network.
    """
    if images is None:
        shape = (None, None, config.channels) if input_shape is None else input_shape
        images = image_input(config, input_shape=shape, include_preprocessing=include_preprocessing)
    name = name or config.model_name
    architecture = scaled_architecture(config)
    top = Top(
        head_filters=architecture.head_filters,
        include_top=include_top,
        pooling=pooling,
        num_classes=config.num_classes if num_classes is None else num_classes,
        classifier_activation=classifier_activation,
        dropout_rate=config.dropout_rate,
    )
    with _image_data_format(config.data_format):
        if config.family == "resnet":
            return build_baseline(
                config.model_name,
                top,
                layer_set=layer_set,
                bn_momentum=config.bn_momentum,
                images=images,
                features_only=features_only,
                model_name=name,
            )
        return build_network(
            architecture.stages,
            _style(config, layer_set),
            stem_filters=architecture.stem_filters,
            survival_prob=config.survival_prob,
            top=top,
            images=images,
            features_only=features_only,
            name=name,
        )


def image_input(
    config: ModelSection,
    *,
    input_shape: tuple[int | None, ...],
    include_preprocessing: bool,
    show_range: bool = False,
) -> keras.KerasTensor:
    """Returns the images that the first convolution takes, from a new input of the model.

    Args:
      config: the ``model`` section of a resolved config.
      input_shape: as in ``get_model``.
      include_preprocessing: as in ``get_model``.
      show_range: without preprocessing, add a layer that does nothing and whose name says how the
        images must be normalised: ``model.summary()`` shows it.
    """
    shape = _image_shape(input_shape, data_format=config.data_format)
    images = keras.Input(shape, name="image")
    measured = measured_normalisation(config)
    normalisation = measured or NORMALISATIONS[config.preprocess]
    if include_preprocessing:
        return normalise_input(images, normalisation, data_format=config.data_format)
    if show_range:
        return keras.layers.Identity(name=f"expects_{normalisation.result}")(images)
    return images


@contextlib.contextmanager
def _image_data_format(name: str) -> Iterator[None]:
    """Sets Keras's default, which ``~/.keras/keras.json`` may have changed, to the network's."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(name)
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


def _style(config: ModelSection, layer_set: LayerSet) -> BlockStyle:
    return BlockStyle(
        layer_set=layer_set,
        act_fn=config.act_fn,
        bn_momentum=config.bn_momentum,
        bn_epsilon=config.bn_epsilon,
        data_format=config.data_format,
        padding=config.padding,
        depthwise_name=DEPTHWISE_NAMES[config.family],
    )


def _image_shape(
    input_shape: tuple[int | None, ...], *, data_format: str
) -> tuple[int | None, int | None, int | None]:
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must have 3 entries, got {tuple(input_shape)}")
    first, second, third = input_shape
    if data_format == "channels_first" and first is None:
        first, second, third = third, first, second  # the number of channels is never None
    channels = third if data_format == "channels_last" else first
    if channels is None or channels < 1:
        raise ValueError(f"input_shape must give the number of channels, got {tuple(input_shape)}")
    return first, second, third
