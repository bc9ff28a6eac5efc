"""Tests that two processes train like one device, and what happens when one of them is missing."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

pytestmark = pytest.mark.slow  # most tests here train for several seconds

ROOT = pathlib.Path(__file__).parents[3]
BLOCKS = "[r1_k3_s1_e1_i8_o8_c1,r2_k3_s2_e4_i8_o16_se0.25]"
# Without augmentation and dropout, whose random numbers differ between one process and two.
SETTINGS = {
    "model.blocks_args": BLOCKS,
    "model.feature_size": 16,
    "model.bn_type": "sync",
    "model.survival_prob": 1.0,
    "model.dropout_rate": 0.0,
    "model.dropout_base": 0.0,
    "train.epochs": 50,
    "train.batch_size": 16,
    "train.stages": 1,
    "train.isize": 16,
    "train.optimizer": "momentum",
    "train.lr_base": 0.05,
    "train.lr_warmup_epoch": 0,
    "data.augname": "none",
    "data.crop_area": "[1.0,1.0]",
    "data.flip": "false",
    "data.mixup_alpha": 0.0,
    "data.cutmix_alpha": 0.0,
    "eval.isize": 16,
    "eval.batch_size": 5,  # divides neither split, nor does 2 divide it
    "runtime.save_checkpoint_epochs": 10,
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


def start(home, model_dir, *, cluster=None, index=0, mode="train", **settings):
    """Starts one worker, or with no cluster a single process."""
    text = ",".join(f"{key}={value}" for key, value in {**SETTINGS, **settings}.items())
    command = [sys.executable, str(ROOT / "main_tf2.py"), f"--mode={mode}", "--data_dir=images"]
    variables = {key: value for key, value in os.environ.items() if key != "TF_CONFIG"}
    if cluster:
        task = {"type": "worker", "index": index}
        variables["TF_CONFIG"] = json.dumps({"cluster": {"worker": cluster}, "task": task})
    return subprocess.Popen(
        [*command, f"--model_dir={model_dir}", f"--hparam_str={text}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=variables,
    )


def start_two(home, model_dir, **options):
    cluster = addresses()
    return [start(home, model_dir, cluster=cluster, index=i, **options) for i in range(2)]


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
def alone(home):
    ((code, _, err),) = finish([start(home, "alone")])
    assert code == 0, err
    return home / "alone"


@pytest.fixture(scope="module")
def together(home):
    results = finish(start_two(home, "together"))
    assert [code for code, _, _ in results] == [0, 0], results
    return home / "together", results


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return [line["loss"] for line in lines(run)]


def test_two_processes_have_the_loss_curve_of_one(alone, together):
    one, two = losses(alone), losses(together[0])
    assert len(one) == len(two) == 50  # an epoch is one step
    assert one[-1] < 0.7 * one[0]
    np.testing.assert_allclose(two, one, atol=1e-4)


def test_two_processes_count_every_image_once(alone, together):
    one, two = (json.loads((run / "eval.json").read_text()) for run in (alone, together[0]))
    for weights in ("raw", "ema"):
        assert two[weights]["images"] == one[weights]["images"] == 9
        assert two[weights] == pytest.approx(one[weights], abs=1e-3)


def test_only_the_chief_writes_and_prints(home, alone, together):
    run, ((_, chief_out, chief_err), (_, out, err)) = together
    assert chief_out.count("\nepoch ") == 50
    assert (out, chief_err, err) == ("", "", "")

    def names(folder):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    events = [name for name in names(run) if "tfevents" in name]
    assert len(events) == 1
    assert [n for n in names(run) if "tfevents" not in n] == [
        n for n in names(alone) if "tfevents" not in n
    ]
    assert {path.name for path in home.iterdir()} <= {"images", "alone", "together"}


def wait_for(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_worker_ends_the_others_and_the_restart_goes_on(killed, home, alone, tmp_path):
    run = tmp_path / "run"
    processes = start_two(home, run)
    wait_for(processes[0], "epoch 25/50")
    processes[killed].kill()
    begin = time.monotonic()
    left = processes[1 - killed]
    _, err = left.communicate(timeout=STOP_SECONDS)
    assert time.monotonic() - begin < STOP_SECONDS
    assert (left.returncode, err.count("\n")) == (2, 1), err
    assert "lost another worker (127.0.0.1:" in err
    assert "start all workers again, and they resume from the newest checkpoint" in err
    finish(processes)

    results = finish(start_two(home, run))
    assert [code for code, _, _ in results] == [0, 0], results
    assert "going on after step 20 of 50" in results[0][1]
    np.testing.assert_allclose(losses(run), losses(alone), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_worker_stops_and_saves_all(signalled, home, tmp_path):
    run = tmp_path / "run"
    processes = start_two(home, run, **{"train.batch_size": 2})
    wait_for(processes[0], "epoch  2/50")
    processes[signalled].send_signal(signal.SIGTERM)
    (chief, out, err), (worker, *_) = finish(processes)
    assert (chief, worker) == (143, 143), err
    assert "saved in" in out
    assert list((run / "checkpoints").glob("ckpt-*.index"))


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_never_comes(index, home, tmp_path):
    cluster = addresses()
    run = tmp_path / "run"
    begin = time.monotonic()
    process = start(
        home, run, cluster=cluster, index=index, **{"runtime.worker_timeout_seconds": 3}
    )
    ((code, _, err),) = finish([process])
    assert time.monotonic() - begin < 45
    assert (code, err.count("\n")) == (2, 1), err
    assert f"worker {index} ({cluster[index]}) cannot join the others" in err
    assert f"{cluster[1 - index]}) within runtime.worker_timeout_seconds=3" in err
    assert not run.exists()


@pytest.mark.slow
def test_workers_of_different_settings_do_not_train_together(home, tmp_path):
    cluster, run = addresses(), tmp_path / "run"
    processes = [start(home, run, cluster=cluster, index=i, **{"train.seed": i}) for i in range(2)]
    for code, _, err in finish(processes):
        assert (code, err.count("\n")) == (2, 1), err
        assert f"worker {cluster[1]} has another config checksum than" in err
