"""Compares learning rates with a closed form in plain Python and with the official code's."""

from __future__ import annotations

import json
import math
import pathlib
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.train.learning_rate import (
    KerasSchedule,
    LearningRate,
    build_learning_rate,
)
from efficientnetv2.train.progressive import build_stages
from hparams.config import Config
from hparams.resolve import resolve

NAMES = ("exponential", "cosine", "linear", "constant")
GOLDEN_NAMES = (
    "imagenet_exponential",
    "imagenet_cosine",
    "imagenet_linear",
    "imagenet_constant",
    "imagenet_exponential_lrmin0.01",
    "imagenet_cosine_lrmin0.01",
    "imagenet_exponential_nowarmup",
    "imagenet_exponential_main_tf2_default_306",
    "imagenet_exponential_main_py_default_306.67",
    "imagenet21k_cosine",
    "imagenetft_constant",
)


def closed_form(rate: LearningRate, step: int, *, decay_steps: Fraction) -> float:
    """Returns a rate; decays are counted in exact fractions, so no boundary depends on rounding."""
    if step < rate.warmup_steps:
        return rate.peak * step / rate.warmup_steps
    start = 0 if rate.decay_in_warmup else rate.warmup_steps
    share = (step - start) / (rate.total_steps - start)
    factors = {
        "exponential": rate.decay_factor ** math.floor((step - Fraction(start)) / decay_steps),
        "cosine": (1 + math.cos(math.pi * share)) / 2,
        "linear": 1 - share,
        "constant": 1.0,
    }
    return max(rate.peak * factors[rate.name], rate.minimum)


def every_step(rate: LearningRate) -> tf.Tensor:
    return rate(tf.range(int(rate.total_steps), dtype=tf.int64))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("warmup_steps", [0, 65, 65.5])
@pytest.mark.parametrize("minimum", [0.0, 0.02])
@pytest.mark.parametrize("decay_in_warmup", [False, True])
def test_every_step_of_a_training_has_the_closed_forms_rate(
    name: str, warmup_steps: float, minimum: float, decay_in_warmup: bool
) -> None:
    decay_steps = Fraction("2.4") * 13
    rate = LearningRate(
        peak=0.256,
        name=name,
        warmup_steps=warmup_steps,
        total_steps=100 * 13,
        decay_steps=2.4 * 13,
        decay_factor=0.9,
        minimum=minimum,
        decay_in_warmup=decay_in_warmup,
    )
    expected = [closed_form(rate, step, decay_steps=decay_steps) for step in range(1300)]
    # TensorFlow rounds the factor to float32, an error of up to 3e-8 for each of 41 decays.
    np.testing.assert_allclose(every_step(rate), expected, rtol=2e-6)


# A graph is tested, too, as it divides by multiplying with a rounded reciprocal.
@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("steps_per_epoch", [5, 19, 49, 306])
@pytest.mark.parametrize("decay_epochs", ["2.4", "0.7", "1"])
def test_decays_come_at_the_exact_boundary_however_many_there_are(
    steps_per_epoch: int, decay_epochs: str, in_graph: bool
) -> None:
    decay_steps = Fraction(decay_epochs) * steps_per_epoch
    rate = LearningRate(
        peak=1.0,
        name="exponential",
        warmup_steps=0,
        total_steps=350 * steps_per_epoch,
        decay_steps=float(decay_epochs) * steps_per_epoch,
        decay_factor=0.999,
    )
    rates = tf.function(lambda: every_step(rate))() if in_graph else every_step(rate)
    decays = np.arange(350 * steps_per_epoch) * decay_steps.denominator // decay_steps.numerator
    counted = np.log(np.array(rates, np.float64)) / math.log(0.999)
    np.testing.assert_array_equal(np.round(counted), decays)


def test_a_decay_of_very_many_steps_does_not_come_one_step_early() -> None:
    rate = LearningRate(
        peak=1.0,
        name="exponential",
        warmup_steps=0,
        total_steps=1e9,
        decay_steps=3e7,
        decay_factor=0.5,
    )
    steps = tf.constant([59_999_999, 60_000_000], tf.int64)
    assert rate(steps).numpy().tolist() == [0.5, 0.25]


@pytest.mark.parametrize("name", NAMES)
def test_the_peak_is_reached_exactly_where_the_warmup_ends(name: str) -> None:
    rate = LearningRate(
        peak=0.5, name=name, warmup_steps=10, total_steps=100, decay_steps=24, decay_factor=0.97
    )
    steps = tf.constant([0, 5, 9, 10], tf.int64)
    np.testing.assert_allclose(rate(steps), [0.0, 0.25, 0.45, 0.5], rtol=1e-6)


