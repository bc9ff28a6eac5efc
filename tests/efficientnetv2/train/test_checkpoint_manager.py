"""Tests that checkpoints restore exactly what was saved, into any network that fits."""

from __future__ import annotations

import gc
import json
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf
from tensorflow import keras

from efficientnetv2 import get_model
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime.atomic_write import WriteError
from efficientnetv2.runtime.checkpoint_store import latest_checkpoint
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from efficientnetv2.train.checkpoint_manager import (
    BestCheckpoint,
    CheckpointManager,
    build_checkpoint,
    has_average,
    load_weights,
)
from efficientnetv2.train.learning_rate import LearningRate
from efficientnetv2.train.train_state import TrainState, build_train_state, named_weights
from hparams.config import Config
from hparams.resolve import resolve

TINY = {
    "model.blocks_args": ["r2_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o8_se0.25"],
    "model.feature_size": 16,
    "train.optimizer": "rmsprop",
}
RATE = LearningRate(peak=0.1, name="constant", warmup_steps=0, total_steps=1)


def tiny(overrides: dict | None = None) -> Config:
    return resolve("efficientnetv2-b0", "digits", TINY, overrides)


def changed_values(train_state: TrainState) -> list[tf.Variable]:
    averages = [] if train_state.average is None else list(train_state.average.averages.values())
    return [
        *(variable.value for variable in train_state.model.weights),
        *(v.value for v in train_state.optimizer.variables if "learning_rate" not in v.path),
        *averages,
        *train_state.metrics.variables,
        train_state.context.step,
    ]


def randomise(train_state: TrainState, seed: int) -> None:
    """Gives each variable different random values; all are positive, as variances must be."""
    rng = np.random.default_rng(seed)
    for variable in changed_values(train_state):
        values = rng.uniform(0.5, 1.5, variable.shape) * (1000 if variable.dtype.is_integer else 1)
        variable.assign(tf.cast(values, variable.dtype))


@pytest.fixture(scope="module")
def built() -> TrainState:
    return build_train_state(tiny(), RATE)


@pytest.fixture
def train_state(built: TrainState, seed: int) -> TrainState:
    randomise(built, seed)
    return built


