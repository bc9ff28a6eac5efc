"""Tests that the preview shows the training images with the settings of each stage."""

import re

import numpy as np
import pytest

from efficientnetv2.reporting import preview_pictures
from efficientnetv2.reporting.preview_pictures import preview_rows
from efficientnetv2.train.progressive import build_stages
from hparams import resolve
from hparams.choices import AUGMENTATIONS

SETTINGS = {
    "train.epochs": 9,
    "train.stages": 3,
    "train.isize": 48,
    "data.ibase": 16,
    "data.augname": "randaug",
    "data.ram": 12.0,
    "data.ram_base": 4.0,
    "data.mixup_alpha": 0.5,
}


def rows_of(digits, **settings):
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, **settings})
    plan = build_stages(config, num_images=1257)
    return preview_rows(config, digits, plan, columns=6)


@pytest.mark.slow
def test_a_row_a_stage(digits):
    rows = rows_of(digits)
    assert [row.images.shape for row in rows] == [(6, s, s, 3) for s in (16, 32, 48)]
    assert [row.title for row in rows] == [
        "stage 1 of 3, epochs 1 to 3",
        "stage 2 of 3, epochs 4 to 6",
        "stage 3 of 3, epochs 7 to 9",
    ]
    assert rows[0].strengths == ["16 px", "RandAugment 4", "dropout 0.1"]
    assert rows[2].strengths == ["48 px", "RandAugment 12", "mixup 0.5", "dropout 0.2"]


@pytest.mark.parametrize(("name", "row"), AUGMENTATIONS.items())
def test_a_row_names_its_augmentation(name, row):
    config = resolve("efficientnetv2-s", "imagenet2012", {"data.augname": name})
    stage = build_stages(config, num_images=100_000)[-1]
    words = " ".join(preview_pictures._strengths(config, stage)).split()
    assert [word for word in words if "Aug" in word] == ([row.title] if row.title else [])


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ("", []),
        ("data.color_jitter=0.4", ["jitter 0.4"]),
        (
            "data.color_jitter=[0.4,0.2,0.4,0.05],data.rotate=15,data.cutout=0.5",
            ["turns up to 15 degrees", "jitter 0.4 0.2 0.4 0.05", "cutout 0.5"],
        ),
        ("data.vertical_flip=true,data.quarter_turns=true", ["vertical flip", "quarter turns"]),
        ("data.random_erasing=0.1", ["random erasing 0.1"]),
    ],
)
def test_a_row_names_what_is_the_same_in_all_stages(settings, lines):
    config = resolve("efficientnetv2-b0", "imagenet2012", settings)
    stage = build_stages(config, num_images=100_000)[-1]
    strengths = preview_pictures._strengths(config, stage)
    assert strengths[-len(lines) :] == lines if lines else "jitter" not in str(strengths)


@pytest.mark.parametrize("preprocess", ["v1", "v2", "lite"])
def test_pixels_are_those_before_normalisation(digits, preprocess):
    settings = {
        "model.preprocess": preprocess,
        "train.stages": 1,
        "train.isize": 8,
        "data.ibase": 8,
        "data.augname": "none",
        "data.ram_base": 5.0,  # those of the model: others would have no effect
        "data.ram": 15.0,
        "data.mixup_alpha": 0.0,
    }
    (row,) = rows_of(digits, **settings)
    levels = np.rint(np.arange(17) * 255 / 16)
    assert set(np.unique(row.images)) <= set(levels.astype(np.uint8))
    assert row.images.std() > 50


@pytest.mark.slow
def test_sizes_drawn_at_random_are_shown_from_small_to_large(digits):
    rows = rows_of(digits, **{"train.size_schedule": "random"})
    assert [row.images.shape[1] for row in rows] == [16, 27, 37, 48]
    assert {row.title for row in rows} == {"size drawn at random"}
    assert rows[-1].strengths[1] == "RandAugment 12"


@pytest.mark.slow
def test_a_preview_says_how_long_the_training_takes(main_tf2, data_dir, tmp_path):
    settings = (
        "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=16,train.batch_size=64,"
        "train.isize=24,data.ibase=8,eval.isize=24"
    )
    result = main_tf2(
        "preview",
        "digits",
        f"--data_dir={data_dir}",
        "--epochs=100000",
        f"--hparam_str={settings}",
        "--model_dir=run",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    line, shorter = re.search(r"(training takes .*)\n(.*)\n\nwritten", result.stdout).groups()
    assert re.fullmatch(
        r"training takes about [\w ]+ for 100000 epochs, [\d.]+ [MG]B of memory, "
        r"[\d.]+ MB in run",
        line,
    )
    assert re.fullmatch(
        r"more than an hour on a CPU: --epochs=\d+ takes about (60|59|58) min", shorter
    )
