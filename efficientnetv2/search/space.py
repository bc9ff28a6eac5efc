"""Defines the search space: the networks that a search chooses from.

It is the space of the EfficientNetV2 paper (arXiv 2104.00298, section 3.3): each stage has an
operation, a number of layers, a kernel size and an expansion ratio to choose; channels and strides
are those of the backbone.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from hparams.architecture import Architecture, cost, scaled_architecture
from hparams.block_strings import FUSED_MBCONV, MBCONV, BlockSpec, decode_block
from hparams.config import Config
from hparams.resolve import resolve_model

_SE_RATIO = 0.25  # of MBConv; Fused-MBConv has no squeeze-and-excitation (paper, Table 4)
_OPERATIONS = {"mbconv": MBCONV, "fused": FUSED_MBCONV}
Point = Mapping[str, Any]  # choice -> chosen value, for example "stage1.kernel" -> 3


@dataclasses.dataclass(frozen=True)
class Space:
    """Holds the choices that span all networks of a search.

    Attributes:
      backbone: the architecture, after scaling, that the search varies.
      choices: "stage1.operation", "stage1.kernel", ... -> values to choose from.
    """

    backbone: Architecture
    choices: Mapping[str, tuple[Any, ...]]

    baseline = "backbone"  # what the trials are compared with
    baseline_text = "the backbone"
    is_timed = True  # the time of a step is a part of the reward

    @property
    def size(self) -> int:
        """Number of networks."""
        return math.prod(len(values) for values in self.choices.values())

    def draw(self, generator: random.Random) -> dict[str, Any]:
        """Returns a point, drawn uniformly."""
        return {name: generator.choice(values) for name, values in self.choices.items()}

    def architecture(self, point: Point) -> Architecture:
        """Returns the network of a point.

        Raises:
          KeyError: if the point leaves a choice out.
        """
        stages = [
            _apply_point(stage, point, f"stage{number}.")
            for number, stage in enumerate(self.backbone.stages, start=1)
        ]
        return dataclasses.replace(self.backbone, stages=tuple(stages))

    def overrides(self, point: Point) -> dict[str, Any]:
        """Returns the network of a point as config overrides."""
        return self.architecture(point).overrides()

    def baseline_overrides(self) -> dict[str, Any]:
        """Returns the backbone as config overrides."""
        return self.backbone.overrides()

    def identity(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a result on disk must have in common with a trial to be its own."""
        return {"network": list(overrides["model.blocks_args"])}

    def summary(self, config: Config) -> str:
        """Describes the space in one line."""
        backbone = config.search.backbone
        name = backbone[0] if "_" not in backbone[0] else "own block strings"
        return (
            f"{self.size:,} networks of {len(self.backbone.stages)} stages, around {name} "
            f"({architecture_text(self.backbone)})"
        )

    def text(self, point: Point) -> str:
        """Returns a point, a word for each stage: F3e4r2 is fused, kernel 3, expand 4, repeat 2."""
        return architecture_text(self.architecture(point))


def architecture_text(architecture: Architecture) -> str:
    """Returns the stages of a network as one word each, as in ``Space.text``."""
    return " ".join(
        f"{'F' if stage.conv_type == FUSED_MBCONV else 'M'}"
        f"{stage.kernel_size}e{stage.expand_ratio}r{stage.num_repeat}"
        for stage in architecture.stages
    )


def parameters(architecture: Architecture, *, num_classes: int, channels: int = 3) -> int:
    """Returns the number of variables of a network with its classifier."""
    counts = cost(architecture, image_size=32, num_classes=num_classes, channels=channels)
    return counts.parameters


def _apply_point(stage: BlockSpec, point: Point, prefix: str) -> BlockSpec:
    operation = _OPERATIONS[point[f"{prefix}operation"]]
    return dataclasses.replace(
        stage,
        conv_type=operation,
        se_ratio=_SE_RATIO if operation == MBCONV else None,
        kernel_size=point[f"{prefix}kernel"],
        expand_ratio=point[f"{prefix}expansion"],
        num_repeat=point[f"{prefix}layers"],
    )


def build_space(config: Config) -> Space:
    """Builds the search space from the section ``search`` of the config."""
    search = config.search
    backbone = _backbone(config)
    choices: dict[str, tuple[Any, ...]] = {}
    for number, stage in enumerate(backbone.stages, start=1):
        choices[f"stage{number}.operation"] = tuple(search.operations)
        choices[f"stage{number}.kernel"] = tuple(search.kernels)
        choices[f"stage{number}.expansion"] = tuple(search.expansions)
        choices[f"stage{number}.layers"] = _layer_counts(stage.num_repeat, search.layers)
    return Space(backbone, choices)


def _layer_counts(repeats: int, multiples: Sequence[float]) -> tuple[int, ...]:
    """Returns the distinct numbers of layers; in short stages several multiples give the same."""
    return tuple(sorted({max(1, math.floor(repeats * factor + 0.5)) for factor in multiples}))


def _backbone(config: Config) -> Architecture:
    backbone, feature_size = list(config.search.backbone), config.search.feature_size
    if len(backbone) == 1 and "_" not in backbone[0]:
        architecture = scaled_architecture(resolve_model(backbone[0]))
    else:
        stages = tuple(decode_block(text) for text in backbone)
        architecture = Architecture(stages[0].input_filters, stages, config.model.feature_size)
    return dataclasses.replace(architecture, head_filters=feature_size or architecture.head_filters)
