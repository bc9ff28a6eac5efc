"""Compares learning rates of stages with different batch sizes with exact fractions of epochs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.learning_rate import (
    KerasSchedule,
    LearningRate,
    StagedRate,
    build_learning_rate,
)
from efficientnetv2.train.progressive import Stage, build_stages
from hparams.resolve import resolve

# Batches of 5, 2, 1 and 1 times the last one; an incomplete batch of the 1,000 images is dropped.
BATCHES, EPOCHS, STEPS = (160, 64, 32, 32), (0, 2, 7, 9, 13), (6, 15, 31, 31)
FIRST = (0, 12, 87, 149, 273)
PLAN = [
    Stage(
        index=n,
        first_epoch=EPOCHS[n],
        end_epoch=EPOCHS[n + 1],
        first_step=FIRST[n],
        steps_per_epoch=STEPS[n],
        batch_size=BATCHES[n],
        image_size=32,
        dropout_rate=0.1,
        magnitude=0.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
    )
    for n in range(4)
]


def staged(rate: LearningRate, plan: list[Stage]) -> StagedRate:
    return StagedRate(
        rate,
        first_step=tuple(stage.first_step for stage in plan),
        first_epoch=tuple(stage.first_epoch for stage in plan),
        steps_per_epoch=tuple(stage.steps_per_epoch for stage in plan),
        batch_factor=tuple(stage.batch_size / plan[-1].batch_size for stage in plan),
    )


def each_step(rate: StagedRate, steps: int) -> np.ndarray:
    """Reads the rate at one step after another, in one graph."""
    every = tf.range(steps, dtype=tf.int64)
    return tf.function(lambda: tf.map_fn(rate, every, fn_output_signature=tf.float32))().numpy()


def epochs_of(plan: list[Stage]) -> list[Fraction]:
    """Returns the number of epochs finished before each step, as fractions."""
    return [
        stage.first_epoch + Fraction(step, stage.steps_per_epoch)
        for stage in plan
        for step in range(stage.end_step - stage.first_step)
    ]


def factors_of(plan: list[Stage]) -> np.ndarray:
    lengths = [stage.end_step - stage.first_step for stage in plan]
    return np.repeat([stage.batch_size / plan[-1].batch_size for stage in plan], lengths)


def per_image(rate: LearningRate, epochs: Fraction) -> float:
    """Returns the rate for the last stage's batch: 13 epochs, with 4 decays per epoch."""
    step = 31 * epochs
    if step < rate.warmup_steps:
        return rate.peak * step / rate.warmup_steps
    share = float((step - rate.warmup_steps) / (rate.total_steps - rate.warmup_steps))
    factors = {
        "exponential": rate.decay_factor ** math.floor(4 * (epochs - rate.warmup_steps // 31)),
        "cosine": (1 + math.cos(math.pi * share)) / 2,
        "linear": 1 - share,
        "constant": 1.0,
    }
    return max(rate.peak * factors[rate.name], rate.minimum)


@pytest.mark.parametrize("name", ["exponential", "cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0, 3])
def test_a_staged_rate_follows_the_epochs_and_the_batch_size(name: str, warmup_epochs: int) -> None:
    rate = LearningRate(
        peak=0.25,
        name=name,
        warmup_steps=31 * warmup_epochs,
        total_steps=31 * 13,
        decay_steps=31 * 0.25,
        decay_factor=0.9,
        minimum=0.02,
    )
    expected = [
        factor * per_image(rate, epochs)
        for factor, epochs in zip(factors_of(PLAN), epochs_of(PLAN))
    ]
    assert len(expected) == 273
    np.testing.assert_allclose(each_step(staged(rate, PLAN), 273), expected, rtol=2e-6)


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_the_rate_of_one_image_does_not_jump_where_a_stage_begins(name: str) -> None:
    rate = LearningRate(peak=0.25, name=name, warmup_steps=31 * 3, total_steps=31 * 13)
    moves = np.abs(np.diff(each_step(staged(rate, PLAN), 273) / factors_of(PLAN)))
    for stage in PLAN[1:]:
        change = stage.first_step - 1  # from the last step of the stage before to the first
        assert moves[change] <= 1.05 * max(moves[change - 1], moves[change + 1]) + 1e-7


# With these numbers of steps per epoch, fractions of an epoch often round to a wrong step.
@pytest.mark.parametrize("steps_per_epoch", [15, 25, 49, 245])
@pytest.mark.parametrize("name", ["exponential", "cosine"])
def test_with_equal_batches_it_is_the_rate_of_one_stage(name: str, steps_per_epoch: int) -> None:
    rate = LearningRate(
        peak=0.256,
        name=name,
        warmup_steps=2 * steps_per_epoch,
        total_steps=20 * steps_per_epoch,
        decay_steps=0.2 * steps_per_epoch,
        decay_factor=0.9,
    )
    edges = (0, 6, 11, 20)
    equal = StagedRate(
        rate,
        first_step=tuple(edge * steps_per_epoch for edge in edges[:-1]),
        first_epoch=edges[:-1],
        steps_per_epoch=(steps_per_epoch,) * 3,
        batch_factor=(1.0,) * 3,
    )
    steps = tf.range(20 * steps_per_epoch, dtype=tf.int64)
    np.testing.assert_allclose(each_step(equal, len(steps)), rate(steps), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("min_steps", "epochs"), [(0, 17), (17 * 19, 17), (17 * 19 + 1, 18), (1000, 53)]
)
def test_further_epochs_make_up_for_the_least_number_of_steps(min_steps: int, epochs: int) -> None:
    config = resolve("efficientnetv2-s", "digits", {"train.min_steps": min_steps})
    plan = build_stages(config, num_images=1257)
    assert plan[-1].end_epoch == epochs
    assert plan[-1].end_step == 19 * epochs >= min_steps
    assert build_learning_rate(config, plan).total_steps == 19 * epochs


def test_larger_batches_of_small_images_have_the_least_number_of_steps_too() -> None:
    settings = {"train.scale_batch_with_size": True, "train.min_steps": 1000, "train.isize": 64}
    config = resolve("efficientnetv2-s", "digits", {**settings, "data.ibase": 32})
    plan = build_stages(config, num_images=1257)
    assert plan[0].batch_size > plan[-1].batch_size
    assert 1000 <= plan[-1].end_step < 1000 + 2 * 19


def test_the_steps_of_all_stages_are_counted() -> None:
    settings = {"train.epochs": 6, "train.stages": 3, "train.scale_batch_with_size": True}
    config = resolve("efficientnetv2-s", "digits", {**settings, "data.ibase": 12})
    plan = build_stages(config, num_images=1257)
    rate = build_learning_rate(config, plan)
    assert isinstance(rate, StagedRate) and rate.total_steps == plan[-1].end_step


def test_batches_that_grow_as_images_shrink_make_the_rate_staged() -> None:
    config = resolve("efficientnetv2-s", "imagenet2012", "train.scale_batch_with_size=true")
    plain = resolve("efficientnetv2-s", "imagenet2012")
    rate = build_learning_rate(plain, build_stages(plain, num_images=1_256_167))
    assert isinstance(rate, LearningRate)
    assert build_learning_rate(config, build_stages(config, num_images=1_256_167)) == StagedRate(
        rate,
        first_step=(0, 87 * 61, 87 * 61 + 88 * 153, 87 * (61 + 306) + 88 * 153),
        first_epoch=(0, 87, 175, 262),
        steps_per_epoch=(61, 153, 306, 306),
        batch_factor=(5.0, 2.0, 1.0, 1.0),
    )


def test_the_keras_schedule_of_a_staged_rate_is_the_same_rate() -> None:
    rate = staged(LearningRate(0.5, "linear", 0, 31 * 13), PLAN)
    schedule = KerasSchedule(rate)
    steps = (0, 11, 12, 86, 87, 272)
    assert [float(schedule(n)) for n in steps] == each_step(rate, 273)[list(steps)].tolist()
    values = schedule.get_config()["rate"]
    assert StagedRate(**{**values, "rate": LearningRate(**values["rate"])}) == rate
