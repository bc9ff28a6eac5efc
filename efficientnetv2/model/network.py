"""Builds whole networks from block specs: functional ``keras.Model``s from images to logits.

stem -> blocks -> head -> pooling -> dropout -> classifier (paper Table 4).
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.blocks import BlockStyle, block, conv_bn
from efficientnetv2.model.layers import LayerSet, dense_initializer
from hparams.block_strings import BlockSpec
from hparams.choices import Normalisation


@dataclasses.dataclass(frozen=True)
class Top:
    """What follows the last block: head, pooling and classifier.

    Attributes:
      head_filters: channels of the last 1x1 convolution.
      include_top: whether the network has a classifier.
      pooling: without a classifier: ``avg``, ``max`` or None for ``[B, H, W, head_filters]``.
      num_classes: outputs of the classifier.
      classifier_activation: None for logits, or ``softmax``, ``sigmoid``.
      dropout_rate: of the dropout before the classifier.
    """

    head_filters: int
    include_top: bool
    pooling: str | None
    num_classes: int
    classifier_activation: str | None
    dropout_rate: float


def single_blocks(
    stages: Sequence[BlockSpec], *, survival_prob: float
) -> Iterator[tuple[str, BlockSpec, float]]:
    """Yields (name, spec with ``num_repeat`` 1, survival probability) of each block in order.

    Only the first block of a stage has its stride and its change of channels. The survival
    probability falls linearly from 1 at the first block. It stops one of n steps short of
    ``survival_prob`` at the last block, as in the official code.
    """
    total = sum(stage.num_repeat for stage in stages)
    index = 0
    for number, stage in enumerate(stages, start=1):
        for repeat in range(stage.num_repeat):
            spec = dataclasses.replace(stage, num_repeat=1)
            if repeat > 0:
                spec = dataclasses.replace(spec, strides=1, input_filters=stage.output_filters)
            yield (
                f"block{number}{_letters(repeat)}",
                spec,
                1.0 - (1.0 - survival_prob) * index / total,
            )
            index += 1


def _letters(repeat: int) -> str:
    # a..z as in keras.applications. XL, which Keras lacks, has up to 32 repeats: aa follows z.
    return "" if repeat < 0 else _letters(repeat // 26 - 1) + chr(ord("a") + repeat % 26)


def build_network(
    stages: Sequence[BlockSpec],
    style: BlockStyle,
    *,
    stem_filters: int,
    survival_prob: float,
    top: Top,
    images: keras.KerasTensor,
    features_only: bool,
    name: str,
) -> keras.Model:
    """Builds one network.

    Args:
      stages: scaled stages.
      style: layers, activation and BatchNorm constants.
      stem_filters: channels of the first convolution.
      survival_prob: of stochastic depth at the end of the network.
      top: head and classifier.
      images: normalised ``[B, H, W, C]``, in the order of ``style.data_format``; sizes may be None.
        The model's inputs are those that they are computed from.
      features_only: return the reduction endpoints as a dictionary, without a head.
      name: of the model.

    Returns:
      A functional model from images to logits ``[B, num_classes]``, to features, or to
      ``{"reduction_1": ..., ...}``, each half the size of the one before.
    """
    names = ("stem_conv", "stem_bn", "stem_activation")
    x = conv_bn(images, style, filters=stem_filters, kernel_size=3, strides=2, names=names)
    blocks = list(single_blocks(stages, survival_prob=survival_prob))
    endpoints: dict[str, tf.Tensor] = {}
    for index, (block_name, spec, survival) in enumerate(blocks):
        x = block(x, style, spec=spec, survival_probability=survival, name=block_name)
        if index + 1 == len(blocks) or blocks[index + 1][1].strides > 1:
            endpoint = f"reduction_{len(endpoints) + 1}"
            x = endpoints[endpoint] = keras.layers.Identity(name=endpoint)(x)
    outputs = endpoints if features_only else _head(x, style, top=top)
    return model_of(images, outputs, name=name)


def model_of(
    images: keras.KerasTensor, outputs: tf.Tensor | dict[str, tf.Tensor], *, name: str
) -> keras.Model:
    """Returns the model from all inputs of ``images`` to outputs that are computed from them."""
    inputs = keras.utils.get_source_inputs(images)
    with _deep_recursion():
        return keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name=name)


@contextlib.contextmanager
def _deep_recursion() -> Iterator[None]:
    # Keras walks a network from its output to its input by recursion, several frames per layer: XL
    # and L2 exceed Python's default limit of 1000.
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def normalise_input(
    images: keras.KerasTensor, normalisation: Normalisation, *, data_format: str
) -> keras.KerasTensor:
    """Normalises pixels of 0..255 inside the network.

    Grey images are repeated for red, green and blue where these are normalised differently: only
    then does a grey picture give the logits of the same picture as RGB, also at its borders. More
    than three channels take the constants of red, green and blue in turn, as the stem's kernel
    takes their weights (``checkpoints.loader``).

    Returns:
      Normalised images, with the channels of ``images``, or three in place of one.
    """
    is_last = data_format == "channels_last"
    channels = images.shape[-1 if is_last else 1]
    scale: list = [1.0 / deviation for deviation in normalisation.deviation]
    offset: list = [-m / d for m, d in zip(normalisation.mean, normalisation.deviation)]
    if len(set(zip(scale, offset))) == 1:
        return keras.layers.Rescaling(scale[0], offset=offset[0], name="rescaling")(images)
    if channels == 1:
        channels = len(scale)
        repeat = keras.layers.Concatenate(axis=-1 if is_last else 1, name="grey_to_rgb")
        images = repeat([images] * channels)
    scale, offset = (
        [values[channel % len(values)] for channel in range(channels)] for values in (scale, offset)
    )
    if not is_last:
        scale, offset = ([[[value]] for value in values] for values in (scale, offset))
    return keras.layers.Rescaling(scale, offset=offset, name="rescaling")(images)


def _head(x: tf.Tensor, style: BlockStyle, *, top: Top) -> tf.Tensor:
    names = ("top_conv", "top_bn", "top_activation")
    x = conv_bn(x, style, filters=top.head_filters, kernel_size=1, names=names)
    return classify(x, top, layer_set=style.layer_set, data_format=style.data_format)


def classify(x: tf.Tensor, top: Top, *, layer_set: LayerSet, data_format: str) -> tf.Tensor:
    """Applies pooling, dropout and classifier to features ``[B, H, W, C]``, as ``top`` says."""
    if top.include_top or top.pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(data_format=data_format, name="avg_pool")(x)
    elif top.pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(data_format=data_format, name="max_pool")(x)
    if not top.include_top:
        return x
    dropout = layer_set.head_dropout(top.dropout_rate, "top_dropout")
    x = x if dropout is None else dropout(x)
    return keras.layers.Dense(
        top.num_classes,
        activation=top.classifier_activation,
        kernel_initializer=dense_initializer(x.shape[-1], top.num_classes),
        dtype="float32",  # even if the network computes in 16 bits
        name="predictions",
    )(x)
