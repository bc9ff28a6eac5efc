"""Reading and writing block strings, their errors, rounding, and scaling like the official code."""

import dataclasses
import json
import pathlib
import re

import pytest

from hparams.block_strings import (
    FUSED_MBCONV,
    MBCONV,
    BlockSpec,
    BlockStringError,
    decode_block,
    encode_block,
    round_filters,
    round_repeats,
    scale_blocks,
)
from hparams.errors import UserError
from hparams.models import MODELS

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "models.json").read_text(encoding="utf-8")
)
MODEL_STRINGS = sorted({text for row in MODELS.values() for text in row.blocks})

HAND_MADE = {
    "r2_k3_s1_e1_i24_o24_c1": BlockSpec(2, 3, 1, 1, 24, 24, None, FUSED_MBCONV),
    "r15_k5_s2_e6_i160_o256_se0.125": BlockSpec(15, 5, 2, 6, 160, 256, 0.125, MBCONV),
    "r7_k7_s2_e3_i12_o20_se0.25_c1": BlockSpec(7, 7, 2, 3, 12, 20, 0.25, FUSED_MBCONV),
    "r1_k1_s1_e1_i1_o1": BlockSpec(1, 1, 1, 1, 1, 1, None, MBCONV),
    "r4_k9_s1_e2_i8_o16_se1": BlockSpec(4, 9, 1, 2, 8, 16, 1.0, MBCONV),
    "r1_k3_s1_e1_i8_o8_se0.3333333333333333": BlockSpec(1, 3, 1, 1, 8, 8, 1 / 3, MBCONV),
}

KNOWN = "known: r, k, s, e, i, o, se, c"
# block string -> its error message, after the string itself
UNREADABLE = {
    "r2_k3_s1_e4_i24_o48_x7": f"unknown field 'x7'; {KNOWN}",
    "r2_k3_s1_e4_i24_o48_": f"unknown field ''; {KNOWN}",
    "": f"unknown field ''; {KNOWN}",
    "R2_k3_s1_e4_i24_o48": f"unknown field 'R2'; {KNOWN}",
    "r2_kx_s1_e4_i24_o48": f"unknown field 'kx'; {KNOWN}",
    "r2_ k3_s1_e4_i24_o48": f"unknown field ' k3'; {KNOWN}",
    "r2_k3_s1_e4_i24_o48_senan": f"unknown field 'senan'; {KNOWN}",
    "r2_k3_s1_e4_i24": "missing output_filters ('o')",
    "k3_s1_e4_i24_o48": "missing num_repeat ('r')",
    "r2_se0.25_i24_c1": "missing kernel_size ('k'), strides ('s'), expand_ratio ('e'), "
    "output_filters ('o')",
    "r2_k3_s1_e4_i24_o48_k3": "kernel_size ('k') is given twice",
    "r2_k3_s1_e4_i24_o48_se0.25_se0.5": "se_ratio ('se') is given twice",
    "r2_k3.5_s1_e4_i24_o48": "field 'k' must be a whole number, got '3.5'",
    "r2_k 3_s1_e4_i24_o48": "field 'k' must be a whole number, got ' 3'",
    "r2_k_s1_e4_i24_o48": "field 'k' must be a whole number, got ''",
    "r2_k3_s1_e-4_i24_o48": "field 'e' must be a whole number, got '-4'",
    "r2_k3_s1_e4_i24_o48_se1e-2": "field 'se' must be a number, got '1e-2'",
    "r2_k3_s1_e4_i24_o48_se-0.25": "field 'se' must be a number, got '-0.25'",
    "r2_k3_s1_e4_i24_o48_c1.0": "field 'c' must be a whole number, got '1.0'",
}
IMPOSSIBLE = {
    "r0_k3_s1_e4_i24_o48": "num_repeat must be at least 1, got 0",
    "r2_k4_s1_e4_i24_o48": "kernel_size must be odd and at least 1, got 4",
    "r2_k0_s1_e4_i24_o48": "kernel_size must be odd and at least 1, got 0",
    "r501_k3_s1_e4_i24_o48": "num_repeat must be at most 500, got 501",
    "r2_k101_s1_e4_i24_o48": "kernel_size must be at most 99, got 101",
    "r2_k3_s1_e101_i24_o48": "expand_ratio must be at most 100, got 101",
    "r2_k3_s1_e4_i65537_o48": "input_filters must be at most 65536, got 65537",
    "r2_k3_s1_e4_i24_o9999999999": "output_filters must be at most 65536, got 9999999999",
    "r2_k3_s3_e4_i24_o48": "strides must be 1 or 2, got 3",
    "r2_k3_s0_e4_i24_o48": "strides must be 1 or 2, got 0",
    "r2_k3_s1_e0_i24_o48": "expand_ratio must be at least 1, got 0",
    "r2_k3_s1_e4_i0_o48": "input_filters must be at least 1, got 0",
    "r2_k3_s1_e4_i24_o0": "output_filters must be at least 1, got 0",
    "r2_k3_s1_e4_i24_o48_se0": "se_ratio must be in (0, 1], got 0.0",
    "r2_k3_s1_e4_i24_o48_se1.5": "se_ratio must be in (0, 1], got 1.5",
    "r2_k3_s1_e4_i24_o48_c2": "conv_type must be 0 (MBConv) or 1 (Fused-MBConv), got 2",
}


