"""Tests that two processes train like one device, and what happens when one of them is missing."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import time

import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.slow  # most tests here train for several seconds

ROOT = pathlib.Path(__file__).parents[3]
BLOCKS = "[r1_k3_s2_e4_i8_o16_se0.25]"
# Without augmentation and dropout, whose random numbers differ between one process and two.
SETTINGS = {
    "model.blocks_args": BLOCKS,
    "model.feature_size": 16,
    "model.bn_type": "sync",
    "model.survival_prob": 1.0,
    "model.dropout_rate": 0.0,
    "model.dropout_base": 0.0,
    "train.epochs": 20,
    "train.batch_size": 16,
    "train.stages": 1,
    "train.isize": 16,
    "train.optimizer": "momentum",
    "train.lr_base": 0.15,
    "train.lr_warmup_epoch": 0,
    "data.augname": "none",
    "data.crop_area": "[1.0,1.0]",
    "data.flip": "false",
    "data.mixup_alpha": 0.0,
    "data.cutmix_alpha": 0.0,
    "eval.isize": 16,
    "eval.batch_size": 5,  # divides neither split, nor does 2 divide it
    "runtime.save_checkpoint_epochs": 5,
    "runtime.keep_checkpoint_max": 2,  # none of a stop by a signal is left
    "runtime.worker_timeout_seconds": 60,
}
STOP_SECONDS = 60  # docs/recipes.md: within this time a worker notices that another one is gone


def addresses(count=2):
    """Returns addresses of this machine with free ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]


@pytest.fixture(scope="module")
def start(start_process, home):
    """Starts one worker of a cluster."""

    def start(model_dir, *, cluster, index, **settings):
        text = ",".join(f"{key}={value}" for key, value in {**SETTINGS, **settings}.items())
        flags = ["--mode=train", "--data_dir=images", f"--model_dir={model_dir}"]
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": cluster}, "task": task})
        variables = {**os.environ, "TF_CONFIG": config}
        program = (ROOT / "main_tf2.py", *flags, f"--hparam_str={text}")
        return start_process(*program, cwd=home, env=variables)

    return start


@pytest.fixture(scope="module")
def start_two(start):
    def start_two(model_dir):
        cluster = addresses()
        return [start(model_dir, cluster=cluster, index=i) for i in range(2)]

    return start_two


def finish(processes, timeout=200):
    """Returns exit code, stdout and stderr of each process, and leaves none running."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *output) for p, output in zip(processes, outputs)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder with images of two classes: 16 to train on, 7 of minival, 9 to test."""
    folder = tmp_path_factory.mktemp("workers")
    rng = np.random.default_rng(3)
    for split, counts in {"train": (8, 8), "val": (4, 3), "test": (4, 5)}.items():
        for name, count in zip(("dark", "light"), counts):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 160, (20, 20, 3)) + (name == "light") * 80
                encoded = tf.io.encode_png(pixels.astype(np.uint8))
                (place / f"{index}.png").write_bytes(encoded.numpy())
    return folder


@pytest.fixture(scope="module")
def alone(home, main_tf2):
    text = ",".join(f"{key}={value}" for key, value in SETTINGS.items())
    flags = ["--mode=train", "--data_dir=images", "--model_dir=alone", f"--hparam_str={text}"]
    result = main_tf2(*flags, cwd=home)
    assert result.returncode == 0, result.stderr
    return home / "alone"


@dataclasses.dataclass
class Disturbed:
    """A training of two processes that was started five times.

    Attributes:
      signalled: index of the worker that got SIGTERM -> exit code, stdout and stderr of both, and
        the checkpoints after it.
      killed: index of the worker that was killed -> exit code and stderr of the other one, and its
        seconds from then to its end.
      resumed: index of the worker that was killed -> the lines that this start had printed before.
      results: of the last start, which trained to the end.
    """

    run: pathlib.Path
    signalled: dict = dataclasses.field(default_factory=dict)
    killed: dict = dataclasses.field(default_factory=dict)
    results: list = dataclasses.field(default_factory=list)
    resumed: dict = dataclasses.field(default_factory=dict)


