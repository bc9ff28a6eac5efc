"""Scales a network up by a compound coefficient, phi, and prints its block strings and cost.

Rule v1, EfficientNet (arXiv 1905.11946, section 3.3): depth, width and resolution grow by 1.2, 1.1
and 1.15 to the power phi, so that the multiply-adds grow by about 2 to the power phi. Rule v2,
EfficientNetV2 (arXiv 2104.00298, section 3.3): the same, but with images of at most 480 px and more
layers in the later stages.

    python -m hparams.scale efficientnetv2-s --phi=1.26 --last_stage=5x512
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml

from hparams.architecture import Architecture, cost, require_buildable, scaled_architecture
from hparams.arguments import check_count
from hparams.block_strings import (
    BlockSpec,
    BlockStringError,
    encode_block,
    round_filters,
    round_repeats,
)
from hparams.errors import UserError, one_line, shortened, shown
from hparams.limits import LARGEST_IMAGE, MOST_BLOCKS, MOST_CHANNELS
from hparams.models import MODELS
from hparams.resolve import resolve_model
from hparams.scalars import to_float

_LARGEST_PHI = 20  # a million times the cost
_LATER = 4  # index of the first of the later stages, which in V2-S are 5 and 6 (paper Table 4)


def _number(name: str, value: Any) -> float:
    try:
        return to_float(value)
    except ValueError:
        raise UserError(f"{name} must be a number, got {shown(value)}") from None


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a network grows with phi; each factor is raised to the power phi.

    Attributes:
      depth: factor on the layers of each stage.
      width: factor on channels.
      resolution: factor on the image size.
      later_layers: further factor on the layers from the fifth stage on.
      max_image_size: largest image size in evaluation, in pixels; None: no limit.
      scales_head: whether the channels of the head grow, too.
    """

    depth: float = 1.2
    width: float = 1.1
    resolution: float = 1.15
    later_layers: float = 1.0
    max_image_size: int | None = None
    scales_head: bool = True

    def __post_init__(self) -> None:
        for field in ("depth", "width", "resolution", "later_layers"):
            value = getattr(self, field)
            if not 1 <= _number(field, value) < 10:
                raise UserError(f"{field} must be at least 1 and below 10, got {value:g}")
        size = self.max_image_size
        if size is not None:
            check_count("max_image_size", size, high=LARGEST_IMAGE)

    @property
    def growth(self) -> float:
        """Factor on the multiply-adds when phi grows by 1, before rounding: d * w^2 * r^2."""
        return self.depth * self.width**2 * self.resolution**2


