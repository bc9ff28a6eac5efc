"""Combinations of values that cannot be run together are refused with one line."""

import re

import pytest

from hparams import ConfigError, resolve

NO_EXPRESSION = "train.varsexp is not a regular expression: "


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
        (
            "train.lr_min=0.0016,train.lr_base=0.001,train.batch_size=384",
            "train.lr_min (0.0016) must not exceed the peak learning rate, train.lr_base x "
            "train.batch_size / 256 = 0.0015",
        ),
        (
            "train.varsexp=a{99999999999}",
            f"{NO_EXPRESSION}the repetition number is too large: 'a{{99999999999}}'",
        ),
        (
            f"train.varsexp={'(' * 3000}",
            f"{NO_EXPRESSION}it is nested too deeply: '{'(' * 27}...{'(' * 28}'",
        ),
        (
            "data.service=grpc://h:65536",
            "data.service must be grpc://host:port, got 'grpc://h:65536'",
        ),
        (
            "data.service=grpc://h:\u0661",
            "data.service must be grpc://host:port, got 'grpc://h:\u0661'",
        ),
        (
            "model.blocks_args=[r300_k3_s1_e1_i8_o8,r201_k3_s1_e1_i8_o8]",
            "model.blocks_args: the network has 501 blocks; at most 500 can be built",
        ),
        (
            "model.depth_coefficient=50",
            "model.width_coefficient=1 and model.depth_coefficient=50 are too large for these "
            "blocks: num_repeat must be at most 500, got 750",
        ),
        (
            "search.layers=[1,100],search.backbone=[r6_k3_s1_e1_i8_o8]",
            "the largest network of the search space (search.*) is too large: num_repeat must be "
            "at most 500, got 600",
        ),
        (
            "search.isize=1,search.backbone=[efficientnet-b4]",
            "search.isize=1 is too small for search.backbone, which shrinks images by 32: give at "
            "least 8, or blocks with fewer strides of 2",
        ),
        ("model.blocks_args=[]", "model.blocks_args must hold at least one block string"),
        ("model.family=resnet", "model.family=resnet is only for resnet50 and resnet152"),
        (
            "train.batch_size=6,train.accumulate=4",
            "train.batch_size (6) must be divisible by train.accumulate (4)",
        ),
        (
            "data.repeats=8,train.batch_size=32,train.accumulate=4",
            "data.repeats=8 fills the 8 images that are trained on at once (train.batch_size / "
            "train.accumulate) with one image; give at most 7",
        ),
        (
            "data.ram=12,data.augname=trivialaugment",
            "data.ram=12.0 has no effect with data.augname=trivialaugment, only with randaug, "
            "augmix",
        ),
        (
            "data.randaug_layers=3,data.augname=augmix",
            "data.randaug_layers=3 has no effect with data.augname=augmix, only with randaug",
        ),
        (
            "data.augment_ops=official,data.augname=augmix",
            "data.augment_ops=official has no effect with data.augname=augmix, only with randaug, "
            "autoaug, mixing",
        ),
        (
            "data.color_jitter=0.4|0.4",
            "data.color_jitter must be one number, or three or four: of brightness, contrast, "
            "saturation and hue, got [0.4, 0.4]",
        ),
        (
            "data.color_jitter=[]",
            "data.color_jitter must be one number, or three or four: of brightness, contrast, "
            "saturation and hue, got []",
        ),
        (
            "data.color_jitter=[0.4,0.4,0.4,0.6]",
            "data.color_jitter: the fourth number, of the hue, must be at most 0.5, half of the "
            "colour circle, got 0.6",
        ),
        (
            "data.randaug_layers=3,data.augname=autoaug",
            "data.randaug_layers=3 has no effect with data.augname=autoaug, only with randaug",
        ),
        (
            "data.augment_ops=official,data.augname=trivialaugment",
            "data.augment_ops=official has no effect with data.augname=trivialaugment, only with "
            "randaug, autoaug, mixing",
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
        "data.source=folder,data.data_dir=/d,data.multi_label=true",
        "data.source=folder,data.data_dir=/d,data.multi_label=true,train.loss_type=sigmoid",
        "data.source=folder,data.data_dir=/d,train.loss_type=huber,train.label_smoothing=0",
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
        assert str(config[section][key]).lower() in (value, f"{value}.0")
