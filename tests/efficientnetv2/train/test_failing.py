"""Tests early ends of training: a loss that is not finite, no progress, a full disk, an error."""

import os
import resource
import signal

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.runtime.atomic_write import WriteError
from efficientnetv2.runtime.checkpoint_store import find_checkpoint
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.loop import Training
from efficientnetv2.train.nan_guard import DivergedError
from efficientnetv2.train.train_state import named_weights
from hparams import resolve
from hparams.errors import UserError

pytestmark = pytest.mark.slow  # most tests here train for several seconds

SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "train.epochs": 4,
    "train.stages": 1,
    "train.batch_size": 256,
    "train.isize": 16,
    "data.augname": "none",
    "train.optimizer": "rmsprop",
    "runtime.save_checkpoint_epochs": 1,
}
STEPS = 1257 // 256  # per epoch


def start(folder, digits, *, callback=None, stop=None, **settings):
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, **settings})
    run = RunDirectory(folder)
    run.start(config, digits.class_names)
    return Training(config, digits, run=run, callback=callback, stop=stop)


def records(folder):
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "images_per_second")}
        for line in RunDirectory(folder).metrics()
    ]


def weights_of(training):
    return {k: v.numpy() for k, v in named_weights(training.train_state.model).items()}


class Poisoned:
    """Wraps a training input and puts a NaN into the images of one step."""

    def __init__(self, images, step):
        self._images, self._step = images, step

    def batches(self, **where):
        shard = where.get("shard")
        batches_a_step = shard.replicas if shard else 1

        def poison(number, batch):
            images, targets = batch
            step = where["start_step"] + 1 + number // batches_a_step
            spot = tf.where(step == self._step, np.nan, 0.0)
            return images + tf.pad([[[[spot]]]], [[0, n - 1] for n in (1, 1, 1, 1)]), targets

        return self._images.batches(**where).enumerate().map(poison)


@pytest.mark.parametrize("step", [2, 8])
def test_images_that_are_not_finite_are_named_by_their_step(step, digits, tmp_path):
    training = start(tmp_path, digits)
    training._input = Poisoned(training._input, step)
    newest = f"its newest checkpoint of step {STEPS}" if step > STEPS else "no checkpoint"
    message = (
        rf"^the loss of step {step} is nan: its images hold values.*; '{tmp_path}' has {newest}$"
    )
    with pytest.raises(DivergedError, match=message):
        training.run()
    run = RunDirectory(tmp_path)
    assert [line["step"] for line in run.metrics()] == ([STEPS] if step > STEPS else [])
    assert find_checkpoint(run) == (
        str(run.checkpoints / f"ckpt-{STEPS}") if step > STEPS else None
    )
    again = start(tmp_path, digits)
    assert all(np.isfinite(value).all() for value in weights_of(again).values())


def test_too_little_memory_is_one_line(digits, tmp_path, monkeypatch):
    training = start(tmp_path, digits)

    def allocate(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape")

    monkeypatch.setattr(training, "_run_stages", allocate)
    with pytest.raises(UserError, match=r"a step of 256 images of 16 px needs more memory .*auto"):
        training.run()
    # The advice can be followed in the same directory.
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, "train.batch_size": 64})
    RunDirectory(tmp_path).require_same(config)


def test_a_learning_rate_that_is_too_high_is_named(digits, tmp_path):
    rate = {"train.lr_base": 1000, "train.lr_warmup_epoch": 0.0, "train.optimizer": "momentum"}
    message = r"^(the loss of|after) step \d.*: the learning rate, \d{3}, is probably too high; "
    with pytest.raises(DivergedError, match=message):
        start(tmp_path, digits, **rate).run()
    again = start(tmp_path, digits, **rate)
    assert all(np.isfinite(value).all() for value in weights_of(again).values())


