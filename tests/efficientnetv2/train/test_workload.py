"""Tests the arithmetic that a training is estimated by, against sums over its single steps."""

import numpy as np
import pytest

from efficientnetv2.train.progressive import build_stages
from efficientnetv2.train.workload import (
    StepCost,
    build_workload,
    fit_step_cost,
    image_multiply_adds,
)
from hparams import resolve
from hparams.architecture import cost, scaled_architecture

SETTINGS = {
    "train.epochs": 5,
    "train.batch_size": 128,
    "train.stages": 2,
    "data.ibase": 16,
    "train.isize": 48,
    "eval.isize": 40,
}


def workload_of(digits, *, validates=False, **settings):
    config = resolve("efficientnetv2-b0", "digits", {**SETTINGS, **settings})
    return config, build_workload(config, digits, validates=validates)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train.scale_batch_with_size": True},
        {"train.size_schedule": "random", "train.size_steps": 3},
        {"train.min_steps": 100},
    ],
)
def test_the_sum_over_the_steps(digits, settings):
    _, workload = workload_of(digits, **settings)
    by_step = []
    for step in range(workload.end_step):
        row = workload.settings.mean(step, step + 1)
        by_step.append(row["batch_size"] * image_multiply_adds(workload.model, row["image_size"]))
    for first, end in ((0, workload.end_step), (3, 4), (7, 15), (15, workload.end_step), (5, 5)):
        assert workload.multiply_adds(first, end) == pytest.approx(sum(by_step[first:end]))


def test_an_image_costs_what_its_network_counts():
    config = resolve("efficientnetv2-b0", "digits")
    expected = cost(scaled_architecture(config.model), image_size=40).multiply_adds
    assert image_multiply_adds(config.model, 40) == expected
    resnet = resolve("resnet50", "digits").model
    assert image_multiply_adds(resnet, 112) == 3.9e9 / 4  # as published, for 224 px


def test_seconds_by_hand(digits):
    config, workload = workload_of(digits, validates=True)
    plan = build_stages(config, num_images=1257)
    assert [(stage.first_epoch, stage.end_step) for stage in plan] == [(0, 18), (2, 45)]
    speed = StepCost(seconds_per_step=0.5, seconds_per_multiply_add=1e-9)
    image = {size: image_multiply_adds(config.model, size) for size in (13, 16, 40, 48)}
    # Twice, as there is a moving average; the first stage is evaluated at 40 * 16 / 48 px.
    evaluated = 2 * (180 * image[13] + (3 * 180 + 360) * image[40])
    steps = 7 * image[16] + 27 * image[48]
    expected = 34 * 0.5 + (128 * steps + evaluated / 3) * 1e-9
    assert workload.epochs_left(11) == pytest.approx(5 - 11 / 9)
    assert workload.seconds_left(11, speed) == pytest.approx(expected)
    assert workload.epochs_left(45) == 0


def test_the_largest_batch_so_far(digits):
    _, workload = workload_of(digits)
    assert workload.largest_batch() == (48, 128)
    assert workload.largest_batch(end_step=18) == (16, 128)
    assert workload.largest_batch(end_step=19) == (48, 128)


def test_two_sizes_tell_the_cost_of_the_update():
    speed = fit_step_cost([(1e9, 1.5), (2e9, 2.5), (4e9, 4.5)], parameters=7)
    np.testing.assert_allclose(
        [speed.seconds_per_step, speed.seconds_per_multiply_add], [0.5, 1e-9]
    )


def test_one_size_is_divided_by_the_parameters():
    speed = fit_step_cost([(1e9, 2.0), (1e9, 4.0)], parameters=5_000_000)
    assert speed.seconds_per_step + 1e9 * speed.seconds_per_multiply_add == pytest.approx(3.0)
    assert 0 < speed.seconds_per_step < 3.0


def test_a_larger_step_that_was_faster_is_noise():
    speed = fit_step_cost([(1e9, 2.0), (2e9, 1.9)], parameters=1000)
    assert speed.seconds_per_multiply_add > 0 and speed.seconds_per_step >= 0
