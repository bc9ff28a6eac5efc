"""Kills a training at random moments and checks that its results stay the same, bit by bit.

The command line trains a tiny network on digits: once undisturbed, then with N SIGKILLs spread over
start, steps, evaluations, saves and stage changes. The same command resumes each killed training;
at its end, weights, moving average, optimizer, metrics.jsonl (except for times), best/ and
eval.json must be those of the undisturbed training. Writes a CSV with a line for each kill; 100
kills take about half an hour on two cores.

    python -m benchmarks.crash 100 [--seed 0] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).parent.parent
BLOCKS = "[r1_k3_s1_e1_i8_o8_c1,r2_k3_s2_e4_i8_o16_c1,r2_k3_s2_e4_i16_o32_se0.25]"
SETTINGS = (
    f"model.blocks_args={BLOCKS},model.feature_size=64,model.survival_prob=0.8,train.epochs=8,"
    "train.stages=4,train.lr_base=0.02,train.lr_warmup_epoch=1,train.ema_decay=0.9,data.ibase=16,"
    "data.augname=randaug,data.mixup_alpha=0.2,runtime.keep_checkpoint_max=2,"
    "runtime.save_checkpoint_epochs=1"
)
TIME_KEYS = ("seconds", "images_per_second")
LIMIT_SECONDS = 300  # of one process
ENVIRONMENT = {**os.environ, "PYTHONFAULTHANDLER": "1"}  # SIGABRT prints the stacks
COLUMNS = ["kill", "training", "seconds", "in_training", "step", "epochs", "in_a_save", "same"]


def program(run: pathlib.Path) -> list[str]:
    """Returns the program that trains in ``run``, and its flags."""
    flags = ["--mode=traineval", "--model_name=efficientnetv2-b0", "--dataset_cfg=digits"]
    flags += [f"--data_dir={run.parent / 'data'}", f"--model_dir={run}"]
    return [str(ROOT / "main_tf2.py"), *flags, f"--hparam_str={SETTINGS}"]


def start(run: pathlib.Path) -> subprocess.Popen:
    """Starts a training in ``run`` in a new process."""
    return subprocess.Popen(
        [sys.executable, *program(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
    )


class Process:
    """A training in a process of its own, which is ended with its stacks if it hangs."""

    def __init__(self, run: pathlib.Path) -> None:
        self.run = run
        self.start = time.monotonic()
        self.errors = ""
        self.popen = start(run)
        self.limit = threading.Timer(LIMIT_SECONDS, self.popen.send_signal, [signal.SIGABRT])
        self.limit.start()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def wait_for_training(self) -> None:
        """Returns when the training is about to begin, or has ended."""
        for line in self.popen.stdout:
            if line.startswith("writing to"):
                break

    def kill_after(self, seconds: float, *, in_a_save: bool) -> bool:
        """Kills it, optionally in the middle of its next save; returns False if it ended before."""
        try:
            _, self.errors = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            while in_a_save and self.popen.poll() is None and not drafts(self.run):
                time.sleep(0.0005)
            self.popen.kill()
            _, self.errors = self.popen.communicate()
        self.limit.cancel()
        if self.popen.returncode != -signal.SIGKILL:
            self.require_success()
        return self.popen.returncode < 0

    def finish(self) -> None:
        _, self.errors = self.popen.communicate()
        self.limit.cancel()
        self.require_success()

    def require_success(self) -> None:
        if self.popen.returncode != 0:
            hung = self.popen.returncode == -signal.SIGABRT
            what = f"hung for {LIMIT_SECONDS} s" if hung else f"exit code {self.popen.returncode}"
            sys.exit(f"{what}: {self.errors}")


def undisturbed(run: pathlib.Path) -> tuple[float, float]:
    """Trains once; returns the seconds of the start-up, and those from then to the end."""
    process = Process(run)
    process.wait_for_training()
    built = process.seconds
    process.finish()
    return built, process.seconds - built


def tensors(path: pathlib.Path) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(path))
    names = reader.get_variable_to_shape_map()
    return {
        name: np.asarray(reader.get_tensor(name)).tobytes()
        for name in names
        if name != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def outcome(run: pathlib.Path) -> dict[str, object]:
    """Returns all that a finished training leaves, except for times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((run / "best" / "best.json").read_text())
    checkpoints = run / "checkpoints"
    last = max(int(path.stem.partition("-")[2]) for path in checkpoints.glob("*.index"))
    return {
        "names in checkpoints/": sorted(path.name for path in checkpoints.iterdir()),
        "names in best/": sorted(path.name for path in (run / "best").iterdir()),
        "metrics": [{k: v for k, v in line.items() if k not in TIME_KEYS} for line in lines],
        "best.json": best,
        "eval.json": json.loads((run / "eval.json").read_text()),
        **{f"last {k}": v for k, v in tensors(checkpoints / f"ckpt-{last}").items()},
        **{f"best {k}": v for k, v in tensors(run / "best" / best["checkpoint"]).items()},
    }


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))


def state(run: pathlib.Path) -> dict[str, object]:
    """Returns how far a killed training has come."""
    checkpoints = run / "checkpoints"
    steps = [int(path.stem.partition("-")[2]) for path in checkpoints.glob("*.index")]
    metrics = run / "metrics.jsonl"
    return {
        "step": max(steps, default=0),
        "epochs": metrics.read_text().count("\n") if metrics.exists() else 0,
        "in_a_save": bool(drafts(run)),
    }


def drafts(run: pathlib.Path) -> list[pathlib.Path]:
    """Returns the checkpoint files that are being written."""
    return [*(run / "checkpoints").glob("*.tmp"), *(run / "best").glob("*.tmp")]


def killed_training(
    run: pathlib.Path, *, kills: int, seconds: tuple[float, float], rng: random.Random
) -> list[dict[str, object]]:
    """Trains to the end with at most ``kills`` kills; returns a row for each kill."""
    rows: list[dict[str, object]] = []
    while True:
        process = Process(run)
        if len(rows) == kills:
            process.finish()
            return rows
        # Nothing is written during most of the start-up, so only one kill in ten is there. Saves
        # are short, so one kill in three waits for the next save.
        in_training, in_a_save = rng.random() < 0.9, rng.random() < 1 / 3
        if in_training:
            process.wait_for_training()
        moment = rng.uniform(0, seconds[in_training])
        if not process.kill_after(moment, in_a_save=in_training and in_a_save):
            return rows
        row = {"seconds": round(process.seconds, 1), "in_training": in_training, **state(run)}
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def write(rows: list[dict[str, object]], folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    versions = f"tf{tf.__version__}-py{platform.python_version()}"
    path = folder / f"crash-{len(rows)}kills-{os.cpu_count()}cpu-{versions}.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({"kill": number, **row} for number, row in enumerate(rows, start=1))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        seconds = undisturbed(folder / "undisturbed")
        expected = outcome(folder / "undisturbed")
        print(f"undisturbed: built in {seconds[0]:.1f} s, trained in {seconds[1]:.1f} s")
        training = 0
        while len(rows) < options.kills:
            training += 1
            run = folder / f"killed-{training}"
            left = options.kills - len(rows)
            new = killed_training(run, kills=left, seconds=seconds, rng=rng)
            wrong = differences(outcome(run), expected)
            same = f"differs in {', '.join(wrong)}" if wrong else "the same bits"
            print(f"training {training}, killed {len(new)} times: {same}", flush=True)
            rows += [{**row, "training": training, "same": not wrong} for row in new]
    print(f"written to {write(rows, options.out)}")
    return 0 if all(row["same"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
