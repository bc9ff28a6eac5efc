"""Tests the learning rate range test: its steps are a training's first, at a rate that grows."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from efficientnetv2.data.sources import Source
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train import range_test
from efficientnetv2.train.loop import Training
from efficientnetv2.train.range_test import RangeTest, run_range_test, smooth, suggest
from hparams.config import Config
from hparams.errors import UserError
from hparams.resolve import resolve, with_facts

STEPS = 25
SETTINGS = {
    "model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "train.batch_size": 128,
    "train.isize": 16,
    "data.ibase": 8,
    "train.stages": 2,
    "train.epochs": 2,
}


def config_of(data_dir: str, **settings: Any) -> Config:
    settings = {**SETTINGS, "data.data_dir": data_dir, **settings}
    facts = {"data.train_split": "train", "model.num_classes": 10}
    return with_facts(resolve("efficientnetv2-b0", "digits", settings), facts)


def run(config: Config, source: Source, *, steps: int = STEPS) -> RangeTest:
    return run_range_test(config, source, steps=steps, after_step=lambda: None, show=print)


@pytest.fixture(scope="module")
def measured(digits: Source, data_dir: str) -> RangeTest:
    return run(config_of(data_dir), digits)


@pytest.mark.slow
def test_the_rate_grows_by_the_same_factor_and_is_given_for_a_batch_of_256(
    measured: RangeTest,
) -> None:
    expected = 2 * 1e-6 * 1e7 ** (np.arange(STEPS) / (STEPS - 1))
    np.testing.assert_allclose(measured.rates, expected[: len(measured.rates)], rtol=1e-5)
    assert (measured.batch_size, measured.image_size) == (128, 8)
    assert measured.configured == 0.012


@pytest.mark.slow
def test_the_loss_falls_and_then_blows_up(measured: RangeTest) -> None:
    assert measured.losses[0] == pytest.approx(np.log(10), abs=0.3)
    assert measured.smoothed.min() < 0.95 * measured.losses[0]
    assert measured.losses[-1] > measured.losses[0]
    np.testing.assert_allclose(
        measured.smoothed, smooth(measured.losses, width=STEPS / 40), rtol=1e-12
    )


@pytest.mark.slow
def test_the_seed_decides(digits: Source, data_dir: str, measured: RangeTest) -> None:
    again = run(config_of(data_dir), digits)
    assert np.array_equal(again.losses, measured.losses)
    other = run(config_of(data_dir, **{"train.seed": 1}), digits)
    assert other.losses[0] != measured.losses[0]


@pytest.mark.slow
def test_the_first_loss_is_that_of_a_training(
    digits: Source, data_dir: str, tmp_path: pathlib.Path
) -> None:
    # An epoch, and a stage, of one step.
    settings = {"train.batch_size": 1024, "train.epochs": 2, "train.accumulate": 2}
    config = config_of(data_dir, **settings)
    directory = RunDirectory(tmp_path)
    directory.start(config, digits.class_names)
    Training(config, digits, run=directory).run()
    first = directory.metrics()[0]
    assert (first["step"], first["image_size"]) == (1, 8)
    test = run(config, digits, steps=4)
    assert test.losses[0] == first["loss"]
    assert len(test.rates) == 4 and test.image_size == 8  # the first stage has no end


def test_smoothing_keeps_a_line_and_takes_away_noise(seed: int) -> None:
    line = np.linspace(1, 3, 101)
    np.testing.assert_allclose(smooth(line, width=2.5)[10:-10], line[10:-10], rtol=1e-5)
    noisy = line + np.random.default_rng(seed).normal(size=101)
    deviation = (smooth(noisy, width=2.5) - line)[10:-10].std()
    assert deviation < 0.6  # 1 / sqrt(2 sqrt(pi) 2.5) = 0.34
    weights = np.exp(-0.5 * (np.arange(4) / 2.5) ** 2)
    np.testing.assert_allclose(smooth(noisy[:4], width=2.5)[0], weights @ noisy[:4] / weights.sum())


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_least_loss() -> None:
    rates = np.array([0.001, 0.01, 0.1234, 1.0])
    assert suggest(rates, np.array([2.3, 2.0, 1.5, 4.0])) == 0.012
    assert suggest(rates, np.array([2.3, 2.2, 2.26, 4.0])) == 0.001
    assert suggest(rates, np.array([2.3, 2.26, 2.28, 4.0])) is None  # a fall of 1.7%: noise


def test_no_rate_lowers_the_loss() -> None:
    rates = np.geomspace(1e-6, 1, 50)
    assert suggest(rates, 2.3 + rates) is None
    assert suggest(rates, np.full(50, 2.3)) is None


@pytest.mark.slow
def test_a_result_is_immutable(measured: RangeTest) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        measured.batch_size = 3  # type: ignore[misc]


def test_a_first_loss_that_is_not_finite_is_one_line(
    digits: Source, data_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_test, "_steps", lambda *_, **__: iter([(1e-6, float("nan"))]))
    with pytest.raises(UserError, match="the loss of the first step is not finite"):
        run(config_of(data_dir), digits)