@pytest.fixture
def run(tmp_path: pathlib.Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def logits(model: keras.Model) -> np.ndarray:
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    return np.array(model(images, training=False))


def average_logits(train_state: TrainState) -> np.ndarray:
    with train_state.average.swapped():
        return logits(train_state.model)


def save(train_state: TrainState, run: RunDirectory) -> str:
    train_state.context.step.assign(1)
    CheckpointManager(train_state, run, keep=5).save()
    return str(run.checkpoints / "ckpt-1")


def test_a_stock_model_gets_the_raw_weights_and_the_average(
    train_state: TrainState, run: RunDirectory
) -> None:
    raw, averaged = logits(train_state.model), average_logits(train_state)
    assert np.abs(raw - averaged).max() > 1e-2 * np.abs(raw).max()
    save(train_state, run)
    for average, expected in ((False, raw), (True, averaged)):
        stock = build_model(tiny().model)
        load_weights(stock, latest_checkpoint(run), average=average)
        np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


def values_of(train_state: TrainState) -> list[np.ndarray]:
    return [np.array(tf.convert_to_tensor(variable)) for variable in changed_values(train_state)]


def test_another_train_state_gets_everything_back(
    train_state: TrainState, run: RunDirectory, seed: int
) -> None:
    path = save(train_state, run)
    saved = values_of(train_state)
    other = build_train_state(tiny(), RATE)
    randomise(other, seed + 1)
    assert CheckpointManager(other, run, keep=5).restore()
    for variable, value in zip(changed_values(other), saved):
        np.testing.assert_array_equal(tf.convert_to_tensor(variable), value, err_msg=variable.name)
    build_checkpoint(other).read(path).assert_consumed()


def test_a_damaged_newest_checkpoint_gives_the_one_before(
    train_state: TrainState, run: RunDirectory, seed: int, capsys
) -> None:
    checkpoints = CheckpointManager(train_state, run, keep=5)
    assert not checkpoints.restore()
    saved = {}
    for step in (1, 2):
        randomise(train_state, seed + step)
        train_state.context.step.assign(step)
        checkpoints.save()
        saved[step] = values_of(train_state)
    data = run.checkpoints / "ckpt-2.data-00000-of-00001"
    values = bytearray(data.read_bytes())
    values[-1] ^= 1
    data.write_bytes(values)
    assert checkpoints.restore()
    assert train_state.step == 1
    for value, expected in zip(values_of(train_state), saved[1]):
        np.testing.assert_array_equal(value, expected)
    warning = f"'{run.checkpoints}/ckpt-2' is damaged: ckpt-2.data-00000-of-00001 does not match"
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_a_full_disk_is_one_line_and_leaves_the_checkpoints(
    size: int, train_state: TrainState, run: RunDirectory
) -> None:
    save(train_state, run)
    before = sorted(path.name for path in run.checkpoints.iterdir())
    train_state.context.step.assign(2)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        with pytest.raises(WriteError, match=r"^cannot write '.*ckpt-2': [^\n]*$"):
            CheckpointManager(train_state, run, keep=1).save()
        with pytest.raises(WriteError, match=r"^cannot write '.*best/ckpt-2': [^\n]*$"):
            BestCheckpoint(train_state, run).offer({"raw": 0.5}, image_size=32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == before
    assert latest_checkpoint(run) == str(run.checkpoints / "ckpt-1")
    assert list(run.best.iterdir()) == []


def test_names_in_a_checkpoint_say_what_they_are(
    train_state: TrainState, run: RunDirectory
) -> None:
    names = {name for name, _ in tf.train.list_variables(save(train_state, run))}
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    for part in ("weights", "ema"):
        assert f"{part}/stem_bn.Smoving_variance{suffix}" in names
        assert f"{part}/predictions.Skernel{suffix}" in names
    assert f"step{suffix}" in names


@pytest.mark.parametrize(("decay", "expected"), [(0.0, False), (0.99, True)])
def test_has_average(run: RunDirectory, decay: float, expected: bool) -> None:
    train_state = build_train_state(tiny({"train.ema_decay": decay}), RATE)
    assert has_average(save(train_state, run)) is expected


def test_an_average_that_was_not_kept_is_refused(run: RunDirectory) -> None:
    path = save(build_train_state(tiny({"train.ema_decay": 0.0}), RATE), run)
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
    train_state: TrainState, run: RunDirectory, overrides: dict, average: bool
) -> None:
    path = save(train_state, run)
    with pytest.raises(RunError, match=r"checkpoint '.*ckpt-1' does not fit the model: \S"):
        load_weights(build_model(tiny(overrides).model), path, average=average)


def test_a_checkpoint_that_is_not_there_is_refused(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"checkpoint '.*ckpt-9' is damaged: \S"):
        load_weights(build_model(tiny().model), str(run.checkpoints / "ckpt-9"), average=False)


def best_record(run: RunDirectory) -> dict:
    return json.loads((run.best / "best.json").read_text())


def test_the_last_of_those_with_the_highest_accuracy_are_kept(
    train_state: TrainState, run: RunDirectory
) -> None:
    best = BestCheckpoint(train_state, run)
    offers = [(0.5, 0.4), (0.5, 0.5), (0.4, 0.6), (0.59, 0.59), (0.7, 0.1)]
    best_steps = []
    for step, (raw, ema) in enumerate(offers):
        train_state.context.step.assign(step)
        best.offer({"raw": raw, "ema": ema}, image_size=32)
        best_steps.append(best_record(run)["step"])
    assert best_steps == [0, 1, 2, 2, 4]
    assert best_record(run) == {
        "step": 4,
        "metric": "top1",
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
    train_state: TrainState, run: RunDirectory, average: bool, seed: int
) -> None:
    best = BestCheckpoint(train_state, run)
    expected = average_logits(train_state) if average else logits(train_state.model)
    train_state.context.step.assign(10)
    best.offer({"raw": 0.9, "ema": 0.8}, image_size=32)
    randomise(train_state, seed + 1)
    train_state.context.step.assign(20)
    best.offer({"raw": 0.1, "ema": 0.2}, image_size=32)
    stock = build_model(tiny().model)
    load_weights(stock, str(run.best / best_record(run)["checkpoint"]), average=average)
    np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("top1", "step"), [(0.79, 10), (0.8, 20), (0.81, 20)])
