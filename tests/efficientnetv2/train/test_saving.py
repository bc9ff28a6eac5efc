"""Checkpoints: what a training saved is what any network gets back."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.train.learner import Learner, build_learner
from efficientnetv2.train.run_directory import RunDirectory, RunError
from efficientnetv2.train.saving import (
    BestCheckpoint,
    build_checkpoint,
    find_checkpoint,
    has_average,
    latest_checkpoint,
    load_weights,
    restore,
)
from efficientnetv2.train.schedules import LearningRate
from hparams.resolve import Config, resolve

TINY = {
    "model.blocks_args": ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o8_se0.25"],
    "model.feature_size": 16,
    "train.optimizer": "rmsprop",
}
RATE = LearningRate(peak=0.1, name="constant", warmup_steps=0, total_steps=1)


def tiny(overrides: dict | None = None) -> Config:
    return resolve("efficientnetv2-b0", "digits", TINY, overrides)


def changed_values(learner: Learner) -> list[tf.Variable]:
    averages = [] if learner.average is None else list(learner.average.averages.values())
    return [
        *(variable.value for variable in learner.model.weights),
        *(v.value for v in learner.optimizer.variables if "learning_rate" not in v.path),
        *averages,
        *learner.metrics.variables,
        learner.state.step,
    ]


def randomise(learner: Learner, seed: int) -> None:
    """Gives each variable values of its own; all are positive, as variances must be."""
    rng = np.random.default_rng(seed)
    for variable in changed_values(learner):
        values = rng.uniform(0.5, 1.5, variable.shape) * (1000 if variable.dtype.is_integer else 1)
        variable.assign(tf.cast(values, variable.dtype))


@pytest.fixture(scope="module")
def built() -> Learner:
    return build_learner(tiny(), RATE)


@pytest.fixture
def learner(built: Learner, seed: int) -> Learner:
    randomise(built, seed)
    return built


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def logits(model: keras.Model) -> np.ndarray:
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    return np.array(model(images, training=False))


def average_logits(learner: Learner) -> np.ndarray:
    with learner.average.swapped():
        return logits(learner.model)


def save(learner: Learner, run: RunDirectory) -> str:
    return build_checkpoint(learner).save(str(run.checkpoints / "ckpt"))


def test_a_stock_model_gets_the_raw_weights_and_the_average(
    learner: Learner, run: RunDirectory
) -> None:
    raw, averaged = logits(learner.model), average_logits(learner)
    assert np.abs(raw - averaged).max() > 1e-2 * np.abs(raw).max()
    save(learner, run)
    for average, expected in ((False, raw), (True, averaged)):
        stock = build_model(tiny().model)
        load_weights(stock, latest_checkpoint(run), average=average)
        np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


def test_another_learner_gets_everything_back(
    learner: Learner, run: RunDirectory, seed: int
) -> None:
    saved = [np.array(tf.convert_to_tensor(variable)) for variable in changed_values(learner)]
    path = save(learner, run)
    other = build_learner(tiny(), RATE)
    randomise(other, seed + 1)
    build_checkpoint(other).restore(path).assert_consumed()
    for variable, value in zip(changed_values(other), saved):
        np.testing.assert_array_equal(tf.convert_to_tensor(variable), value, err_msg=variable.name)


def test_names_in_a_checkpoint_say_what_they_are(learner: Learner, run: RunDirectory) -> None:
    names = {name for name, _ in tf.train.list_variables(save(learner, run))}
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    for part in ("weights", "ema"):
        assert f"{part}/stem_bn.Smoving_variance{suffix}" in names
        assert f"{part}/predictions.Skernel{suffix}" in names
    assert f"step{suffix}" in names


@pytest.mark.parametrize(("decay", "expected"), [(0.0, False), (0.99, True)])
def test_has_average(run: RunDirectory, decay: float, expected: bool) -> None:
    learner = build_learner(tiny({"train.ema_decay": decay}), RATE)
    assert has_average(save(learner, run)) is expected


def test_an_average_that_was_not_kept_is_refused(run: RunDirectory) -> None:
    path = save(build_learner(tiny({"train.ema_decay": 0.0}), RATE), run)
    with pytest.raises(RunError, match=r"checkpoint '.*ckpt-1' does not fit the model: \S"):
        load_weights(build_model(tiny().model), path, average=True)


@pytest.mark.parametrize(
    ("overrides", "average"),
    [
        ({"model.num_classes": 7}, False),
        ({"model.num_classes": 7}, True),
        ({"model.feature_size": 24}, False),
        ({"model.blocks_args": ["r3_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o8_se0.25"]}, True),
    ],
)
def test_another_models_checkpoint_is_refused(
    learner: Learner, run: RunDirectory, overrides: dict, average: bool
) -> None:
    path = save(learner, run)
    with pytest.raises(RunError, match=r"checkpoint '.*ckpt-1' does not fit the model: \S"):
        load_weights(build_model(tiny(overrides).model), path, average=average)


def test_a_checkpoint_that_is_not_there_is_refused(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"checkpoint '.*ckpt-9' is damaged: \S"):
        load_weights(build_model(tiny().model), str(run.checkpoints / "ckpt-9"), average=False)


def _cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [_cut, pathlib.Path.unlink, lambda p: p.write_text("no data")])
@pytest.mark.parametrize("kind", ["index", "data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(
    damage: Callable[[pathlib.Path], None], kind: str, learner: Learner, run: RunDirectory
) -> None:
    path = save(learner, run)
    damage(pathlib.Path(f"{path}.{kind}"))
    message = r"checkpoint '.*ckpt-1' is damaged: .*; without its files, the newest one before it"
    with pytest.raises(RunError, match=message):
        load_weights(build_model(tiny().model), path, average=has_average(path))
    with pytest.raises(RunError, match=message):
        restore(build_checkpoint(learner), path)


def test_the_latest_checkpoint_is_the_newest_also_without_tensorflows_note_of_it(
    learner: Learner, run: RunDirectory
) -> None:
    assert find_checkpoint(run) is None
    manager = tf.train.CheckpointManager(build_checkpoint(learner), str(run.checkpoints), 5)
    for step in (3, 20, 100):
        saved = manager.save(checkpoint_number=step)
    assert find_checkpoint(run) == saved
    (run.checkpoints / "checkpoint").unlink()
    assert find_checkpoint(run) == latest_checkpoint(run) == saved


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_run_has_no_latest_checkpoint(run: RunDirectory, made: bool) -> None:
    if made:
        run.checkpoints.mkdir()
    with pytest.raises(RunError, match="checkpoints' holds no checkpoint; train first with --mode"):
        latest_checkpoint(run)


def best_record(run: RunDirectory) -> dict:
    return json.loads((run.best / "best.json").read_text())


def test_only_improvements_of_the_higher_accuracy_are_kept(
    learner: Learner, run: RunDirectory
) -> None:
    best = BestCheckpoint(learner, run.best)
    offers = [(0.5, 0.4), (0.5, 0.5), (0.4, 0.6), (0.59, 0.59), (0.7, 0.1)]
    kept = []
    for step, (raw, ema) in enumerate(offers):
        learner.state.step.assign(step)
        best.offer({"raw": raw, "ema": ema})
        kept.append(best_record(run)["step"])
    assert kept == [0, 0, 2, 2, 4]
    assert best_record(run) == {"step": 4, "top1": {"raw": 0.7, "ema": 0.1}}


@pytest.mark.parametrize("average", [False, True])
def test_the_best_weights_outlive_worse_ones(
    learner: Learner, run: RunDirectory, average: bool, seed: int
) -> None:
    best = BestCheckpoint(learner, run.best)
    expected = average_logits(learner) if average else logits(learner.model)
    best.offer({"raw": 0.9, "ema": 0.8})
    randomise(learner, seed + 1)
    best.offer({"raw": 0.1, "ema": 0.2})
    stock = build_model(tiny().model)
    load_weights(stock, str(run.best / "ckpt"), average=average)
    np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("top1", "step"), [(0.79, 10), (0.8, 10), (0.81, 20)])
def test_a_later_start_must_beat_the_best_of_an_earlier_one(
    learner: Learner, run: RunDirectory, top1: float, step: int
) -> None:
    learner.state.step.assign(10)
    BestCheckpoint(learner, run.best).offer({"raw": 0.8, "ema": 0.3})
    learner.state.step.assign(20)
    BestCheckpoint(learner, run.best).offer({"raw": 0.2, "ema": top1})
    assert best_record(run)["step"] == step
