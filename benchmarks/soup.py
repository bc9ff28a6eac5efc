"""Compares the average of three fine-tunings with each of them: a model soup of the digits.

A network of 7,000 parameters is trained for four epochs on scikit-learn's digits; from these
weights, it is fine-tuned for four more with three seeds; 360 test images. Writes a CSV; about two
minutes of processor time for each start.

    python -m benchmarks.soup [--starts 2]
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from typing import Any

import efficientnetv2
from benchmarks.distillation import STUDENT
from efficientnetv2.reporting.tables import write_csv

ROOT = pathlib.Path(__file__).parent.parent
SEEDS = (0, 1, 2)  # of the fine-tunings
EPOCHS = 4
SOUPS = [
    (soup, batchnorm) for soup in ("uniform", "greedy") for batchnorm in ("estimated", "averaged")
]


def rows_of_start(start: int, folder: pathlib.Path) -> list[dict[str, Any]]:
    """Trains a start and its fine-tunings, and averages these; returns rows of the CSV."""
    first = efficientnetv2.train(
        "efficientnetv2-b0",
        "digits",
        overrides={**STUDENT, "train.epochs": EPOCHS},
        seed=100 + start,
        model_dir=folder / f"start-{start}",
    )
    rows, paths = [], []
    for seed in SEEDS:
        run = efficientnetv2.train(
            "efficientnetv2-b0",
            "digits",
            weights=first.path,
            overrides={**STUDENT, "train.epochs": EPOCHS},
            seed=seed,
            validate=True,
            model_dir=folder / f"tuned-{start}-{seed}",
        )
        paths.append(run.path)
        rows.append({"start": start, "what": f"seed {seed}", "top1": run.metrics["ema"]["top1"]})
    for soup, batchnorm in SOUPS:
        path = folder / f"soup-{start}-{soup}-{batchnorm}"
        average = efficientnetv2.average_weights(paths, path, soup=soup, batchnorm=batchnorm)
        metrics = average.evaluate()
        rows.append(
            {"start": start, "what": f"{soup}, {batchnorm}", "top1": metrics["raw"]["top1"]}
        )
    for row in rows:
        row["top1"] = round(row["top1"], 4)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = [
            row
            for start in range(arguments.starts)
            for row in rows_of_start(start, pathlib.Path(name))
        ]
    for what in dict.fromkeys(row["what"] for row in rows):
        values = [row["top1"] for row in rows if row["what"] == what]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{what}: top-1 {statistics.mean(values):.4f} +- {deviation:.4f}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "soup-digits-2cpu.csv"
    write_csv(rows, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