@pytest.mark.parametrize(
    "text", ["x" * 5000, "r" + "9" * 5000, "r2_k3_s1_e1_i8_o8_se0." + "1" * 99]
)
def test_long_strings_have_short_messages(text):
    with pytest.raises(BlockStringError) as error:
        decode_block(text)
    assert len(str(error.value)) < 250


def test_an_error_is_one_of_the_user():
    assert issubclass(BlockStringError, UserError)


@pytest.mark.parametrize("text", MODEL_STRINGS)
def test_strings_of_the_models_round_trip(text):
    assert encode_block(decode_block(text)) == text


@pytest.mark.parametrize(("text", "block"), HAND_MADE.items())
def test_hand_made_strings_go_both_ways(text, block):
    assert decode_block(text) == block
    assert encode_block(block) == text


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("c1_se0.5_o48_i24_e4_s2_k3_r2", "r2_k3_s2_e4_i24_o48_se0.5_c1"),
        ("r2_k3_s2_e4_i24_o48_c0", "r2_k3_s2_e4_i24_o48"),
        ("r02_k3_s2_e4_i24_o48_se1.0", "r2_k3_s2_e4_i24_o48_se1"),
    ],
)
def test_other_spellings_are_written_in_one_way(given, canonical):
    assert encode_block(decode_block(given)) == canonical


@pytest.mark.parametrize(("text", "message"), [*UNREADABLE.items(), *IMPOSSIBLE.items()])
def test_errors_name_string_and_field(text, message):
    with pytest.raises(BlockStringError, match=f"^{re.escape(f'block {text!r}: {message}')}$"):
        decode_block(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kernel_size", 2, "kernel_size must be odd and at least 1, got 2"),
        ("kernel_size", -3, "kernel_size must be odd and at least 1, got -3"),
        ("se_ratio", float("nan"), "se_ratio must be in (0, 1], got nan"),
        ("se_ratio", -0.25, "se_ratio must be in (0, 1], got -0.25"),
        ("num_repeat", -1, "num_repeat must be at least 1, got -1"),
    ],
)
def test_a_block_made_by_hand_is_checked_too(field, value, message):
    block = decode_block("r2_k3_s1_e4_i24_o48")
    with pytest.raises(BlockStringError, match=f"^{re.escape(message)}$"):
        dataclasses.replace(block, **{field: value})


def test_a_block_cannot_be_changed():
    block = decode_block("r2_k3_s1_e4_i24_o48")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'strides'"):
        block.strides = 2


@pytest.mark.parametrize(
    ("filters", "width", "options", "expected"),
    [
        (16, 1.0, {}, 16),
        (19, 1.0, {}, 16),
        (20, 1.0, {}, 24),
        (12, 1.0, {}, 16),
        (11, 1.0, {}, 8),
        (24, 0.5, {}, 16),
        (32, 1.1, {}, 32),
        (1280, 1.4, {}, 1792),
        (3, 1.0, {}, 8),
        (3, 1.0, {"minimum": 16}, 16),
        (17, 1.0, {"minimum": 24}, 24),
        (23, 1.0, {"divisor": 16}, 16),
        (24, 1.0, {"divisor": 16}, 32),
        (7, 1.0, {"divisor": 1, "minimum": 1}, 7),
    ],
)
def test_round_filters(filters, width, options, expected):
    assert round_filters(filters, width=width, **options) == expected


