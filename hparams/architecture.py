"""The section ``model`` of a configuration in; its stages after scaling, and what they cost, out.

The counts need no TensorFlow: they are sums over the layers that ``efficientnetv2.model`` builds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from hparams.blocks import (
    FUSED_MBCONV,
    BlockSpec,
    decode_block,
    round_filters,
    scale_blocks,
    squeezed_filters,
)

_NORM = 4  # variables a channel: gamma, beta, moving mean, moving variance
_STEM_KERNEL = 3


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What is built for one configuration; Lite models do not scale stem and head.

    Attributes:
      stem_filters: channels of the stem.
      stages: scaled.
      head_filters: channels of the features.
    """

    stem_filters: int
    stages: tuple[BlockSpec, ...]
    head_filters: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
      parameters: all variables, BatchNorm's moving statistics included.
      multiply_adds: of one image: convolutions and dense layers. The papers call these FLOPs.
    """

    parameters: int
    multiply_adds: int


def scaled_architecture(model: Any) -> Architecture:
    """Applies the width and depth of a ``model`` section; a ResNet has no stages of ours.

    Raises:
      BlockStringError: if a block string is wrong.
    """
    blocks = [decode_block(text) for text in model.blocks_args]
    rounding = {
        "divisor": model.depth_divisor,
        "minimum": model.min_depth,
        "round_down_limit": model.round_down_limit,
    }

    def end_filters(filters: int) -> int:
        width = 1.0 if model.fix_head_stem else model.width_coefficient
        return round_filters(filters, width=width, **rounding)

    stages = scale_blocks(
        blocks,
        width=model.width_coefficient,
        depth=model.depth_coefficient,
        fix_first_and_last=model.fix_head_stem,
        **rounding,
    )
    if not blocks:
        return Architecture(0, (), end_filters(model.feature_size))
    stem = end_filters(blocks[0].input_filters)
    first = dataclasses.replace(stages[0], input_filters=stem)
    return Architecture(stem, (first, *stages[1:]), end_filters(model.feature_size))


def cost(
    architecture: Architecture, *, image_size: int, num_classes: int = 1000, channels: int = 3
) -> Cost:
    """Counts a network with its classifier.

    Args:
      architecture: from ``scaled_architecture``.
      image_size: pixels, height and width.
      num_classes: of the classifier.
      channels: of the images.
    """
    side = math.ceil(image_size / 2)
    layers = [_conv(_STEM_KERNEL, channels, architecture.stem_filters, side)]
    filters = architecture.stem_filters
    for stage in architecture.stages:
        for repeat in range(stage.num_repeat):
            spec = dataclasses.replace(stage, input_filters=filters)
            if repeat:
                spec = dataclasses.replace(spec, strides=1)
            layers += _block(spec, side)
            side, filters = math.ceil(side / spec.strides), spec.output_filters
    layers.append(_conv(1, filters, architecture.head_filters, side))
    weights = architecture.head_filters * num_classes
    layers.append(Cost(weights + num_classes, weights))
    return Cost(
        sum(layer.parameters for layer in layers), sum(layer.multiply_adds for layer in layers)
    )


def _conv(kernel: int, filters_in: int, filters_out: int, side: int) -> Cost:
    """A convolution and its BatchNorm; ``side`` is that of what comes out."""
    weights = kernel**2 * filters_in * filters_out
    return Cost(weights + _NORM * filters_out, weights * side**2)


def _block(spec: BlockSpec, side: int) -> Iterator[Cost]:
    """The layers of one block; ``side`` is that of what comes in."""
    inner, after = spec.input_filters * spec.expand_ratio, math.ceil(side / spec.strides)
    kernel = spec.kernel_size
    if spec.conv_type == FUSED_MBCONV:
        if spec.expand_ratio != 1:
            yield _conv(kernel, spec.input_filters, inner, after)
    else:
        if spec.expand_ratio != 1:
            yield _conv(1, spec.input_filters, inner, side)
        yield _conv(kernel, 1, inner, after)
    if spec.se_ratio is not None:
        squeezed = squeezed_filters(spec)
        yield Cost(2 * inner * squeezed + inner + squeezed, 2 * inner * squeezed)
    plain = spec.conv_type == FUSED_MBCONV and spec.expand_ratio == 1
    yield _conv(kernel if plain else 1, inner, spec.output_filters, after)