@pytest.fixture(scope="module")
def disturbed(home, start_two):
    """Two processes of which each gets a signal, and then each is killed once."""
    training = Disturbed(home / "together")
    for index, epoch in ((1, "epoch  2/20"), (0, "epoch ")):
        processes = start_two(training.run)
        wait_for(processes[0], epoch)
        processes[index].send_signal(signal.SIGTERM)
        results = finish(processes)
        saved = list((training.run / "checkpoints").glob("ckpt-*.index"))
        training.signalled[index] = (results, saved)
    for index, epoch in ((0, "epoch  6/20"), (1, "epoch 16/20")):
        processes = start_two(training.run)
        training.resumed[index] = wait_for(processes[0], epoch)
        processes[index].kill()
        begin = time.monotonic()
        left = processes[1 - index]
        _, err = left.communicate(timeout=STOP_SECONDS)
        training.killed[index] = (left.returncode, err, time.monotonic() - begin)
        finish(processes)
    training.results = finish(start_two(training.run))
    assert [code for code, _, _ in training.results] == [0, 0], training.results
    return training


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return [line["loss"] for line in lines(run)]


def test_two_processes_have_the_loss_curve_of_one(alone, disturbed):
    one, two = losses(alone), losses(disturbed.run)
    assert len(one) == len(two) == 20  # an epoch is one step
    assert one[-1] < 0.7 * one[0]
    np.testing.assert_allclose(two, one, atol=1e-4)


def test_two_processes_count_every_image_once(alone, disturbed):
    one, two = (json.loads((run / "eval.json").read_text()) for run in (alone, disturbed.run))
    for weights in ("raw", "ema"):
        assert two[weights]["images"] == one[weights]["images"] == 9
        assert two[weights] == pytest.approx(one[weights], abs=1e-3)


def test_only_the_chief_writes_and_prints(home, alone, disturbed):
    (_, chief_out, chief_err), (_, out, err) = disturbed.results
    assert chief_out.count("\nepoch ") == 5
    assert (out, chief_err, err) == ("", "", "")
    ((*_, chief_err), (_, out, err)), _ = disturbed.signalled[1]  # at the first start
    assert (out, chief_err.count("\n"), err) == ("", 1, "")
    assert chief_err.startswith("folder 'images': ")

    def names(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    run = disturbed.run
    events = [name for name in names(run) if "tfevents" in name]
    assert len(events) == 5  # one a start
    assert [n for n in names(run) if "tfevents" not in n] == [
        n for n in names(alone) if "tfevents" not in n
    ]
    assert {path.name for path in home.iterdir()} <= {"images", "alone", "together"}


def wait_for(process, beginning):
    """Returns the lines that the process prints before one with this beginning."""
    before = []
    for line in process.stdout:
        if line.startswith(beginning):
            return before
        before.append(line)
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_others_and_the_restart_goes_on(killed, disturbed):
    code, err, seconds = disturbed.killed[killed]
    assert seconds < STOP_SECONDS
    assert (code, err.count("\n")) == (2, 1), err
    assert "lost another worker (127.0.0.1:" in err
    assert "start all workers again, and they resume from the newest checkpoint" in err
    # In the end, the loss curve is that of one device: see above.
    went_on = ["".join(disturbed.resumed[1]), disturbed.results[0][1]][killed]
    assert f"going on after step {(5, 15)[killed]} of 20" in went_on


@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_worker_stops_and_saves_all(signalled, disturbed):
    ((chief, out, err), (worker, *_)), saved = disturbed.signalled[signalled]
    assert (chief, worker) == (143, 143), err
    assert "saved in" in out
    assert saved


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_never_comes(index, start, tmp_path):
    cluster = addresses()
    run = tmp_path / "run"
    begin = time.monotonic()
    process = start(run, cluster=cluster, index=index, **{"runtime.worker_timeout_seconds": 3})
    ((code, _, err),) = finish([process])
    assert time.monotonic() - begin < 45
    assert (code, err.count("\n")) == (2, 1), err
    assert f"worker {index} ({cluster[index]}) cannot join the others" in err
    assert f"{cluster[1 - index]}) within runtime.worker_timeout_seconds=3" in err
    assert not run.exists()


def test_workers_of_different_settings_do_not_train_together(start, tmp_path):
    cluster, run = addresses(), tmp_path / "run"
    processes = [start(run, cluster=cluster, index=i, **{"train.seed": i}) for i in range(2)]
    for index, (code, _, err) in enumerate(finish(processes)):
        *notices, reason = err.splitlines()
        assert (code, len(notices)) == (2, [1, 0][index]), err  # the chief names its folders
        assert f"worker {cluster[1]} has another config checksum than" in reason