def test_a_stop_saves_nothing_after_a_bad_step(digits, tmp_path):
    class StopAt3(TrainingCallback):
        def step(self, step, read_metrics):
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    training = start(tmp_path, digits, callback=StopAt3())
    training._input = Poisoned(training._input, 2)
    with pytest.raises(DivergedError, match="the loss of step 2 is nan"):
        training.run()
    assert find_checkpoint(RunDirectory(tmp_path)) is None


def test_weights_that_are_not_finite_are_not_saved(digits, tmp_path):
    training = start(tmp_path, digits)
    kernel = training.train_state.model.get_layer("predictions").kernel
    kernel.assign(tf.fill(kernel.shape, np.inf))
    with pytest.raises(DivergedError, match=r"^after step 0, 'predictions/kernel' holds"):
        training._save()
    assert find_checkpoint(RunDirectory(tmp_path)) is None


@pytest.mark.parametrize("stop_after", [None, STEPS + 2])
def test_patience_ends_a_training_for_good(stop_after, digits, tmp_path):
    tops = {STEPS: 0.5, 2 * STEPS: 0.4, 3 * STEPS: 0.5, 4 * STEPS: 0.9}

    class Stop(TrainingCallback):
        def step(self, step, read_metrics):
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)

    def train(callback=None):
        patience = {"train.patience": 2, "runtime.save_checkpoint_epochs": 4}
        training = start(tmp_path, digits, callback=callback, **patience)
        after = training.run(after_epoch=lambda: {"minival_top1": tops[training.train_state.step]})
        return after, training

    after, training = train(Stop())
    if stop_after is not None:
        assert after == signal.SIGTERM and not training.is_finished
        after, training = train()
    assert after is None and training.is_finished
    values = weights_of(training)
    assert [line["minival_top1"] for line in RunDirectory(tmp_path).metrics()] == [0.5, 0.4, 0.5]
    after, again = train()
    assert (after, again.train_state.step) == (None, 3 * STEPS)
    for name, value in weights_of(again).items():
        np.testing.assert_array_equal(value, values[name])


def train_and_validate(folder, digits, *, fails_at=None, way="signal", callback=None):
    """Trains in two stages and makes up each validation, one of which may fail."""
    stop = StopRequest()
    stages = {"train.stages": 2, "data.ibase": 8}
    training = start(folder, digits, stop=stop, callback=callback, **stages)

    def validate():
        if training.train_state.step == fails_at:
            if way == "error":
                raise UserError("cannot read 'a.jpg'")
            with stop.at_once():
                os.kill(os.getpid(), signal.SIGTERM)
                pytest.fail("went on")
        return {"minival_top1": training.train_state.step / 100}

    return training.run(after_epoch=validate)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """The records of a training that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train_and_validate(folder, digits) is None
    return records(folder)


def test_an_epoch_that_was_not_validated_is_validated_by_the_next_start(whole, digits, tmp_path):
    def train(**failure):
        return train_and_validate(tmp_path / "cut", digits, **failure)

    assert train(fails_at=2 * STEPS) == signal.SIGTERM
    assert len(records(tmp_path / "cut")) == 1
    with pytest.raises(UserError, match=r"a\.jpg"):
        train(fails_at=4 * STEPS, way="error")
    assert len(records(tmp_path / "cut")) == 3
    assert train() is None
    assert records(tmp_path / "cut") == whole


def test_a_full_disk_ends_the_training_and_the_next_start_goes_on(whole, digits, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(TrainingCallback):
        def step(self, step, read_metrics):
            if step == 2 * STEPS:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    try:
        with pytest.raises(WriteError, match=r"^cannot write '.*metrics\.jsonl': File too large"):
            train_and_validate(tmp_path / "full", digits, callback=Full())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run = RunDirectory(tmp_path / "full")
    assert find_checkpoint(run) == str(run.checkpoints / f"ckpt-{STEPS}")
    assert train_and_validate(tmp_path / "full", digits) is None
    assert records(tmp_path / "full") == whole
