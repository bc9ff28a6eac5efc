"""Measures how soon a network is good: here, with Keras, and with timm, on Fashion-MNIST.

Each trains EfficientNetV2-B0 from scratch at 64 px on the same folder of PNG files, evaluates on
the same 2,000 images after each epoch, and on the 10,000 test images at the end. The clock runs
from the start of the command. Trainings take turns, one at a time; write ``CSV`` and a picture.

    apt-get install dataset-fashion-mnist
    pip install -r requirements-bench.txt
    pip install --no-deps timm==1.0.31 torchvision==0.28.0
    python -m benchmarks.time_to_accuracy [--images=12000] [--epochs=8] [--seeds=3]

``--grid`` tries the learning rates of ``GRID`` for each rival first, on one seed and half of the
epochs, and takes the best; without it, ``--learning_rate`` is that of all.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import gzip
import itertools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
           "boot")  # fmt: skip
SIZE = 64
GRID = (0.001, 0.002, 0.004, 0.008)
GOALS = (0.80, 0.84, 0.87, 0.90)
VALIDATION = 2000
_EPOCH = re.compile(r"epoch +(\d+)/\d+ .* loss ([\d.]+) .* minival ([\d.]+)(?: +EMA ([\d.]+))?")


@dataclasses.dataclass(frozen=True)
class Point:
    """The state of a training at the end of an epoch.

    Attributes:
      epoch: from 1.
      seconds: since the start of the command.
      loss: mean training loss of the epoch.
      accuracy: top-1 on the validation images, 0..1.
    """

    epoch: int
    seconds: float
    loss: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Curve:
    """One training.

    Attributes:
      name: of the contestant.
      learning_rate: peak.
      seed: of the training.
      points: after each epoch.
      seconds: of the whole command.
      test: top-1 on the test images, 0..1.
    """

    name: str
    learning_rate: float
    seed: int
    points: Sequence[Point]
    seconds: float
    test: float

    def reaches(self, goal: float) -> float | None:
        """Returns the seconds after which the accuracy is at least ``goal``; None: never."""
        return next((point.seconds for point in self.points if point.accuracy >= goal), None)


def write_folder(folder: pathlib.Path, *, num_images: int) -> None:
    """Writes Fashion-MNIST as PNG files in ``train``, ``val`` and ``test``, a folder a class."""
    if (folder / "test").is_dir():
        return
    images, labels = _read("train-images-idx3-ubyte.gz", 16), _read("train-labels-idx1-ubyte.gz", 8)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"val": order[:VALIDATION], "train": order[VALIDATION:][:num_images]}
    for split, indices in parts.items():
        _write_split(folder / split, images, labels, indices)
    images, labels = _read("t10k-images-idx3-ubyte.gz", 16), _read("t10k-labels-idx1-ubyte.gz", 8)
    _write_split(folder / "test", images, labels, np.arange(len(labels)))


def _read(name: str, offset: int) -> np.ndarray:
    if not SOURCE.is_dir():
        sys.exit(f"{SOURCE} does not exist: apt-get install dataset-fashion-mnist")
    content = gzip.decompress((SOURCE / name).read_bytes())
    values = np.frombuffer(content, np.uint8, offset=offset)
    return values.reshape(-1, 28, 28) if "images" in name else values


def _write_split(
    folder: pathlib.Path, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
) -> None:
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for index in indices:
        image = Image.fromarray(images[index])
        image.save(folder / CLASSES[labels[index]] / f"{index:05d}.png")


def command(
    name: str,
    folder: pathlib.Path,
    *,
    model_dir: str,
    rate: float,
    seed: int,
    flags: argparse.Namespace,
) -> list[str]:
    """Returns the command of a contestant; ``model_dir`` is where ours writes."""
    if name.startswith("ours"):
        settings = f"train.seed={seed}"
        options = ["--validate", f"--model_dir={model_dir}"]
        options += [f"--epochs={flags.epochs}"] if name != "ours, by default" else []
        if name == "ours, one size":
            settings += ",train.size_schedule=fixed"
        program = [str(ROOT / "main_tf2.py"), "train", str(folder), "--model=efficientnetv2-b0"]
        return [sys.executable, *program, *options, f"--hparam_str={settings}"]
    module = "benchmarks.train_keras" if name == "Keras" else "benchmarks.train_timm"
    options = [f"--image_size={SIZE}", f"--epochs={flags.epochs}"]
    options += [f"--learning_rate={rate}", f"--seed={seed}"]
    options += ["--bf16"] if "bfloat16" in name else []
    python = flags.timm_python if name.startswith("timm") else sys.executable
    return [python, "-m", module, str(folder), *options]


def train(
    name: str, folder: pathlib.Path, *, rate: float, seed: int, flags: argparse.Namespace
) -> Curve:
    """Runs one training and notes when each epoch ends."""
    with tempfile.TemporaryDirectory() as model_dir:
        argv = command(name, folder, model_dir=model_dir, rate=rate, seed=seed, flags=flags)
        return _timed(argv, Curve(name, rate, seed, (), 0.0, 0.0))


def _timed(argv: Sequence[str], curve: Curve) -> Curve:
    """Returns a training's curve with what its command printed, and when."""
    start = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    points: list[Point] = []
    test = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        seconds = time.monotonic() - start
        match = _EPOCH.match(line)
        if match:
            epoch, loss, raw, ema = match.groups()
            points.append(Point(int(epoch), seconds, float(loss), float(ema or raw)))
        elif line.startswith(("EMA ", "raw ")):
            test = float(line.split()[1])
        elif line.startswith("{"):
            record = json.loads(line)
            test = record.get("test", test)
            if "epoch" in record:
                point = Point(record["epoch"], seconds, record["loss"], record["val"])
                points.append(point)
    if process.wait() != 0:
        sys.exit(f"{curve.name} ended with exit code {process.returncode}: {' '.join(argv)}")
    curve = dataclasses.replace(curve, points=points, seconds=time.monotonic() - start, test=test)
    print(
        f"{curve.name}, peak {curve.learning_rate:g}, seed {curve.seed}: "
        f"{curve.seconds:.0f} s, test {test:.4f}, "
        f"val {' '.join(f'{point.accuracy:.3f}' for point in points)}",
        flush=True,
    )
    return curve


