"""Tests the settings by step: growing, random and fixed sizes, each with its regularisation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.train.progressive import (
    Stage,
    build_settings,
    build_stages,
    plan_stages,
    random_sizes,
    stage_at,
    stage_settings,
)
from hparams.config import Config
from hparams.factors import Factors, first_to_last
from hparams.resolve import resolve

NUM_IMAGES = 1000
ENDS = first_to_last(
    image_size=(128, 300),
    dropout_rate=(0.1, 0.3),
    magnitude=(5.0, 15.0),
    mixup_alpha=(0.0, 0.5),
    cutmix_alpha=(1.0, 0.25),
)
SIZES = [128, 136, 144, 152, 160, 168, 176, 184, 192, 200, 208, 216, 224, 232, 240, 248, 256, 264,
         272, 280, 288, 296, 300]  # fmt: skip
FACTORS = ("magnitude", "mixup_alpha", "cutmix_alpha", "dropout_rate")


def draw(ends: Factors = ENDS, **options: object) -> SettingsSchedule:
    arguments = {"total_steps": 23_000, "steps_per_draw": 1, "batch_size": 32, "adaptive": True}
    return random_sizes(ends, **{**arguments, "seed": 7, **options})


def by_step(schedule: SettingsSchedule, steps: int) -> StepSettings:
    """Returns the settings of every step, by repeating rows instead of searching for them."""
    lengths = np.diff([*schedule.first_step, steps])
    columns = schedule.rows.asdict().items()
    return StepSettings(**{name: np.repeat(column, lengths) for name, column in columns})


@pytest.mark.parametrize("scale_batch", [False, True])
def test_each_stages_settings_hold_from_its_first_to_its_last_step(scale_batch: bool) -> None:
    plan = plan_stages(
        ENDS, epochs=9, stages=4, num_images=99, batch_size=10, scale_batch=scale_batch
    )
    schedule = stage_settings(plan)
    for step in range(plan[-1].end_step):
        stage = stage_at(plan, step)
        settings = schedule.at(tf.constant(step, tf.int64)).asdict()
        expected = [getattr(stage, name) for name in settings]
        np.testing.assert_allclose(list(settings.values()), expected, rtol=1e-7)


def test_drawn_sizes_are_the_two_ends_and_multiples_of_8_between_them() -> None:
    assert np.unique(draw().rows.image_size).tolist() == SIZES


@pytest.mark.parametrize(
    ("image_size", "sizes"),
    [
        ((127, 145), [127, 128, 136, 144, 145]),
        ((128, 144), [128, 136, 144]),
        ((129, 135), [129, 135]),
        ((28, 32), [28, 32]),
        ((224, 224), [224]),
    ],
)
def test_drawn_sizes_of_other_ends(image_size: tuple[int, int], sizes: list[int]) -> None:
    schedule = draw(first_to_last(image_size=image_size, dropout_rate=(0.1, 0.3)), total_steps=1000)
    assert np.unique(schedule.rows.image_size).tolist() == sizes


def test_every_size_is_drawn_equally_often() -> None:
    counts = np.unique(draw().rows.image_size, return_counts=True)[1]
    # 23,000 draws of 23 sizes: 1,000 each, with a deviation of 31.
    assert np.abs(counts - 1000).max() < 5 * 31
    # Chi-squared of 22 degrees: outside of this, too, are draws that are dealt out evenly.
    assert 5 < ((counts - 1000) ** 2 / 1000).sum() < 22 + 5 * np.sqrt(2 * 22)


def test_a_draw_does_not_depend_on_the_one_before() -> None:
    sizes = draw().rows.image_size.astype(float)
    # The correlation of 23,000 independent pairs has a deviation of 0.0066.
    assert abs(np.corrcoef(sizes[1:], sizes[:-1])[0, 1]) < 5 * 0.0066


def test_the_same_seed_draws_the_same_sizes() -> None:
    first, again, other = draw(seed=3), draw(seed=3), draw(seed=4)
    for name, column in first.rows.asdict().items():
        np.testing.assert_array_equal(column, getattr(again.rows, name))
    same = (first.rows.image_size == other.rows.image_size).mean()
    assert same == pytest.approx(1 / len(SIZES), abs=0.01)  # by chance; the deviation is 0.0014


@pytest.mark.parametrize(("total_steps", "steps_per_draw"), [(100, 1), (100, 7), (98, 7), (5, 9)])
def test_each_draw_lasts_as_long_as_it_is_told(total_steps: int, steps_per_draw: int) -> None:
    schedule = draw(total_steps=total_steps, steps_per_draw=steps_per_draw)
    assert schedule.first_step.tolist() == list(range(0, total_steps, steps_per_draw))
    assert {len(column) for column in schedule.rows.asdict().values()} == {len(schedule.first_step)}
    draws = draw(total_steps=len(schedule.first_step)).rows.image_size
    expected = np.repeat(draws, steps_per_draw)[:total_steps]
    np.testing.assert_array_equal(by_step(schedule, total_steps).image_size, expected)


def test_the_regularisation_is_linear_in_the_drawn_size() -> None:
    rows = draw().rows
    for factor in FACTORS:
        expected = np.interp(rows.image_size, (128, 300), getattr(ENDS, factor))
        np.testing.assert_allclose(getattr(rows, factor), expected, rtol=1e-12, err_msg=factor)
    assert set(rows.batch_size.tolist()) == {32}


@pytest.mark.parametrize(
    ("image_size", "adaptive", "sizes"), [((128, 300), False, 23), ((300, 300), True, 1)]
)
def test_without_adaptation_or_a_range_it_is_that_of_the_largest(
    image_size: tuple[int, int], adaptive: bool, sizes: int
) -> None:
    schedule = draw(dataclasses.replace(ENDS, image_size=image_size), adaptive=adaptive)
    assert len(set(schedule.rows.image_size.tolist())) == sizes
    for factor in FACTORS:
        assert set(getattr(schedule.rows, factor).tolist()) == {getattr(ENDS, factor)[1]}


def build(overrides: str) -> tuple[Config, list[Stage], SettingsSchedule]:
    settings = "train.epochs=8,train.batch_size=32,data.mixup_alpha=0.5,train.seed=11"
    config = resolve("efficientnetv2-s", "imagenet2012", settings, overrides)
    plan = build_stages(config, num_images=NUM_IMAGES)
    return config, plan, build_settings(config, plan)


def test_by_default_sizes_grow_by_stage() -> None:
    _, plan, schedule = build("train.scale_batch_with_size=true")
    assert schedule.first_step.tolist() == [stage.first_step for stage in plan]
    assert schedule.rows.image_size.tolist() == [128, 184, 240, 300]
    assert schedule.rows.batch_size.tolist() == [160, 64, 32, 32]
    np.testing.assert_allclose(schedule.rows.magnitude, np.linspace(5, 15, 4), rtol=1e-12)


def test_a_fixed_size_has_the_last_values_from_the_start() -> None:
    _, plan, schedule = build("train.size_schedule=fixed")
    assert schedule.first_step.tolist() == [0]
    columns = list(schedule.rows.asdict().values())
    np.testing.assert_array_equal(np.ravel(columns), [300, 15.0, 0.5, 0.0, 0.3, 32])
    assert plan[-1].end_step == 8 * (NUM_IMAGES // 32)


@pytest.mark.parametrize(("size_steps", "length"), [(1, 1), (3, 3), (0, NUM_IMAGES // 32)])
def test_random_sizes_last_size_steps_or_an_epoch(size_steps: int, length: int) -> None:
    _, plan, schedule = build(f"train.size_schedule=random,train.size_steps={size_steps}")
    assert schedule.first_step.tolist() == list(range(0, plan[-1].end_step, length))
    assert set(schedule.rows.image_size.tolist()) <= set(SIZES)
    assert len(set(schedule.rows.image_size.tolist())) > 1


@pytest.mark.parametrize("adaptive", [True, False])
def test_every_key_reaches_the_random_sizes(adaptive: bool) -> None:
    config, plan, schedule = build(
        f"train.size_schedule=random,train.size_steps=2,train.adaptive_regularisation={adaptive}"
    )
    ends = first_to_last(
        image_size=(128, 300), dropout_rate=(0.1, 0.3), magnitude=(5, 15), mixup_alpha=(0, 0.5)
    )
    expected = random_sizes(
        ends,
        total_steps=8 * (NUM_IMAGES // 32),
        steps_per_draw=2,
        batch_size=32,
        adaptive=adaptive,
        seed=11,
    )
    for name, column in expected.rows.asdict().items():
        np.testing.assert_array_equal(getattr(schedule.rows, name), column)
    np.testing.assert_array_equal(schedule.first_step, expected.first_step)
    again = build_settings(config, plan)
    for name, column in schedule.rows.asdict().items():
        np.testing.assert_array_equal(getattr(again.rows, name), column)


def test_a_graph_with_a_draw_a_step_gives_the_drawn_sizes() -> None:
    schedule = draw(total_steps=500)
    steps = tf.data.Dataset.range(500)
    rows = list(steps.map(lambda step: schedule.at(step).asdict()).as_numpy_iterator())
    for name, expected in schedule.rows.asdict().items():
        np.testing.assert_allclose([row[name] for row in rows], expected, rtol=1e-6)
