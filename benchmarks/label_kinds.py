"""Trains on tables of labels: several classes an image, a number, and rare beside frequent classes.

Three data sets are made of scikit-learn's handwritten digits and of Fashion-MNIST:

- ``mosaics``: four digits in an image; its labels are which digits there are;
- ``angles``: a digit, turned by -60 to 60 degrees; its number is the angle;
- ``rare``: ten classes of Fashion-MNIST, of which the last has a hundredth of the images of the
  first, with each setting for rare classes in turn, three seeds each.

The test images are made of other digits than those of training. Each training is the command that
a user gives; a CSV file keeps the results.

    python -m benchmarks.label_kinds --data=mosaics
    python -m benchmarks.label_kinds --data=rare --seeds=3
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from benchmarks.time_to_accuracy import CLASSES, SOURCE, read_idx
from efficientnetv2.data.sources.digits import split_indices

ROOT = pathlib.Path(__file__).parent.parent
SIDE = 16  # pixels of a digit, made twice as large
MOSAICS, ANGLES = 2000, 2000  # training images
TESTS = 500
RATIO = 100  # images of the most frequent class to those of the rarest
MOST = 1000  # images of the most frequent class
RARE_SETTINGS = {
    "natural": "",
    "class weights": "train.class_weights=balanced",
    "sampling, root": "data.sampling=sqrt",
    "sampling, balanced": "data.sampling=balanced",
    "focal loss": "train.focal_gamma=2",
    "logit adjustment": "train.logit_adjustment=1",
}


def digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns split -> images uint8 ``[N, 16, 16]`` and their labels."""
    from sklearn.datasets import load_digits  # late, as its import takes a second

    loaded = load_digits()
    images = np.kron(np.uint8(loaded.images * 15), np.ones((2, 2), np.uint8))
    splits = split_indices(loaded.target)
    return {split: (images[index], loaded.target[index]) for split, index in splits.items()}


def write_mosaics(folder: pathlib.Path) -> list[str]:
    """Writes images of four digits, and a table of which there are; returns flags."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", MOSAICS), ("minival", TESTS), ("test", TESTS)):
        images, targets = digits()[split]
        for number in range(count):
            chosen = rng.integers(0, len(images), 4)
            lines = [np.concatenate(list(images[pair]), 1) for pair in (chosen[:2], chosen[2:])]
            name = f"{split}{number}.png"
            Image.fromarray(np.concatenate(lines)).save(folder / name)
            labels = "|".join(str(label) for label in sorted(set(targets[chosen])))
            rows.append([name, labels, split])
    _write_rows(folder, ["path", "labels", "split"], rows)
    return ["--hparam_str=data.flip=false"]


def write_angles(folder: pathlib.Path) -> list[str]:
    """Writes turned digits, and a table of their angles; returns flags."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", ANGLES), ("minival", TESTS), ("test", TESTS)):
        images, _ = digits()[split]
        for number in range(count):
            angle = rng.uniform(-60, 60)
            image = Image.fromarray(images[rng.integers(len(images))]).resize((32, 32), 3)
            name = f"{split}{number}.png"
            image.rotate(angle, 3).save(folder / name)
            rows.append([name, f"{angle:.2f}", split])
    _write_rows(folder, ["path", "angle", "split"], rows)
    return ["--target_columns=angle", "--hparam_str=data.flip=false"]


def write_rare(folder: pathlib.Path) -> list[str]:
    """Writes ten classes of fewer and fewer images, and a table of them; returns flags."""
    rng = np.random.default_rng(0)
    images, labels = read_idx("train-images-idx3-ubyte.gz"), read_idx("train-labels-idx1-ubyte.gz")
    order = rng.permutation(len(labels))
    rows = []
    for label, name in enumerate(CLASSES):
        own = order[labels[order] == label]
        count = round(MOST * RATIO ** (-label / (len(CLASSES) - 1)))
        parts = {"val": own[:50], "train": own[50:][:count]}
        rows += [[f"{i}.png", name, split] for split, part in parts.items() for i in part]
    for row in rows:
        Image.fromarray(images[int(row[0][:-4])]).save(folder / row[0])
    images, labels = read_idx("t10k-images-idx3-ubyte.gz"), read_idx("t10k-labels-idx1-ubyte.gz")
    for number in range(0, len(labels), 5):
        Image.fromarray(images[number]).save(folder / f"t{number}.png")
        rows.append([f"t{number}.png", CLASSES[labels[number]], "test"])
    _write_rows(folder, ["path", "label", "split"], rows)
    return []


def _write_rows(
    folder: pathlib.Path, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


WRITERS: Mapping[str, Callable[[pathlib.Path], list[str]]] = {
    "mosaics": write_mosaics,
    "angles": write_angles,
    "rare": write_rare,
}


def train(table: pathlib.Path, flags: Sequence[str], *, seed: int) -> dict[str, float]:
    """Trains as the flags say; returns the test metrics of the moving average, and the seconds."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as run:
        program = [sys.executable, str(ROOT / "main_tf2.py"), "train", str(table)]
        options = ["--model=efficientnetv2-b0", f"--seed={seed}", f"--model_dir={run}", *flags]
        subprocess.run([*program, *options], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        metrics = json.loads((pathlib.Path(run) / "eval.json").read_text())
    return {"seconds": seconds, **metrics["ema"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=WRITERS, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--flags", default="", help="more flags of each training")
    options = parser.parse_args()
    if options.data == "rare" and not SOURCE.is_dir():
        sys.exit(f"{SOURCE} does not exist: apt-get install dataset-fashion-mnist")
    name = f"label_kinds-{options.data}-{os.cpu_count()}cpu.csv"
    path = ROOT / "benchmarks" / "results" / name
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        flags = [*WRITERS[options.data](folder), *options.flags.split()]
        settings = RARE_SETTINGS if options.data == "rare" else {"": ""}
        for seed in range(options.seeds):
            for title, setting in settings.items():
                own = [f"--hparam_str={setting}"] if setting else []
                metrics = train(folder / "labels.csv", [*flags, *own], seed=seed)
                rows.append({"setting": title, "seed": seed, **metrics})
                print(rows[-1], flush=True)
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
    for title in settings:
        own_rows = [row for row in rows if row["setting"] == title]
        for metric in ("top1", "balanced_accuracy", "macro_f1", "map", "r2"):
            values = [float(str(row[metric])) for row in own_rows if metric in row]
            if values:
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                print(f"{title:20} {metric:18} {statistics.mean(values):.4f} +- {spread:.4f}")


if __name__ == "__main__":
    main()