@pytest.mark.parametrize(
    ("filters", "width", "options", "without", "limited"),
    [
        (16, 1.2, {}, 16, 24),
        (17, 1.0, {}, 16, 16),  # loses 5.9%
        (18, 1.0, {}, 16, 24),  # loses 11.1%
        (10, 1.0, {"divisor": 9, "minimum": 1}, 9, 9),  # loses 10% exactly
        (11, 1.0, {"divisor": 9, "minimum": 1}, 9, 18),  # loses 18.2%
        (32, 1.2, {}, 40, 40),
    ],
)
def test_rounding_down_is_limited_to_a_tenth(filters, width, options, without, limited):
    assert round_filters(filters, width=width, **options) == without
    assert round_filters(filters, width=width, round_down_limit=0.1, **options) == limited


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"),
    [
        (3, 1.0, 3),
        (3, 1.1, 4),
        (1, 1.001, 2),
        (5, 1.2, 6),
        (5, 1.4, 7),
        (2, 1.5, 3),
        (2, 1.51, 4),
        (4, 3.1, 13),
        (4, 0.5, 2),
        (1, 0.1, 1),
    ],
)
def test_round_repeats(repeats, depth, expected):
    assert round_repeats(repeats, depth=depth) == expected


def scaled(name, **options):
    row = MODELS[name]
    blocks = [decode_block(text) for text in row.blocks]
    return scale_blocks(blocks, width=row.width, depth=row.depth, **options)


def as_golden(block):
    return {
        "in": block.input_filters,
        "out": block.output_filters,
        "repeats": block.num_repeat,
        "kernel": block.kernel_size,
        "strides": block.strides,
        "expand": block.expand_ratio,
        "se": block.se_ratio,
        "conv_type": block.conv_type,
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_scaled_stages_are_the_official_ones(name):
    stages = [as_golden(block) for block in scaled(name)]
    expected = [{key: stage[key] for key in stages[0]} for stage in GOLDEN[name]["stages"]]
    assert stages == expected


@pytest.mark.parametrize(
    ("name", "repeats", "channels"),
    [
        ("efficientnet-lite0", [1, 2, 2, 3, 3, 4, 1], [16, 24, 40, 80, 112, 192, 320]),
        ("efficientnet-lite1", [1, 3, 3, 4, 4, 5, 1], [16, 24, 40, 80, 112, 192, 320]),
        ("efficientnet-lite2", [1, 3, 3, 4, 4, 5, 1], [16, 24, 48, 88, 120, 208, 352]),
        ("efficientnet-lite3", [1, 3, 3, 5, 5, 6, 1], [24, 32, 48, 96, 136, 232, 384]),
        ("efficientnet-lite4", [1, 4, 4, 6, 6, 8, 1], [24, 32, 56, 112, 160, 272, 448]),
    ],
)
def test_lite_repeats_its_end_stages_once(name, repeats, channels):
    stages = scaled(name, round_down_limit=0.1, fix_first_and_last=True)
    assert [block.num_repeat for block in stages] == repeats
    assert [block.output_filters for block in stages] == channels


def test_without_lites_rule_the_end_stages_are_repeated_more():
    assert [block.num_repeat for block in scaled("efficientnet-lite4")] == [2, 4, 4, 6, 6, 8, 2]


def test_only_the_b3_sizes_feel_the_round_down_limit():
    felt = {name for name in MODELS if scaled(name) != scaled(name, round_down_limit=0.1)}
    assert felt == {"efficientnetv2-b3", "efficientnet-b3", "efficientnet-lite3"}


def test_scaling_takes_divisor_and_minimum():
    blocks = [decode_block("r2_k3_s1_e1_i3_o40"), decode_block("r1_k5_s2_e6_i40_o100_se0.25_c1")]
    stages = scale_blocks(blocks, width=0.5, depth=2.0, divisor=4, minimum=12)
    assert [encode_block(block) for block in stages] == [
        "r4_k3_s1_e1_i12_o20",
        "r2_k5_s2_e6_i20_o52_se0.25_c1",
    ]
