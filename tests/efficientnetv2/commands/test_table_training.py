"""Trainings on tables of labels: a kill changes no bit, and two processes train as one."""

import contextlib
import json
import os
import pathlib
import socket

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

pytestmark = pytest.mark.slow  # all tests here train for several seconds

ROOT = pathlib.Path(__file__).parents[3]
NUM_IMAGES = 120
SETTINGS = {
    "model.blocks_args": "[r1_k3_s2_e4_i8_o16_se0.25]",
    "model.feature_size": 16,
    "train.preset": "none",
    "train.epochs": 2,
    "train.batch_size": 16,
    "train.stages": 1,
    "train.isize": 16,
    "eval.isize": 16,
    "train.ema_decay": 0.9,
    "data.mixup_alpha": 0.2,
}
KINDS = {
    "several": ["--label_columns=tags", "--weight_column=weight", "data.multi_label=true"],
    "numbers": ["--target_columns=x,y", "--weight_column=weight"],
    "rare": [
        "--label_columns=name",
        "data.sampling=sqrt,train.class_weights=balanced,train.logit_adjustment=0.5,"
        "train.focal_gamma=1",
    ],
}
# Without what is drawn at random, which differs between one process and two.
PLAIN = {
    "data.mixup_alpha": 0.0,
    "model.bn_type": "sync",
    "model.survival_prob": 1.0,
    "model.dropout_rate": 0.0,
    "model.dropout_base": 0.0,
    "data.crop_area": "[1.0,1.0]",
    "data.flip": "false",
    "eval.batch_size": 5,
    "runtime.worker_timeout_seconds": 60,
}
CLOCK = ("seconds", "images_per_second")
KILLED_AT = 1  # access to the file of records, of two an epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of noise, and a table with labels of each kind."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    lines = ["path,name,tags,x,y,weight"]
    for number in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        name = "rare" if number % 8 == 0 else ("cat", "dog")[number % 2]
        tags = "|".join(tag for tag, part in (("a", 2), ("b", 3), ("c", 5)) if number % part == 0)
        mean = pixels.mean()
        lines.append(f"{number}.png,{name},{tags},{mean:.4f},{-100 * mean:.2f},{number % 3 + 1}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def program(folder, run, kind, *flags, **changes):
    *given, last = KINDS[kind]
    settings = ",".join(f"{key}={value}" for key, value in {**SETTINGS, **changes}.items())
    settings += f",{last}" if not last.startswith("--") else ""
    given += [last] if last.startswith("--") else []
    arguments = [f"--model_dir={run}", "--model=efficientnetv2-b0", f"--hparam_str={settings}"]
    return [ROOT / "main_tf2.py", "train", folder / "labels.csv", *arguments, *given, *flags]


def lines_of(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def outcome(run):
    """Reads what a training leaves, except times, pictures and TensorBoard's events."""
    newest = max((run / "checkpoints").glob("*.index"), key=lambda p: int(p.stem.split("-")[1]))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    files = ("split.csv", "thresholds.csv", "labels.txt", "eval.json")
    return {
        "weights": {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names},
        "metrics": [{k: v for k, v in line.items() if k not in CLOCK} for line in lines_of(run)],
        **{name: (run / name).read_text() for name in files if (run / name).exists()},
    }


def run_here(main_tf2, folder, *arguments, **changes):
    _, *command = program(folder, *arguments, **changes)
    result = main_tf2(*command, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    return result


def kill_process(start_process, wait_until, folder, broken, kind):
    process = start_process(*program(folder, broken, kind, "--validate"))
    wait_until(lambda: list((broken / "checkpoints").glob("*.sha256")))
    process.kill()
    process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_ends_with_the_same_bits(
    kind, folder, main_tf2, start_process, killer, wait_until
):
    whole, broken = folder / f"whole-{kind}", folder / f"broken-{kind}"
    run_here(main_tf2, folder, whole, kind, "--validate")
    if kind == "several":  # one kind as a process of its own
        kill_process(start_process, wait_until, folder, broken, kind)
    else:  # at the second record of an epoch
        assert not killer.survives(
            lambda: run_here(main_tf2, folder, broken, kind, "--validate"),
            where=f"{broken}/metrics.jsonl",
            touch=KILLED_AT,
        )
    assert len(lines_of(broken)) == 1, "the kill came too late"
    (folder / "labels.csv").touch()
    result = run_here(main_tf2, folder, broken, kind, "--validate")
    assert "going on after step" in result.stdout
    assert outcome(broken) == outcome(whole)
    assert (kind == "several") == (whole / "thresholds.csv").exists()


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_losses_of_one(kind, folder, main_tf2, start_process):
    alone, together = folder / f"alone-{kind}", folder / f"together-{kind}"
    run_here(main_tf2, folder, alone, kind, "--validate", **PLAIN)
    cluster = free_addresses(2)
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": cluster}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, "TF_CONFIG": json.dumps(task)}
        command = program(folder, together, kind, "--validate", **PLAIN)
        processes.append(start_process(*command, env=env))
    for process in processes:
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
    for one, two in zip(lines_of(alone), lines_of(together)):
        for name in ("loss", "minival_loss", "minival_ema_loss"):
            assert two[name] == pytest.approx(one[name], rel=1e-3)
    one, two = (json.loads((run / "eval.json").read_text())["ema"] for run in (alone, together))
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert set(one) == set(two)
