"""Reads, writes and scales block strings, the notation for the stages of a network.

A stage is written as one string, as in the official code:
``r2_k3_s1_e1_i24_o24_c1`` is 2 repeats, kernel 3, stride 1, expansion 1, 24 channels in, 24 out,
Fused-MBConv; ``se0.25`` adds squeeze-and-excitation with a quarter of the input channels.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import re
from collections.abc import Sequence
from typing import Literal

from hparams.errors import UserError, shortened, shown
from hparams.limits import MOST_BLOCKS, MOST_CHANNELS

MBCONV: Literal[0] = 0
FUSED_MBCONV: Literal[1] = 1
# Ends the names of the layers that pad as PyTorch does: ``stem_conv_padding``. Those of
# keras.applications, which pad as ``same`` does, end in ``_pad``.
PADDING_SUFFIX = "padding"

# code in the string -> (attribute, type, whether it is required)
_FIELDS: dict[str, tuple[str, type, bool]] = {
    "r": ("num_repeat", int, True),
    "k": ("kernel_size", int, True),
    "s": ("strides", int, True),
    "e": ("expand_ratio", int, True),
    "i": ("input_filters", int, True),
    "o": ("output_filters", int, True),
    "se": ("se_ratio", float, False),
    "c": ("conv_type", int, False),
}
# attribute -> largest value; the smallest is 1
_LARGEST = {
    "num_repeat": MOST_BLOCKS,
    "expand_ratio": 100,
    "input_filters": MOST_CHANNELS,
    "output_filters": MOST_CHANNELS,
}
_LARGEST_KERNEL = 99
_MOST_DIGITS = 20
_TOKEN = re.compile(r"([a-z]+)(.*)")


class BlockStringError(UserError):
    """A block string that cannot be read or describes an impossible block."""


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """One stage: ``num_repeat`` blocks of one kind (paper Tables 1 and 4).

    Attributes:
      num_repeat: blocks in the stage, 1 to 500.
      kernel_size: height and width of the spatial kernel, odd, at most 99.
      strides: 1 or 2, of the first block; the others have 1.
      expand_ratio: width of the inner layer as a multiple of the input channels, 1 to 100.
      input_filters: input channels of the first block, 1 to 65,536.
      output_filters: output channels of every block, 1 to 65,536.
      se_ratio: squeeze-and-excitation channels as a share of the block's INPUT channels,
        in (0, 1], or None for no squeeze-and-excitation.
      conv_type: 0 for MBConv (1x1 then depthwise), 1 for Fused-MBConv (one full convolution).
    """

    num_repeat: int
    kernel_size: int
    strides: int
    expand_ratio: int
    input_filters: int
    output_filters: int
    se_ratio: float | None = None
    conv_type: int = MBCONV

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            _require(value >= 1, name, value, "at least 1")
            _require(value <= largest, name, value, f"at most {largest}")
        kernel = self.kernel_size
        _require(kernel >= 1 and kernel % 2 == 1, "kernel_size", kernel, "odd and at least 1")
        _require(kernel <= _LARGEST_KERNEL, "kernel_size", kernel, f"at most {_LARGEST_KERNEL}")
        _require(self.strides in (1, 2), "strides", self.strides, "1 or 2")
        _require(
            self.conv_type in (MBCONV, FUSED_MBCONV),
            "conv_type",
            self.conv_type,
            "0 (MBConv) or 1 (Fused-MBConv)",
        )
        if self.se_ratio is not None:
            _require(0 < self.se_ratio <= 1, "se_ratio", self.se_ratio, "in (0, 1]")


def squeezed_filters(block: BlockSpec) -> int:
    """Returns the channels inside squeeze-and-excitation: a share of the block's input channels.

    >>> squeezed_filters(decode_block("r1_k3_s1_e6_i16_o32_se0.25"))
    4
    """
    return max(1, int(block.input_filters * (block.se_ratio or 0)))


def _require(condition: bool, field: str, value: object, expected: str) -> None:
    if not condition:
        raise BlockStringError(f"{field} must be {expected}, got {shown(value)}")


def decode_block(text: str) -> BlockSpec:
    """Reads one block string into a ``BlockSpec``.

    >>> decode_block("r2_k3_s2_e4_i24_o48_se0.25").output_filters
    48

    Raises:
      BlockStringError: if a field is unknown, missing, given twice, of the wrong type or out of
        range; the message names the string and the field.
    """
    where = f"block '{shortened(text)}'"
    values: dict[str, int | float] = {}
    for token in text.split("_"):
        match = _TOKEN.fullmatch(token)
        code = match.group(1) if match else token
        if match is None or code not in _FIELDS:
            known = ", ".join(_FIELDS)
            raise BlockStringError(f"{where}: unknown field {shown(token)}; known: {known}")
        attribute, kind, _ = _FIELDS[code]
        if attribute in values:
            raise BlockStringError(f"{where}: {attribute} ('{code}') is given twice")
        values[attribute] = _number(match.group(2), kind=kind, where=f"{where}: field '{code}'")
    missing = [
        f"{attribute} ('{code}')"
        for code, (attribute, _, is_required) in _FIELDS.items()
        if is_required and attribute not in values
    ]
    if missing:
        raise BlockStringError(f"{where}: missing {', '.join(missing)}")
    try:
        return BlockSpec(**values)  # type: ignore[arg-type]
    except BlockStringError as error:
        raise BlockStringError(f"{where}: {error}") from None


def _number(text: str, *, kind: type, where: str) -> int | float:
    # int() and float() alone would also accept ' 3', '1_0', 'nan' and 'inf'.
    pattern = r"\d+" if kind is int else r"\d+(\.\d+)?"
    if re.fullmatch(pattern, text, flags=re.ASCII) is None:
        noun = "a whole number" if kind is int else "a number"
        raise BlockStringError(f"{where} must be {noun}, got {shown(text)}")
    if len(text) > _MOST_DIGITS:  # Python itself reads no more than 4300
        raise BlockStringError(
            f"{where} must have at most {_MOST_DIGITS} digits, got {shown(text)}"
        )
    number: int | float = kind(text)
    return number


def encode_block(block: BlockSpec) -> str:
    """Writes a ``BlockSpec`` as a string that ``decode_block`` reads back to an equal one.

    >>> encode_block(decode_block("r1_k3_s1_e1_i32_o16_c1"))
    'r1_k3_s1_e1_i32_o16_c1'
    """
    fields = [
        f"{code}{getattr(block, attribute)}"
        for code, (attribute, _, is_required) in _FIELDS.items()
        if is_required
    ]
    if block.se_ratio is not None:
        # In decimals, because decode_block does not read exponents such as 1e-05.
        ratio = format(decimal.Decimal(repr(float(block.se_ratio))), "f")
        fields.append(f"se{ratio.removesuffix('.0')}")
    if block.conv_type != MBCONV:
        fields.append(f"c{block.conv_type}")
    return "_".join(fields)


def round_filters(
    filters: int,
    *,
    width: float,
    divisor: int = 8,
    minimum: int = 8,
    round_down_limit: float = 1.0,
) -> int:
    """Scales a channel count by ``width`` and rounds to the nearest multiple of ``divisor``.

    Halves round up, and the result is never below ``minimum``. If rounding down would lose more
    than the share ``round_down_limit`` of the channels, it rounds up instead: the code that trained
    the released V1 and Lite weights had a limit of 0.1, which changes only B3 and Lite3; the
    EfficientNetV2 code has none.

    >>> round_filters(32, width=1.1), round_filters(20, width=1.0), round_filters(3, width=1.0)
    (32, 24, 8)
    >>> round_filters(16, width=1.2), round_filters(16, width=1.2, round_down_limit=0.1)
    (16, 24)
    """
    scaled = filters * width
    rounded = max(minimum, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < (1 - round_down_limit) * scaled else rounded


def round_repeats(repeats: int, *, depth: float) -> int:
    """Scales a number of repeats by ``depth``, rounding up.

    >>> round_repeats(3, depth=1.1), round_repeats(3, depth=1.0)
    (4, 3)
    """
    return math.ceil(repeats * depth)


def scale_blocks(
    blocks: Sequence[BlockSpec],
    *,
    width: float,
    depth: float,
    divisor: int = 8,
    minimum: int = 8,
    round_down_limit: float = 1.0,
    fix_first_and_last: bool = False,
) -> tuple[BlockSpec, ...]:
    """Applies width and depth scaling to a whole network (EfficientNet paper, section 3.3).

    Args:
      blocks: the unscaled stages.
      width: factor on channels, > 0.
      depth: factor on repeats, > 0.
      divisor: channels become a multiple of this.
      minimum: the smallest channel count.
      round_down_limit: as in ``round_filters``.
      fix_first_and_last: leave the first and the last stage's repeats alone (EfficientNet-Lite).

    Returns:
      The scaled stages, in order.
    """
    last = len(blocks) - 1

    def channels(filters: int) -> int:
        return round_filters(
            filters,
            width=width,
            divisor=divisor,
            minimum=minimum,
            round_down_limit=round_down_limit,
        )

    def scaled(index: int, block: BlockSpec) -> BlockSpec:
        fixed = fix_first_and_last and index in (0, last)
        return dataclasses.replace(
            block,
            input_filters=channels(block.input_filters),
            output_filters=channels(block.output_filters),
            num_repeat=block.num_repeat if fixed else round_repeats(block.num_repeat, depth=depth),
        )

    return tuple(scaled(index, block) for index, block in enumerate(blocks))