# V2-B1 to B3 were also made from B0 by rule v1; V2-M and L from S by rule v2.
RULES = {
    "v1": Rule(),
    "v2": Rule(later_layers=1.05, max_image_size=480, scales_head=False),
}


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A scaled network.

    Attributes:
      architecture: stem, stages and head.
      image_size: image size of evaluation, in pixels.
    """

    architecture: Architecture
    image_size: int


def scale(
    model_name: str, phi: float, *, rule: Rule, last_stage: tuple[int, int] | None = None
) -> Scaled:
    """Scales a registered network up.

    Args:
      model_name: the network to start from.
      phi: compound coefficient, 0 to 20.
      rule: how the network grows with phi.
      last_stage: (layers, channels) of a stage to add at the end, otherwise like the last one;
        the published M, L and XL have one.

    Raises:
      UserError: if the name is unknown or a ResNet, if phi is no number or out of range, or if the
        scaled network is too large to be built.
      TypeError: if ``last_stage`` is no pair of whole numbers.
    """
    model = resolve_model(model_name)
    start = scaled_architecture(model)
    if not start.stages:
        raise UserError(f"{model_name} has no block strings to scale")
    phi = _number("phi", phi)
    if phi < 0:
        raise UserError(f"phi must be at least 0, got {phi:g}")
    if phi > _LARGEST_PHI:
        raise UserError(f"phi must be at most {_LARGEST_PHI}, got {phi:g}")

    def channels(filters: int) -> int:
        return round_filters(filters, width=rule.width**phi, divisor=model.depth_divisor)

    def scaled(index: int, stage: BlockSpec) -> BlockSpec:
        depth = rule.depth * (rule.later_layers if index >= _LATER else 1)
        return dataclasses.replace(
            stage,
            input_filters=channels(stage.input_filters),
            output_filters=channels(stage.output_filters),
            num_repeat=round_repeats(stage.num_repeat, depth=depth**phi),
        )

    try:
        stages = [scaled(index, stage) for index, stage in enumerate(start.stages)]
    except BlockStringError as error:
        raise UserError(f"phi={phi:g} makes {model_name} too large: {error}") from None
    if last_stage is not None:
        layers, filters = _pair(last_stage)
        stages.append(_next_stage(stages[-1], layers, filters))
    head = channels(start.head_filters) if rule.scales_head else start.head_filters
    size = round(MODELS[model_name].eval_size * rule.resolution**phi)
    if rule.max_image_size:
        size = min(size, max(rule.max_image_size, MODELS[model_name].eval_size))
    if size > LARGEST_IMAGE:
        raise UserError(f"images of {size} px are too large; give a smaller phi or resolution")
    architecture = Architecture(stages[0].input_filters, tuple(stages), head)
    require_buildable(architecture)
    return Scaled(architecture, size)


def _pair(last_stage: Any) -> tuple[int, int]:
    if not isinstance(last_stage, (tuple, list)) or len(last_stage) != 2:
        raise TypeError(f"last_stage must be (layers, channels), got {shown(last_stage)}")
    return (
        check_count("layers of last_stage", last_stage[0], high=MOST_BLOCKS),
        check_count("channels of last_stage", last_stage[1], high=MOST_CHANNELS),
    )


def _next_stage(stage: BlockSpec, layers: int, filters: int) -> BlockSpec:
    return dataclasses.replace(
        stage,
        num_repeat=layers,
        input_filters=stage.output_filters,
        output_filters=filters,
        strides=1,
    )


def _layers_and_channels(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,9})x([1-9]\d{0,9})", text, flags=re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"must be LAYERSxCHANNELS, such as 5x512, got {shown(text)}"
        )
    try:
        return _pair((int(match[1]), int(match[2])))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _decimal(text: str) -> float:
    try:
        return to_float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {shown(text)}") from None


def _yaml_path(text: str) -> pathlib.Path:
    if (
        not text.endswith((".yaml", ".yml")) or "\0" in text
    ):  # --hparam_str would not take it for a file
        raise argparse.ArgumentTypeError(f"must end in .yaml or .yml, got {shown(text)}")
    return pathlib.Path(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exits with code 2 and the message on one line."""
        self.exit(2, f"{self.prog}: {one_line(message)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line program; returns the exit code."""
    parser = _Parser(prog="python -m hparams.scale", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model_name", help="network to start from")
    parser.add_argument("--phi", type=_decimal, required=True, help="compound coefficient, 0 to 20")
    parser.add_argument("--rule", choices=RULES, default="v2", help="scaling rule (default: v2)")
    for name in ("depth", "width", "resolution", "later_layers"):
        parser.add_argument(f"--{name}", type=_decimal, help="factor per phi (default: the rule's)")
    parser.add_argument(
        "--last_stage", type=_layers_and_channels, help="LAYERSxCHANNELS of a stage to add"
    )
    parser.add_argument("--out", type=_yaml_path, help=".yaml file to write, for --hparam_str")
    arguments = parser.parse_args(argv)
    factors = {
        name: getattr(arguments, name)
        for name in ("depth", "width", "resolution", "later_layers")
        if getattr(arguments, name) is not None
    }
    try:
        rule = dataclasses.replace(RULES[arguments.rule], **factors)
        scaled = scale(
            arguments.model_name, arguments.phi, rule=rule, last_stage=arguments.last_stage
        )
        _report(arguments.model_name, arguments.phi, rule, scaled)
        if arguments.out:
            values = {**scaled.architecture.overrides(), "eval.isize": scaled.image_size}
            arguments.out.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
            print(f"written to {arguments.out}")
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        path = shortened(str(arguments.out), limit=120)
        print(f"{parser.prog}: cannot write '{path}': {error.strerror}", file=sys.stderr)
        return 2
    return 0


def _report(model_name: str, phi: float, rule: Rule, scaled: Scaled) -> None:
    scaled_cost = cost(scaled.architecture, image_size=scaled.image_size)
    print(
        f"{model_name}, phi {phi:g}: depth x {rule.depth**phi:.2f}, width x {rule.width**phi:.2f}, "
        f"multiply-adds x {rule.growth**phi:.1f} without an image size limit (d * w^2 * r^2 = "
        f"{rule.growth:.2f}; should be about 2)"
    )
    for stage in scaled.architecture.stages:
        print(f"  {encode_block(stage)}")
    print(
        f"  stem {scaled.architecture.stem_filters}, features {scaled.architecture.head_filters}, "
        f"{scaled.image_size} px: {scaled_cost.parameters:,} parameters, "
        f"{scaled_cost.multiply_adds / 1e9:.2f} B multiply-adds"
    )


if __name__ == "__main__":
    sys.exit(main())