def test_a_later_start_must_reach_the_best_of_an_earlier_one(
    train_state: TrainState, run: RunDirectory, top1: float, step: int
) -> None:
    train_state.context.step.assign(10)
    BestCheckpoint(train_state, run).offer({"raw": 0.8, "ema": 0.3}, image_size=32)
    train_state.context.step.assign(20)
    BestCheckpoint(train_state, run).offer({"raw": 0.2, "ema": top1}, image_size=32)
    assert best_record(run)["step"] == step


def test_what_was_best_in_epochs_that_are_run_again_does_not_count(
    train_state: TrainState, run: RunDirectory, seed: int
) -> None:
    """After a kill between writing the best weights and the checkpoint, epochs are run again."""
    train_state.context.step.assign(20)
    BestCheckpoint(train_state, run).offer({"raw": 0.8}, image_size=32)
    randomise(train_state, seed + 1)
    expected = logits(train_state.model)
    run.append_metrics({"step": 10, "minival_top1": 0.5})
    train_state.context.step.assign(20)
    BestCheckpoint(train_state, run).offer({"raw": 0.6}, image_size=32)
    assert best_record(run)["top1"] == {"raw": 0.6}
    stock = build_model(tiny().model)
    load_weights(stock, str(run.best / "ckpt-20"), average=False)
    np.testing.assert_allclose(logits(stock), expected, rtol=1e-5, atol=1e-5)


def test_the_best_of_all_records_must_be_reached(
    train_state: TrainState, run: RunDirectory
) -> None:
    run.append_metrics({"step": 10, "minival_top1": 0.2, "minival_ema_top1": 0.5})
    run.append_metrics({"step": 20, "minival_top1": 0.3, "minival_ema_top1": 0.1})
    train_state.context.step.assign(30)
    best = BestCheckpoint(train_state, run)
    best.offer({"raw": 0.4, "ema": 0.49}, image_size=32)
    assert not run.best.exists()
    best.offer({"raw": 0.4, "ema": 0.5}, image_size=32)
    assert best_record(run)["step"] == 30


def test_another_width_is_one_line(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorFlow would log a line for each weight that it did not restore."""
    blocks = {"blocks_args": ["r1_k3_s2_e1_i8_o8"], "feature_size": 8}
    narrow = get_model("efficientnetv2-b0", num_classes=3, overrides=blocks)
    checkpoint = tf.train.Checkpoint(weights=named_weights(narrow))
    path = checkpoint.write(str(tmp_path / "ckpt-1"))
    wide = get_model(
        "efficientnetv2-b0", num_classes=3, overrides={**blocks, "width_coefficient": 2.0}
    )
    message = r"ckpt-1' does not fit the model: stem_conv/kernel has shape \(3, 3, 3, 8\), but the "
    with pytest.raises(RunError, match=message) as caught:
        load_weights(wide, path, average=False)
    gc.collect()  # TensorFlow logs when its objects are deleted
    assert "\n" not in str(caught.value)
    assert caplog.text == ""


def test_epochs_of_other_image_sizes_do_not_count_for_the_best(
    train_state: TrainState, run: RunDirectory
) -> None:
    best = BestCheckpoint(train_state, run)
    for step, size, top1 in ((1, 16, 0.9), (2, 32, 0.5), (3, 32, 0.4), (4, 32, 0.6)):
        train_state.context.step.assign(step)
        best.offer({"raw": top1}, image_size=size)
        run.append_metrics({"step": step, "minival_top1": top1, "minival_size": size})
        assert best_record(run)["step"] == {1: 1, 2: 2, 3: 2, 4: 4}[step]
