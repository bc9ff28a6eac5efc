"""Tests that a training run killed at the worst moments resumes to the same bits."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.commands import train as command
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.train.loop import Training
from hparams import resolve

pytestmark = pytest.mark.slow  # most tests here train for several seconds

SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 8,
    "model.survival_prob": 0.8,
    "train.epochs": 4,
    "train.stages": 2,
    "train.batch_size": 256,
    "train.lr_base": 0.02,
    "train.lr_warmup_epoch": 0.0,
    "train.ema_decay": 0.5,
    "data.ibase": 16,
    "train.isize": 24,
    "train.optimizer": "rmsprop",
    "runtime.keep_checkpoint_max": 2,
    "runtime.save_checkpoint_epochs": 1,
}
CLOCK = ("seconds", "images_per_second")


def train(folder, data_dir, **settings):
    config = resolve(
        "efficientnetv2-s", "digits", {**SETTINGS, "data.data_dir": data_dir, **settings}
    )
    stop = StopRequest()
    options = {"validate": True, "keep_best": True, "eval_name": None, "stop": stop}
    with stop.listening():
        return command.train(config, RunDirectory(folder), **options)


def tensors(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def outcome(folder):
    """Reads everything that training leaves, except times, curves and TensorBoard's events."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((folder / "best" / "best.json").read_text())
    checkpoints = folder / "checkpoints"
    return {
        "files": sorted(
            p.name for part in ("checkpoints", "best") for p in (folder / part).iterdir()
        ),
        "metrics": [{k: v for k, v in line.items() if k not in CLOCK} for line in lines],
        "best": (best, tensors(folder / "best" / best["checkpoint"])),
        "eval": json.loads((folder / "eval.json").read_text()),
        "checkpoints": {p.stem: tensors(p.with_suffix("")) for p in checkpoints.glob("*.index")},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits, data_dir):
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, data_dir) == 0
    expected = outcome(folder)
    assert set(expected["checkpoints"]) == {"ckpt-12", "ckpt-16"}
    return expected


# In the order in which an epoch ends: the path at whose access training is killed, and how many
# accesses to it come before.
KILLS = [
    ("best/ckpt-4.tmp/ckpt-4.index", 0),  # the best weights are half written
    ("best/.efficientnetv2-", 0),  # they are written, but best.json does not name them
    ("metrics.jsonl", 0),  # validated, not recorded
    ("checkpoints/ckpt-4.tmp", 0),  # recorded, not saved
    ("checkpoints/ckpt-8.tmp/ckpt-8.sha256", 1),  # moved to its place, except for the checksums
    ("checkpoints/ckpt-4.", 1),  # the oldest checkpoint is half removed
    ("checkpoints/.efficientnetv2-", 4),  # trained to the end, TensorFlow's list is old
    ("eval.json", 0),  # not evaluated
]


def test_killed_at_its_turns_it_ends_with_the_same_bits(whole, killer, data_dir, tmp_path):
    for where, touch in KILLS:
        assert not killer.survives(lambda: train(tmp_path, data_dir), where=where, touch=touch)
    assert train(tmp_path, data_dir) == 0
    result = outcome(tmp_path)
    for name, value in whole.items():
        assert result[name] == value, name


def test_a_signal_inside_a_save_waits_for_its_end(whole, killer, data_dir, tmp_path):
    codes = []
    killer.survives(
        lambda: codes.append(train(tmp_path, data_dir)),
        where="checkpoints/ckpt-8.tmp",
        act=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    assert codes == [128 + signal.SIGTERM]
    assert (tmp_path / "checkpoints" / "ckpt-8.sha256").exists()
    assert not list((tmp_path / "checkpoints").glob("*.tmp"))
    assert train(tmp_path, data_dir) == 0
    assert outcome(tmp_path) == whole


def test_a_signal_inside_an_evaluation_stops_it_at_once(whole, data_dir, tmp_path, wait_until):
    main, signalled = threading.get_ident(), []

    def stop_in_evaluation():
        wait_until(lambda: "evaluate_split" in names_on_stack(main))
        time.sleep(0.2)
        signalled.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_in_evaluation, daemon=True).start()
    # It would take long if it were not stopped: 1257 images, one at a time, three times.
    slow = {"data.minival_split": "train+train+train", "eval.batch_size": 1}
    assert train(tmp_path, data_dir, **slow) == 128 + signal.SIGTERM
    assert time.monotonic() - signalled[0] < 10
    run = RunDirectory(tmp_path)
    assert [path.name for path in run.checkpoints.glob("*.index")] == ["ckpt-4.index"]
    assert run.metrics() == []


def test_a_signal_while_a_finished_training_closes_its_input_is_not_forgotten(
    whole, data_dir, tmp_path, monkeypatch
):
    clear = Training._clear_input

    def stopped(training):
        os.kill(os.getpid(), signal.SIGTERM)
        clear(training)

    monkeypatch.setattr(Training, "_clear_input", stopped)
    with pytest.raises(Stopped):
        train(tmp_path, data_dir)
    assert not (tmp_path / "eval.json").exists()
    monkeypatch.undo()
    assert train(tmp_path, data_dir) == 0
    assert outcome(tmp_path) == whole


def names_on_stack(thread):
    frame, names = sys._current_frames().get(thread), set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names
