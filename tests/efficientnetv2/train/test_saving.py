"""Checkpoints: what a training saved is what any network gets back."""

from __future__ import annotations

import json
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.train.checkpoint_files import latest_checkpoint
from efficientnetv2.train.durable import WriteError
from efficientnetv2.train.learner import Learner, build_learner
from efficientnetv2.train.run_directory import RunDirectory, RunError
from efficientnetv2.train.saving import (
    BestCheckpoint,
    Checkpoints,
    build_checkpoint,
    has_average,
    load_weights,
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
    learner.state.step.assign(1)
    Checkpoints(learner, run, keep=5).save()
    return str(run.checkpoints / "ckpt-1")


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


def values_of(learner: Learner) -> list[np.ndarray]:
    return [np.array(tf.convert_to_tensor(variable)) for variable in changed_values(learner)]


def test_another_learner_gets_everything_back(
    learner: Learner, run: RunDirectory, seed: int
) -> None:
    path = save(learner, run)
    saved = values_of(learner)
    other = build_learner(tiny(), RATE)
    randomise(other, seed + 1)
    assert Checkpoints(other, run, keep=5).restore()
    for variable, value in zip(changed_values(other), saved):
        np.testing.assert_array_equal(tf.convert_to_tensor(variable), value, err_msg=variable.name)
    build_checkpoint(other).read(path).assert_consumed()


def test_a_damaged_newest_checkpoint_gives_the_one_before(
    learner: Learner, run: RunDirectory, seed: int, capsys
) -> None:
    checkpoints = Checkpoints(learner, run, keep=5)
    assert not checkpoints.restore()
    saved = {}
    for step in (1, 2):
        randomise(learner, seed + step)
        learner.state.step.assign(step)
        checkpoints.save()
        saved[step] = values_of(learner)
    data = run.checkpoints / "ckpt-2.data-00000-of-00001"
    values = bytearray(data.read_bytes())
    values[-1] ^= 1
    data.write_bytes(values)
    assert checkpoints.restore()
    assert learner.step == 1
    for value, expected in zip(values_of(learner), saved[1]):
        np.testing.assert_array_equal(value, expected)
    warning = f"'{run.checkpoints}/ckpt-2' is damaged: ckpt-2.data-00000-of-00001 does not match"
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_full_disk_is_one_line_and_leaves_the_checkpoints(
    size: int, learner: Learner, run: RunDirectory
) -> None:
    save(learner, run)
    before = sorted(path.name for path in run.checkpoints.iterdir())
    learner.state.step.assign(2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        with pytest.raises(WriteError, match=r"^cannot write '.*ckpt-2': [^\n]*; what was saved"):
            Checkpoints(learner, run, keep=1).save()
        with pytest.raises(WriteError, match=r"^cannot write '.*best/ckpt-2': [^\n]*; what was"):
            BestCheckpoint(learner, run).offer({"raw": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before
    assert latest_checkpoint(run) == str(run.checkpoints / "ckpt-1")
    assert list(run.best.iterdir()) == []


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


def best_record(run: RunDirectory) -> dict:
    return json.loads((run.best / "best.json").read_text())


def test_only_improvements_of_the_higher_accuracy_are_kept(
    learner: Learner, run: RunDirectory
) -> None:
    best = BestCheckpoint(learner, run)
    offers = [(0.5, 0.4), (0.5, 0.5), (0.4, 0.6), (0.59, 0.59), (0.7, 0.1)]
    kept = []
    for step, (raw, ema) in enumerate(offers):
        learner.state.step.assign(step)
        best.offer({"raw": raw, "ema": ema})
        kept.append(best_record(run)["step"])
    assert kept == [0, 0, 2, 2, 4]
    assert best_record(run) == {
        "step": 4,
        "top1": {"raw": 0.7, "ema": 0.1},
        "checkpoint": "ckpt-4",
    }
    assert sorted(path.name for path in run.best.iterdir()) == [
        "best.json",
        "ckpt-4.data-00000-of-00001",
        "ckpt-4.index",
        "ckpt-4.sha256",
    ]


@pytest.mark.parametrize("average", [False, True])
def test_the_best_weights_outlive_worse_ones(
    learner: Learner, run: RunDirectory, average: bool, seed: int
) -> None:
    best = BestCheckpoint(learner, run)
    expected = average_logits(learner) if average else logits(learner.model)
    learner.state.step.assign(10)
    best.offer({"raw": 0.9, "ema": 0.8})
    randomise(learner, seed + 1)
    learner.state.step.assign(20)
    best.offer({"raw": 0.1, "ema": 0.2})
    stock = build_model(tiny().model)
    load_weights(stock, str(run.best / best_record(run)["checkpoint"]), average=average)
    np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("top1", "step"), [(0.79, 10), (0.8, 10), (0.81, 20)])
def test_a_later_start_must_beat_the_best_of_an_earlier_one(
    learner: Learner, run: RunDirectory, top1: float, step: int
) -> None:
    learner.state.step.assign(10)
    BestCheckpoint(learner, run).offer({"raw": 0.8, "ema": 0.3})
    learner.state.step.assign(20)
    BestCheckpoint(learner, run).offer({"raw": 0.2, "ema": top1})
    assert best_record(run)["step"] == step


def test_what_was_best_in_epochs_that_are_run_again_does_not_count(
    learner: Learner, run: RunDirectory, seed: int
) -> None:
    """A kill after the best was written, before the checkpoint: these epochs come again."""
    learner.state.step.assign(20)
    BestCheckpoint(learner, run).offer({"raw": 0.8})
    randomise(learner, seed + 1)
    expected = logits(learner.model)
    run.append_metrics({"step": 10, "minival_top1": 0.5})
    learner.state.step.assign(20)
    BestCheckpoint(learner, run).offer({"raw": 0.6})
    assert best_record(run)["top1"] == {"raw": 0.6}
    stock = build_model(tiny().model)
    load_weights(stock, str(run.best / "ckpt-20"), average=False)
    np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


def test_the_best_of_all_records_must_be_beaten(learner: Learner, run: RunDirectory) -> None:
    run.append_metrics({"step": 10, "minival_top1": 0.2, "minival_ema_top1": 0.5})
    run.append_metrics({"step": 20, "minival_top1": 0.3, "minival_ema_top1": 0.1})
    learner.state.step.assign(30)
    best = BestCheckpoint(learner, run)
    best.offer({"raw": 0.4, "ema": 0.5})
    assert not run.best.exists()
    best.offer({"raw": 0.51, "ema": 0.5})
    assert best_record(run)["step"] == 30
