"""Combinations of values that cannot be run together are refused with one line."""

import re

import pytest

from hparams import ConfigError, resolve


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("data.ibase=33", "data.ibase (33) must not exceed train.isize (32)"),
        ("train.isize=23", "data.ibase (28) must not exceed train.isize (23)"),
        (
            "data.crop_area=0.9|0.5",
            "data.crop_area must be [smallest, largest] with both above 0, got [0.9, 0.5]",
        ),
        (
            "data.crop_area=0|1",
            "data.crop_area must be [smallest, largest] with both above 0, got [0.0, 1.0]",
        ),
        (
            "data.crop_aspect=2|1",
            "data.crop_aspect must be [smallest, largest] with both above 0, got [2.0, 1.0]",
        ),
        ("model.blocks_args=[]", "model.blocks_args must hold at least one block string"),
        ("model.family=resnet", "model.family=resnet is only for resnet50 and resnet152"),
        (
            "train.batch_size=6,train.accumulate=4",
            "train.batch_size (6) must be divisible by train.accumulate (4)",
        ),
        (
            "train.varsexp=a(",
            "train.varsexp is not a regular expression: missing ), unterminated subpattern at "
            "position 1: 'a('",
        ),
        (
            "train.weight_decay_vars=*",
            "train.weight_decay_vars is not a regular expression: nothing to repeat at position 0: "
            "'*'",
        ),
        (
            "runtime.xla=true,train.size_schedule=random",
            "runtime.xla compiles once for each image size, so sizes cannot change within an "
            "epoch: give train.size_steps=0 (one size per epoch)",
        ),
        (
            "train.profile=[5,4]",
            "train.profile must be [first step, last step], counted from 1, or [0, 0] for none, "
            "got [5, 4]",
        ),
        (
            "train.profile=[0,4]",
            "train.profile must be [first step, last step], counted from 1, or [0, 0] for none, "
            "got [0, 4]",
        ),
        (
            "train.scale_batch_with_size=true,train.size_schedule=random",
            "train.scale_batch_with_size needs train.size_schedule=progressive",
        ),
        (
            "train.scale_batch_with_size=true,train.size_schedule=fixed",
            "train.scale_batch_with_size needs train.size_schedule=progressive",
        ),
        (
            "model.blocks_args=r1_k4_s1_e1_i8_o8",
            "model.blocks_args: block 'r1_k4_s1_e1_i8_o8': kernel_size must be odd and at least 1, "
            "got 4",
        ),
        (
            "model.blocks_args=[r1_k3_s1_e1_i8_o16,r1_k3_s1_e1_i24_o32,r1_k3_s1_e1_i32_o32]",
            "model.blocks_args: 'r1_k3_s1_e1_i24_o32' takes 24 channels, but the stage before it "
            "outputs 16",
        ),
        (
            "model.blocks_args=r1_k3_s1_e1_i8_o16|r1_k3_s1_e1_i8_o32",
            "model.blocks_args: 'r1_k3_s1_e1_i8_o32' takes 8 channels, but the stage before it "
            "outputs 16",
        ),
    ],
)
def test_impossible_combinations(overrides, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        resolve("efficientnetv2-s", "digits", overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        "data.multi_label=true",
        "data.multi_label=true,train.loss_type=sigmoid",
        "train.loss_type=sigmoid",
        "train.scale_batch_with_size=true",
        "train.size_schedule=random",
    ],
)
def test_possible_combinations(overrides):
    config = resolve("efficientnetv2-s", "digits", overrides)
    for item in overrides.split(","):
        name, value = item.split("=")
        section, key = name.split(".")
        assert config[section][key] == (True if value == "true" else value)
