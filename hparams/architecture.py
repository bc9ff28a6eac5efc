"""Computes a network's scaled stages from its config, and counts its parameters and multiply-adds.

The counts need no TensorFlow: they are sums over the layers that ``efficientnetv2.model`` builds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from hparams.block_strings import (
    FUSED_MBCONV,
    BlockSpec,
    decode_block,
    encode_block,
    round_filters,
    scale_blocks,
    squeezed_filters,
)
from hparams.config import ModelSection
from hparams.errors import UserError
from hparams.limits import MOST_BLOCKS, MOST_CHANNELS, MOST_PARAMETERS

_NORM = 4  # BatchNorm's variables per channel: gamma, beta, moving mean, moving variance
_STEM_KERNEL, _STEM_STRIDE = 3, 2


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The network that a ``model`` section describes, after scaling.

    Attributes:
      stem_filters: output channels of the stem.
      stages: the stages, after width and depth scaling.
      head_filters: channels of the features before the classifier.
    """

    stem_filters: int
    stages: tuple[BlockSpec, ...]
    head_filters: int

    @property
    def num_blocks(self) -> int:
        """Number of blocks, each repeat counted."""
        return sum(stage.num_repeat for stage in self.stages)

    def overrides(self) -> dict[str, Any]:
        """Returns it as config key -> value, with further scaling turned off."""
        return {
            "model.blocks_args": [encode_block(stage) for stage in self.stages],
            "model.feature_size": self.head_filters,
            "model.width_coefficient": 1.0,
            "model.depth_coefficient": 1.0,
            "model.depth_divisor": 1,  # the channels are rounded already
            "model.min_depth": 1,
            "model.fix_head_stem": False,
        }


@dataclasses.dataclass(frozen=True)
class Cost:
    """Size and arithmetic of a network.

    Attributes:
      parameters: number of values in all variables, BatchNorm's moving statistics included.
      multiply_adds: in the convolutions and dense layers for one image; the papers say FLOPs.
    """

    parameters: int
    multiply_adds: int


def scaled_architecture(model: ModelSection) -> Architecture:
    """Scales the stages of a ``model`` section by its width and depth coefficients.

    A ResNet has no block strings, hence no stages. EfficientNet-Lite does not scale stem and head.

    Raises:
      BlockStringError: if a block string cannot be read, or the scaling exceeds its limits.
    """
    blocks = [decode_block(text) for text in model.blocks_args]
    rounding: dict[str, Any] = {
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


def total_stride(architecture: Architecture) -> int:
    """Returns by how much the network shrinks height and width; 32 for all published ones."""
    return math.prod(stage.strides for stage in architecture.stages) * _STEM_STRIDE


def require_buildable(architecture: Architecture, *, num_classes: int = 1000) -> None:
    """Checks that a network is not beyond what any machine can build.

    Raises:
      UserError: if it has more than ``MOST_BLOCKS`` blocks or ``MOST_PARAMETERS`` parameters.
    """
    if (blocks := architecture.num_blocks) > MOST_BLOCKS:
        raise UserError(f"the network has {blocks} blocks; at most {MOST_BLOCKS} can be built")
    largest = max(architecture.stem_filters, architecture.head_filters)
    if largest > MOST_CHANNELS:
        raise UserError(f"a layer has {largest} channels; at most {MOST_CHANNELS} can be built")
    parameters = cost(architecture, image_size=1, num_classes=num_classes).parameters
    if parameters > MOST_PARAMETERS:
        raise UserError(
            f"the network has {parameters / 1e9:.1f} billion parameters; at most "
            f"{MOST_PARAMETERS / 1e9:.0f} billion can be built"
        )


def cost(
    architecture: Architecture, *, image_size: int, num_classes: int = 1000, channels: int = 3
) -> Cost:
    """Counts the parameters and multiply-adds of a network with its classifier.

    Args:
      architecture: from ``scaled_architecture``.
      image_size: height and width in pixels.
      num_classes: outputs of the classifier.
      channels: channels of the images.
    """
    side = math.ceil(image_size / _STEM_STRIDE)
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
    """Counts a convolution and its BatchNorm; ``side`` is the output's height and width."""
    weights = kernel**2 * filters_in * filters_out
    return Cost(weights + _NORM * filters_out, weights * side**2)


def _block(spec: BlockSpec, side: int) -> Iterator[Cost]:
    """Counts the layers of one block; ``side`` is the input's height and width."""
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