def test_the_minimum_is_no_floor_of_the_warmup() -> None:
    rate = LearningRate(peak=0.5, name="linear", warmup_steps=10, total_steps=20, minimum=0.2)
    steps = tf.constant([0, 1, 10, 15, 19, 20], tf.int64)
    np.testing.assert_allclose(rate(steps), [0.0, 0.05, 0.5, 0.25, 0.2, 0.2], rtol=1e-6)


def test_a_warmup_as_long_as_the_training_never_decays() -> None:
    rate = LearningRate(peak=1.0, name="cosine", warmup_steps=8, total_steps=8)
    np.testing.assert_array_equal(every_step(rate), np.arange(8) / 8)


@pytest.mark.parametrize("name", NAMES)
def test_a_scalar_step_in_a_graph_gives_a_float32_scalar(name: str) -> None:
    rate = LearningRate(
        peak=0.5, name=name, warmup_steps=3, total_steps=20, decay_steps=4, decay_factor=0.5
    )
    step = tf.Variable(0, dtype=tf.int64)
    read = tf.function(lambda: rate(step))
    rates = []
    for _ in range(20):
        rates.append(read())
        step.assign_add(1)
    assert rates[0].dtype == tf.float32
    assert rates[0].shape == ()
    expected = [closed_form(rate, step, decay_steps=Fraction(4)) for step in range(20)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_counting_decays_in_the_warmup_gives_the_official_rates(
    golden: pathlib.Path, name: str
) -> None:
    entry = json.loads((golden / "schedules.json").read_text())["lr"][name]
    args, steps_per_epoch = entry["args"], entry["args"]["steps_per_epoch"]
    rate = LearningRate(
        peak=args["initial_lr"],
        name=args["lr_decay_type"],
        # The official code cuts the warm-up to whole steps.
        warmup_steps=int(args["warmup_epochs"] * steps_per_epoch),
        total_steps=args["total_steps"],
        decay_steps=args["decay_epochs"] * steps_per_epoch,
        decay_factor=args["decay_factor"],
        minimum=args["minimal_lr"],
        decay_in_warmup=True,
    )
    # The official linear rate keeps falling below 0 after the end of training.
    over = np.array(entry["steps"]) > args["total_steps"]
    expected = np.where(over, np.maximum(entry["lr"], args["minimal_lr"]), entry["lr"])
    rates = rate(tf.constant(entry["steps"], tf.int64))
    # The official code computes in float32: an error of 3e-8 for each of 145 decays, and near the
    # end differences of almost equal numbers (1e-8 is 4e-8 of the peak).
    np.testing.assert_allclose(rates, expected, rtol=5e-6, atol=1e-8)


def test_all_official_rates_are_compared(golden: pathlib.Path) -> None:
    assert set(json.loads((golden / "schedules.json").read_text())["lr"]) == set(GOLDEN_NAMES)


def build(config: Config, *, num_images: int) -> LearningRate:
    return build_learning_rate(config, build_stages(config, num_images=num_images))


def test_the_configuration_of_the_paper() -> None:
    rate = build(resolve("efficientnetv2-s", "imagenet2012"), num_images=1_256_167)
    assert rate == LearningRate(
        peak=0.256,
        name="exponential",
        warmup_steps=1530,
        total_steps=107_100,
        decay_steps=2.4 * 306,
        decay_factor=0.97,
    )


def test_every_key_of_the_configuration_reaches_the_learning_rate() -> None:
    config = resolve(
        "efficientnetv2-s",
        "digits",
        "train.lr_base=0.5,train.batch_size=128,train.lr_sched=linear,train.epochs=7",
        "train.lr_warmup_epoch=1.5,train.lr_decay_epoch=2.5,train.lr_decay_factor=0.75",
        "train.lr_min=0.001,train.lr_decay_in_warmup=true",
    )
    assert build(config, num_images=1287) == LearningRate(
        peak=0.25,
        name="linear",
        warmup_steps=15,
        total_steps=70,
        decay_steps=25,
        decay_factor=0.75,
        minimum=0.001,
        decay_in_warmup=True,
    )


def test_the_keras_schedule_is_the_same_rate() -> None:
    rate = LearningRate(peak=0.5, name="cosine", warmup_steps=4, total_steps=12, minimum=0.1)
    schedule = KerasSchedule(rate)
    assert [float(schedule(step)) for step in range(12)] == every_step(rate).numpy().tolist()
    assert LearningRate(**schedule.get_config()["rate"]) == rate