def best_rate(name: str, folder: pathlib.Path, flags: argparse.Namespace) -> float:
    """Returns the learning rate of ``GRID`` that is best after half of the epochs."""
    short = argparse.Namespace(**{**vars(flags), "epochs": max(2, flags.epochs // 2)})
    curves = [train(name, folder, rate=rate, seed=0, flags=short) for rate in GRID]
    return max(curves, key=lambda curve: curve.points[-1].accuracy).learning_rate


def write_results(curves: Sequence[Curve], path: pathlib.Path) -> None:
    """Writes a line an epoch of each training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["contestant", "peak", "seed", "epoch", "seconds", "loss", "val", "test at the end"]
        )
        for curve in curves:
            for p in curve.points:
                test = f"{curve.test:.4f}" if p is curve.points[-1] else ""
                row = [curve.name, curve.learning_rate, curve.seed, p.epoch, f"{p.seconds:.1f}"]
                writer.writerow([*row, f"{p.loss:.4f}", f"{p.accuracy:.4f}", test])
    print(f"written to {os.path.relpath(path)}", flush=True)


def draw(curves: Sequence[Curve], path: pathlib.Path, *, title: str) -> None:
    """Draws accuracy over time, a line a training."""
    from matplotlib.figure import Figure

    from efficientnetv2.reporting.figures import BLUE, GREY, ORANGE, plain_axes, save_figure

    names = list(dict.fromkeys(curve.name for curve in curves))
    colours = dict(zip(names, (BLUE, ORANGE, GREY, "#9b3d3d", "#3d7d4a")))
    with plain_axes():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for name in names:
            label: str | None = name
            for curve in curves:
                if curve.name != name:
                    continue
                minutes = [point.seconds / 60 for point in curve.points]
                shares = [100 * point.accuracy for point in curve.points]
                axes.plot(minutes, shares, ".-", color=colours[name], label=label)
                label = None
        axes.set(xlabel="minutes since the start of the command", ylabel="top-1 (%)", title=title)
        axes.legend(loc="lower right", frameon=False)
        save_figure(figure, path)


def summary(curves: Sequence[Curve]) -> list[str]:
    """Returns a line a contestant: medians of its seconds to each goal, and its test accuracy."""
    lines = []
    for name, group in itertools.groupby(sorted(curves, key=lambda c: c.name), lambda c: c.name):
        trainings = list(group)
        parts = []
        for goal in GOALS:
            times = [curve.reaches(goal) for curve in trainings]
            reached = [seconds for seconds in times if seconds is not None]
            if len(reached) == len(times):
                parts.append(f"{statistics.median(reached):.0f} s to {goal:.0%}")
        tests = [curve.test for curve in trainings]
        deviation = statistics.stdev(tests) if len(tests) > 1 else 0.0
        whole = statistics.median(curve.seconds for curve in trainings)
        parts.append(f"{whole:.0f} s in all, test {statistics.mean(tests):.4f} +- {deviation:.4f}")
        lines.append(f"{name}: {', '.join(parts)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contestants", default="ours,Keras,timm bfloat16,timm float32")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--learning_rate", type=float, default=0.004)
    parser.add_argument("--timm_python", default=sys.executable, help="of another environment")
    parser.add_argument("--folder", type=pathlib.Path, help="where the images are kept")
    flags = parser.parse_args()
    names = flags.contestants.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (flags.folder or pathlib.Path(temporary)).resolve() / f"fashion{flags.images}"
        write_folder(folder, num_images=flags.images)
        rates = {
            name: best_rate(name, folder, flags)
            if flags.grid and not name.startswith("ours")
            else flags.learning_rate
            for name in names
        }
        curves: list[Curve] = []
        stem = f"time_to_accuracy-fashion{flags.images}-{os.cpu_count()}cpu"
        for seed, name in itertools.product(range(flags.seeds), names):
            curves.append(train(name, folder, rate=rates[name], seed=seed, flags=flags))
            write_results(curves, ROOT / "benchmarks" / "results" / f"{stem}.csv")
    print("\n".join(summary(curves)))
    title = f"EfficientNetV2-B0 from scratch on {flags.images:,} images of Fashion-MNIST"
    draw(curves, ROOT / "docs" / "images" / "time_to_accuracy.png", title=title)


if __name__ == "__main__":
    main()
