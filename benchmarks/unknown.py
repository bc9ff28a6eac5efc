"""Measures how images of none of the classes are recognised, and what calibration does.

EfficientNetV2-B0 learns scikit-learn's digits by their recipe without two of the ten classes; the
images of these two are unknown. Writes a CSV; one training takes one to two minutes on two free
cores.

    python -m benchmarks.unknown [--seeds 3] [--left_out 3,8] [--epochs 32]
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image
from sklearn import datasets

import efficientnetv2
from benchmarks.measurement import write_beside
from efficientnetv2.data.sources.digits import split_indices
from hparams.datasets import DATASETS

ROOT = pathlib.Path(__file__).parent.parent
MODEL = "efficientnetv2-b0"
FOLDERS = {"train": "train", "minival": "val", "test": "test"}


def write_digits(folder: pathlib.Path) -> None:
    """Writes the digits as PNG files, with the splits of the data set ``digits``."""
    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for split, indices in split_indices(digits.target).items():
        for index in indices:
            path = folder / FOLDERS[split] / str(digits.target[index]) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(path)


def measure(
    data: pathlib.Path, left_out: str, seed: int, folder: pathlib.Path, *, epochs: int | None
) -> dict[str, Any]:
    """Trains without some classes; returns a row of the CSV."""
    row = DATASETS.get("digits")
    recipe = {**row.recipe, **row.model_recipes[MODEL]}
    settings = {key: value for key, value in recipe.items() if not key.startswith("search.")}
    settings |= {"train.preset": "none", "data.leave_out": left_out.split(",")}
    if epochs is not None:
        settings["train.epochs"] = epochs
    run = efficientnetv2.train(
        MODEL,
        data,
        overrides=settings,
        seed=seed,
        model_dir=folder / f"{left_out}-{seed}",
    )
    metrics = run.evaluate(eval_name="again")["ema"]
    names = ("images", "top1", "ece", "ece_calibrated", "loss", "nll_calibrated")
    unknown = [name for name in metrics if "unknown" in name or "rejected" in name]
    result: dict[str, Any] = {"left_out": left_out.replace(",", " "), "seed": seed}
    result["epochs"] = run.config.train.epochs
    result |= {name: round(metrics[name], 4) for name in (*names, *unknown)}
    print(" ".join(f"{key}={value}" for key, value in result.items()), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--left_out", default="3,8")
    parser.add_argument("--epochs", type=int, help="not those of the recipe, 16")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    path = arguments.out / f"unknown-digits-{arguments.left_out.replace(',', '')}-2cpu.csv"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_digits(folder / "digits")
        for seed in range(arguments.seeds):
            row = measure(
                folder / "digits", arguments.left_out, seed, folder, epochs=arguments.epochs
            )
            write_beside([row], path, keys=("left_out", "seed", "epochs"))


if __name__ == "__main__":
    main()
