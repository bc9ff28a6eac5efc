"""Compares the stages of progressive learning with the paper's and with the official ones."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest

from efficientnetv2.train.progressive import (
    Stage,
    build_ends,
    build_stages,
    plan_stages,
    stage_at,
    validation_size,
)
from hparams.factors import first_to_last
from hparams.resolve import resolve

PAIRS = list(itertools.product([1, 2, 3, 5, 7, 8, 90, 350], [1, 2, 3, 4, 7, 10]))
ENDS = first_to_last(
    image_size=(128, 300),
    dropout_rate=(0.1, 0.3),
    magnitude=(5.0, 15.0),
    mixup_alpha=(0.0, 0.5),
    cutmix_alpha=(1.0, 0.25),
)
OFFICIAL_IMAGES = 1_256_144  # in the official code's training split
OFFICIAL_MODELS = (
    *(f"efficientnetv2-{size}" for size in ("s", "m", "l", "xl", "b0", "b1", "b2", "b3")),
    *(f"efficientnet-b{number}" for number in range(9)),
)


def plan(epochs: int, stages: int, **options: object) -> list[Stage]:
    arguments = {"num_images": 1000, "batch_size": 10, **options}
    return plan_stages(ENDS, epochs=epochs, stages=stages, **arguments)


def factors(stage: Stage) -> tuple[float, ...]:
    return stage.dropout_rate, stage.magnitude, stage.mixup_alpha, stage.cutmix_alpha


FIRST, LAST = (0.1, 5.0, 0.0, 1.0), (0.3, 15.0, 0.5, 0.25)


@pytest.mark.parametrize(
    ("image_size", "sizes"),
    [
        ((128, 300), [128, 184, 240, 300]),
        ((128, 380), [128, 208, 296, 380]),
        ((171, 299), [171, 216, 256, 299]),
        ((224, 224), [224, 224, 224, 224]),
        ((130, 134), [130, 130, 134, 134]),
    ],
)
def test_image_sizes_are_the_ends_and_multiples_of_8_between_them(
    image_size: tuple[int, int], sizes: list[int]
) -> None:
    ends = first_to_last(image_size=image_size, dropout_rate=(0.1, 0.3))
    stages = plan_stages(ends, epochs=8, stages=4, num_images=1000, batch_size=10)
    assert [stage.image_size for stage in stages] == sizes


@pytest.mark.parametrize("stages", [2, 3, 4, 7])
def test_every_factor_is_linear_in_the_stage(stages: int) -> None:
    values = np.array([factors(stage) for stage in plan(70, stages)])
    np.testing.assert_allclose(values, np.linspace(FIRST, LAST, stages), atol=1e-12)
    assert factors(plan(70, stages)[0]) == FIRST


@pytest.mark.parametrize("stages", [2, 3, 4, 7, 10])
def test_inner_image_sizes_are_within_4_pixels_of_the_line(stages: int) -> None:
    sizes = np.array([stage.image_size for stage in plan(70, stages)])
    assert (sizes[0], sizes[-1]) == (128, 300)
    assert (sizes[1:-1] % 8 == 0).all()
    assert np.abs(sizes - np.linspace(128, 300, stages)).max() <= 4


@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_stages_cover_all_epochs_without_a_gap(epochs: int, stages: int) -> None:
    result = plan(epochs, stages)
    covered = [epoch for stage in result for epoch in range(stage.first_epoch, stage.end_epoch)]
    assert covered == list(range(epochs))
    assert [stage.index for stage in result] == list(range(min(epochs, stages)))


@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_stages_are_equally_long_up_to_one_epoch(epochs: int, stages: int) -> None:
    lengths = [stage.end_epoch - stage.first_epoch for stage in plan(epochs, stages)]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("scale_batch", [False, True])
@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_steps_count_the_whole_batches_of_all_epochs(
    epochs: int, stages: int, scale_batch: bool
) -> None:
    result = plan(epochs, stages, num_images=107, batch_size=10, scale_batch=scale_batch)
    batches = [
        stage.batch_size for stage in result for _ in range(stage.first_epoch, stage.end_epoch)
    ]
    assert [stage.steps_per_epoch for stage in result] == [107 // s.batch_size for s in result]
    assert result[0].first_step == 0
    assert [s.end_step for s in result[:-1]] == [s.first_step for s in result[1:]]
    assert result[-1].end_step == sum(107 // batch for batch in batches)


@pytest.mark.parametrize(("epochs", "stages"), PAIRS)
def test_stage_at_finds_each_steps_stage(epochs: int, stages: int) -> None:
    result = plan(epochs, stages, num_images=30, scale_batch=True)
    for stage in result:
        assert stage_at(result, stage.first_step) is stage
        assert stage_at(result, stage.end_step - 1) is stage


@pytest.mark.parametrize("epochs", [1, 5])
def test_one_stage_has_the_last_values(epochs: int) -> None:
    (stage,) = plan(epochs, 1)
    assert (stage.image_size, *factors(stage)) == (300, *LAST)
    assert (stage.first_epoch, stage.end_epoch) == (0, epochs)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_fewer_epochs_than_stages_run_only_the_last_stages(epochs: int) -> None:
    full, short = plan(8, 4)[-epochs:], plan(epochs, 4)
    assert [stage.image_size for stage in short] == [stage.image_size for stage in full]
    assert [factors(stage) for stage in short] == [factors(stage) for stage in full]
    assert factors(short[-1]) == LAST


@pytest.mark.parametrize(
    ("model_name", "sizes", "magnitudes", "mixup_alphas", "dropout_rates"),
    [
        ("efficientnetv2-s", (128, 300), (5, 15), (0, 0), (0.1, 0.3)),
        ("efficientnetv2-m", (128, 380), (5, 20), (0, 0.2), (0.1, 0.4)),
        ("efficientnetv2-l", (128, 380), (5, 25), (0, 0.5), (0.1, 0.5)),
    ],
)
def test_the_stages_of_imagenet_end_where_table_6_says(
    model_name: str, sizes: tuple, magnitudes: tuple, mixup_alphas: tuple, dropout_rates: tuple
) -> None:
    result = build_stages(resolve(model_name, "imagenet2012"), num_images=1_256_167)
    ends = result[0], result[-1]
    assert tuple(stage.image_size for stage in ends) == sizes
    assert tuple(stage.magnitude for stage in ends) == magnitudes
    assert tuple(stage.mixup_alpha for stage in ends) == mixup_alphas
    assert tuple(stage.dropout_rate for stage in ends) == dropout_rates
    assert [stage.end_epoch for stage in result] == [87, 175, 262, 350]


@pytest.mark.parametrize("stages", [1, 2, 4, 7])
def test_without_adaptive_regularisation_only_the_size_grows(stages: int) -> None:
    result = plan(70, stages, adaptive=False)
    assert [factors(stage) for stage in result] == [LAST] * stages
    assert [s.image_size for s in result] == [s.image_size for s in plan(70, stages)]


@pytest.mark.parametrize(
    ("image_size", "stages", "sizes"),
    [
        ((128, 300), 4, [171, 214, 257, 300]),
        ((128, 208), 4, [148, 168, 188, 208]),
        ((128, 300), 1, [300]),
        ((100, 201), 3, [133, 167, 201]),  # cut, not rounded
    ],
)
def test_official_sizes_leave_out_the_first(
    image_size: tuple[int, int], stages: int, sizes: list[int]
) -> None:
    ends = dataclasses.replace(ENDS, image_size=image_size)
    result = plan_stages(
        ends, epochs=8, stages=stages, num_images=100, batch_size=10, rule="official"
    )
    assert [stage.image_size for stage in result] == sizes
    # The official regularisation does begin at its first values.
    assert factors(result[0]) == (FIRST if stages > 1 else LAST)


def test_fewer_epochs_than_stages_have_the_official_sizes_of_the_last_stages() -> None:
    assert [stage.image_size for stage in plan(2, 4, rule="official")] == [257, 300]


@pytest.mark.parametrize("model_name", OFFICIAL_MODELS)
def test_the_official_recipe_has_the_stages_of_the_official_code(
    golden: pathlib.Path, model_name: str
) -> None:
    config = resolve(model_name, "imagenet_official", {"data.data_dir": "/x"})
    result = build_stages(config, num_images=OFFICIAL_IMAGES)
    expected = json.loads((golden / "schedules.json").read_text())["stages"][model_name]
    for stage, official in itertools.zip_longest(result, expected):
        fit = official["fit"]
        assert stage.image_size == official["image_size"]
        assert (stage.first_epoch, stage.end_epoch) == (fit.get("initial_epoch", 0), fit["epochs"])
        assert (stage.batch_size, stage.steps_per_epoch) == (4096, fit["steps_per_epoch"])
        # The official code also plans a magnitude for models without RandAugment.
        magnitude = official["ram"] if official["augname"] == "randaug" else 0.0
        strengths = [magnitude, official["mixup_alpha"], official["cutmix_alpha"]]
        np.testing.assert_allclose(factors(stage)[1:], strengths, rtol=1e-12)
    published = json.loads((golden / "models.json").read_text())[model_name]["dropout_rate"]
    assert {stage.dropout_rate for stage in result} == {published}


def test_all_official_stages_are_compared(golden: pathlib.Path) -> None:
    assert set(json.loads((golden / "schedules.json").read_text())["stages"]) == set(
        OFFICIAL_MODELS
    )


@pytest.mark.parametrize("rule", ["paper", "official"])
@pytest.mark.parametrize("batch_size", [1, 32, 96])
@pytest.mark.parametrize("image_size", [(128, 300), (24, 72), (224, 224), (64, 512)])
def test_a_scaled_batch_is_the_largest_multiple_with_no_more_pixels_than_the_last(
    rule: str, batch_size: int, image_size: tuple[int, int]
) -> None:
    result = plan_stages(
        dataclasses.replace(ENDS, image_size=image_size),
        epochs=8,
        stages=4,
        num_images=100_000,
        batch_size=batch_size,
        rule=rule,
        scale_batch=True,
    )
    pixels = batch_size * image_size[1] ** 2
    for stage in result:
        assert stage.batch_size % batch_size == 0
        assert stage.batch_size * stage.image_size**2 <= pixels
        assert (stage.batch_size + batch_size) * stage.image_size**2 > pixels
    assert result[-1].batch_size == batch_size


@pytest.mark.parametrize(
    ("num_images", "batches"),
    [(100, [50, 20, 10, 10]), (49, [40, 20, 10, 10]), (20, [20, 20, 10, 10]), (19, [10] * 4)],
)
def test_a_scaled_batch_takes_no_more_images_than_there_are(
    num_images: int, batches: list[int]
) -> None:
    result = plan(8, 4, num_images=num_images, scale_batch=True)
    assert [stage.image_size for stage in result] == [128, 184, 240, 300]
    assert [stage.batch_size for stage in result] == batches
    assert all(stage.steps_per_epoch >= 1 for stage in result)


def build(overrides: str) -> list[Stage]:
    config = resolve("efficientnetv2-m", "imagenet2012", overrides)
    return build_stages(config, num_images=1_256_167)


def test_without_a_first_dropout_rate_all_stages_have_the_last() -> None:
    settings = "train.stages=3,model.dropout_rate=0.25,model.dropout_base=none"
    config = resolve("efficientnet-b0", "imagenet2012", settings)
    assert config.model.dropout_base is None
    assert [s.dropout_rate for s in build_stages(config, num_images=10_000)] == [0.25] * 3


def test_the_magnitude_belongs_to_randaug_alone() -> None:
    assert [stage.magnitude for stage in build("data.augname=autoaug")] == [0.0] * 4
    assert [stage.magnitude for stage in build("data.ram=11,data.ram_base=5")] == [5, 7, 9, 11]


def test_mixing_grows_from_its_first_alphas() -> None:
    alphas = [stage.cutmix_alpha for stage in build("data.cutmix_alpha=0.75")]
    assert alphas == pytest.approx([0.0, 0.25, 0.5, 0.75])
    result = build("data.mixup_base=0.5,data.cutmix_base=0.3,data.mixup_alpha=0.8")
    assert [stage.mixup_alpha for stage in result] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert [stage.cutmix_alpha for stage in result] == pytest.approx([0.3, 0.2, 0.1, 0.0])


def test_every_key_of_the_configuration_reaches_the_stages() -> None:
    config = resolve(
        "efficientnetv2-s",
        "imagenet2012",
        "train.epochs=6,train.stages=3,train.batch_size=32,train.isize=200,data.ibase=100",
        "train.stage_rule=official,train.adaptive_regularisation=false",
        "train.scale_batch_with_size=true,model.dropout_rate=0.4",
    )
    expected = plan_stages(
        build_ends(config),
        epochs=6,
        stages=3,
        num_images=1000,
        batch_size=32,
        rule="official",
        adaptive=False,
        scale_batch=True,
    )
    assert build_stages(config, num_images=1000) == expected
    assert [(s.image_size, s.batch_size) for s in expected] == [(133, 64), (166, 32), (200, 32)]
    assert {s.dropout_rate for s in expected} == {0.4}


@pytest.mark.parametrize("size_schedule", ["fixed", "random"])
def test_sizes_that_do_not_grow_are_one_stage_of_the_last_values(size_schedule: str) -> None:
    grown = build("")
    (stage,) = build(f"train.size_schedule={size_schedule}")
    assert (stage.first_epoch, stage.end_epoch, stage.first_step) == (0, 350, 0)
    assert (stage.image_size, factors(stage)) == (380, factors(grown[-1]))
    assert stage.end_step == grown[-1].end_step


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, [149, 187, 224]),  # 224 * 128 / 192 and so on
        ({"train.size_schedule": "fixed"}, [224]),
        ({"train.size_schedule": "random"}, [224]),
        ({"eval.isize": 96}, [64, 80, 96]),
    ],
)
def test_validation_is_at_the_size_that_the_network_has_seen(settings: dict, sizes: list) -> None:
    base = {"train.stages": 3, "train.epochs": 9, "data.data_dir": "/photos", **settings}
    config = resolve("efficientnetv2-b0", "folder", base)
    stages = build_stages(config, num_images=1000)
    assert [validation_size(config, stage) for stage in stages] == sizes
