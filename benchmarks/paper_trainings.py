"""Repeats the trainings of the paper's Tables 5, 12 and 13 in miniature, on Fashion-MNIST.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.paper_trainings --table=5 [--seeds=3] [--folder=FOLDER]

6,000 training images of 28 px, enlarged; top-1 of the moving average on the 10,000 test images.

- Table 5: a small network at 24, 40 or 64 px, with RandAugment of magnitude 5, 10 or 15.
- Table 12: ResNet-50, EfficientNet-B0 and EfficientNetV2-B0 at 64 px, against 32 to 64 px in four
  stages.
- Table 13: the small network with sizes of 24 to 64 px that grow or are random, each with one
  regularisation or with one that grows with the size.

The small network has 0.2 million parameters, so that a training takes about two minutes on two CPU
cores. Trainings take turns. A CSV keeps a row for each, so that the command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import efficientnetv2
from benchmarks.measurement import RESULTS, write_beside
from benchmarks.progressive import SCHEDULES
from benchmarks.time_to_accuracy import write_folder

NUM_IMAGES = 6000
# Whole images, batch and learning rate are those that --preset=auto chooses for such images.
COMMON: dict[str, Any] = {
    "train.isize": 64,
    "eval.isize": 64,
    "data.augname": "randaug",
    "data.ram_base": 0.0,
    "data.ram": 10.0,
    "data.mixup_alpha": 0.2,
    "train.stages": 4,
}
SMALL: dict[str, Any] = {
    **COMMON,
    "model.blocks_args": [
        "r1_k3_s1_e1_i16_o16_c1",
        "r1_k3_s2_e4_i16_o32_c1",
        "r2_k3_s2_e4_i32_o48_se0.25",
        "r2_k3_s2_e4_i48_o96_se0.25",
    ],
    "model.feature_size": 256,
    "model.dropout_base": 0.0,
    "model.dropout_rate": 0.3,
    "train.epochs": 10,
    "data.ibase": 24,
}
LARGE: dict[str, Any] = {**COMMON, "train.epochs": 8, "data.ibase": 32}
_SMALL_NAME, _SMALL_MODEL = "small", "efficientnetv2-b0"  # its blocks are replaced by SETTINGS'
KEYS = ("network", "case", "seed")


def table_5() -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the trainings of Table 5: (network, case) -> settings."""
    return {
        (_SMALL_NAME, f"{size} px, magnitude {magnitude}"): {
            **SMALL,
            **SCHEDULES["fixed"],
            "train.isize": size,
            "eval.isize": size,
            "data.ibase": size,
            "data.ram": float(magnitude),
        }
        for size in (24, 40, 64)
        for magnitude in (5, 10, 15)
    }


def table_12() -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the trainings of Table 12."""
    return {
        (model, case): {**LARGE, **SCHEDULES[schedule]}
        for model in ("resnet50", "efficientnet-b0", "efficientnetv2-b0")
        for case, schedule in (("one size", "fixed"), ("progressive", "progressive, adaptive"))
    }


def table_13() -> dict[tuple[str, str], dict[str, Any]]:
    """Returns the trainings of Table 13, and that of one size."""
    return {(_SMALL_NAME, name): {**SMALL, **settings} for name, settings in SCHEDULES.items()}


TABLES = {5: table_5, 12: table_12, 13: table_13}


def train(
    network: str, settings: Mapping[str, Any], data: pathlib.Path, *, seed: int
) -> dict[str, Any]:
    """Trains once; returns its seconds and its accuracies, 0..1."""
    with tempfile.TemporaryDirectory() as folder:
        run = efficientnetv2.train(
            _SMALL_MODEL if network == _SMALL_NAME else network,
            data,
            overrides=dict(settings),
            seed=seed,
            model_dir=pathlib.Path(folder) / "run",
        )
        return {
            "steps": run.history[-1]["step"],
            "seconds": round(sum(line["seconds"] for line in run.history), 1),
            "top1": round(run.metrics["raw"]["top1"], 4),
            "top1_ema": round(run.metrics["ema"]["top1"], 4),
        }


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a line for each case: means over the seeds, with their deviation."""
    lines = []
    for network, case in dict.fromkeys((row["network"], row["case"]) for row in rows):
        mine = [row for row in rows if (row["network"], row["case"]) == (network, case)]
        accuracies = [100 * float(row["top1_ema"]) for row in mine]
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        seconds = statistics.median(float(row["seconds"]) for row in mine)
        lines.append(
            f"{network}, {case}: {statistics.mean(accuracies):.2f} +- {deviation:.2f}%, "
            f"{seconds:.0f} s of {len(mine)} seeds"
        )
    return lines


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", type=int, choices=TABLES, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, help="where the images are kept")
    arguments = parser.parse_args()
    path = RESULTS / f"paper_table_{arguments.table}-fashion{NUM_IMAGES}-2cpu.csv"
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or pathlib.Path(temporary)).resolve() / f"fashion{NUM_IMAGES}"
        write_folder(folder, num_images=NUM_IMAGES)
        for seed in range(arguments.seeds):
            for (network, case), settings in TABLES[arguments.table]().items():
                row = {"network": network, "case": case, "seed": seed}
                done = {tuple(old[key] for key in KEYS) for old in _read(path)}
                if tuple(map(str, row.values())) in done:
                    continue
                row |= train(network, settings, folder, seed=seed)
                print(row, flush=True)
                write_beside([row], path, keys=KEYS)
    print("\n".join(summary(_read(path))))


if __name__ == "__main__":
    main()
