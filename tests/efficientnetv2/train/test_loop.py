"""Tests whole training runs: one trace for all stages, and resuming to the same bits."""

import os
import signal
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.loop import Training
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer
from efficientnetv2.train.train_state import build_train_state, named_weights
from hparams import resolve
from hparams.resolve import resolve_model

pytestmark = pytest.mark.slow  # all tests here train for several seconds

SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e4_i8_o8_se0.25"],
    "model.feature_size": 16,
    "train.epochs": 4,
    "train.stages": 2,
    "train.batch_size": 256,
    "data.ibase": 16,
    "train.isize": 24,
    "train.optimizer": "rmsprop",
    "model.dropout_base": 0.1,
    "model.dropout_rate": 0.2,
    "model.survival_prob": 0.8,
}
STEPS = 4 * (1257 // 256)


class Recorder(TrainingCallback):
    """Records the callback's calls, and interrupts the process after ``stop_after`` steps."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.sizes, self.epochs, self.streams = [], [], set()

    def stage(self, stage):
        self.sizes.append(stage.image_size)

    def step(self, step, read_metrics):
        if step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    def epoch(self, line):
        self.epochs.append(line)


def start(folder, digits, *, callback=None, **settings):
    config = resolve("efficientnetv2-s", "digits", {**SETTINGS, **settings})
    run = RunDirectory(folder)
    run.start(config, digits.class_names)
    return Training(config, digits, run=run, callback=callback)


def state(training):
    train_state = training.train_state
    values = {f"weights/{k}": v.numpy() for k, v in named_weights(train_state.model).items()}
    values |= {f"ema/{k}": v.numpy() for k, v in train_state.average.averages.items()}
    values |= {v.path.partition("/")[2]: v.numpy() for v in train_state.optimizer.variables}
    return values


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits):
    callback = Recorder()
    training = start(tmp_path_factory.mktemp("run"), digits, callback=callback)
    callback.step = lambda *_: callback.streams.add(weakref.ref(training.trainer._batches))
    assert training.run() is None
    return training, callback


def test_all_stages_share_one_trace(uninterrupted):
    training, callback = uninterrupted
    assert callback.sizes == [16, 24]
    assert training.trainer.num_traces == 1


def test_a_training_that_has_ended_frees_its_batches(uninterrupted):
    (stream,) = uninterrupted[1].streams  # one for all stages
    assert stream() is None


def test_records_of_an_epoch(uninterrupted):
    _, callback = uninterrupted
    config = resolve("efficientnetv2-s", "digits", SETTINGS)
    rate = build_learning_rate(config, build_stages(config, num_images=1257))
    assert [line["epoch"] for line in callback.epochs] == [1, 2, 3, 4]
    assert [line["step"] for line in callback.epochs] == [4, 8, 12, 16]
    assert [line["dropout_rate"] for line in callback.epochs] == [0.1, 0.1, 0.2, 0.2]
    for line in callback.epochs:
        assert line["learning_rate"] == pytest.approx(float(rate(tf.constant(line["step"] - 1))))


def test_the_dropout_rate_follows_the_stage(uninterrupted):
    training, _ = uninterrupted
    assert training.train_state.context.dropout_rate.numpy() == np.float32(0.2)


def assert_same(values, expected):
    assert set(values) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value, err_msg=name)


def test_the_same_seed_gives_the_same_bits_also_where_the_cpu_is_asked_for(
    uninterrupted, digits, tmp_path
):
    training = start(tmp_path, digits, **{"runtime.strategy": "cpu"})
    training.run()
    assert_same(state(training), state(uninterrupted[0]))


def test_another_seed_gives_other_weights(digits, tmp_path):
    one, other = (
        state(start(tmp_path / str(seed), digits, **{"train.seed": seed})) for seed in (0, 1)
    )
    name = "weights/stem_conv/kernel"
    assert np.abs(other[name] - one[name]).max() > 1e-3


def records(lines):
    """Returns records of metrics.jsonl without what the clock says."""
    clock = ("seconds", "images_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def test_a_training_stopped_again_and_again_has_the_same_bits_and_records(
    uninterrupted, digits, tmp_path
):
    before = 0
    for stop_after in (1, 6, 8, 13):  # early, twice in one epoch, at its end, in the last epoch
        training = start(tmp_path, digits, callback=Recorder(stop_after))
        assert training.train_state.step == before
        assert training.run() == signal.SIGINT
        assert training.train_state.step == stop_after
        before = stop_after
    last = start(tmp_path, digits, callback=Recorder(STEPS))
    assert last.train_state.step == before
    last.run()
    assert last.train_state.step == STEPS
    assert_same(state(last), state(uninterrupted[0]))
    after = start(tmp_path, digits)
    assert after.run() is None
    assert_same(state(after), state(uninterrupted[0]))
    assert records(RunDirectory(tmp_path).metrics()) == records(uninterrupted[1].epochs)


def test_epochs_after_the_last_save_are_run_and_recorded_again(digits, tmp_path):
    saved_seldom = {"runtime.save_checkpoint_epochs": 3}
    training = start(tmp_path, digits, **saved_seldom)
    training._save = lambda: None  # as if the machine had died after the first epochs
    training.run()
    assert len(RunDirectory(tmp_path).metrics()) == 4
    again = start(tmp_path, digits, **saved_seldom)
    assert again.train_state.step == 0
    again.run()
    assert [line["epoch"] for line in RunDirectory(tmp_path).metrics()] == [1, 2, 3, 4]


def test_changing_the_size_of_half_of_b0_costs_under_1_second():
    whole = resolve_model("efficientnetv2-b0").blocks_args
    blocks = [f"r{r}{block[2:]}" for r, block in zip((1, 1, 1, 2, 3, 4), whole)]
    settings = {"train.batch_size": 8, "model.blocks_args": blocks}
    config = resolve("efficientnetv2-b0", "digits", settings)
    plan = build_stages(config, num_images=1257)
    train_state = build_train_state(config, build_learning_rate(config, plan))
    trainer = Trainer(
        train_state,
        tf.distribute.get_strategy(),
        settings=stage_settings(plan),
        after_step=lambda step: None,
    )
    seconds = []
    for size in (24, 32, 40):
        images = tf.zeros([8, size, size, 3])
        batch = tf.data.Dataset.from_tensors((images, tf.one_hot([0] * 8, 10)))
        trainer.set_input(batch.map(_any_size).repeat())
        begin = time.process_time()  # other processes do not count
        trainer.train(1)
        seconds.append(time.process_time() - begin)
    assert trainer.num_traces == 1
    assert seconds[1] < 1 and seconds[2] < 1


def _any_size(images, labels):
    return tf.compat.v1.placeholder_with_default(images, [8, None, None, 3]), labels
