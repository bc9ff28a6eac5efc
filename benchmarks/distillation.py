"""Compares a small network that learns from a larger one with the same network on its own.

EfficientNetV2-B0 learns scikit-learn's digits by their recipe, and teaches a network of 7,000
parameters; 360 test images. Writes a CSV; about ten minutes on two cores.

    python -m benchmarks.distillation [--seeds 3]
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from typing import Any

import efficientnetv2
from efficientnetv2.reporting.tables import write_csv

ROOT = pathlib.Path(__file__).parent.parent
STUDENT = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1", "r1_k3_s2_e2_i8_o16_c1", "r1_k3_s2_e2_i16_o24"],
    "model.feature_size": 64,
    "model.survival_prob": 1.0,
    "model.dropout_rate": 0.0,
    "model.dropout_base": 0.0,
    "train.epochs": 6,
    "train.batch_size": 64,
    "train.lr_base": 0.02,
    "train.ema_decay": 0.99,
    "train.stages": 1,
    "train.isize": 24,
    "eval.isize": 24,
}
WEIGHTS = (None, 0.5, 0.9)  # share of the teacher's term; None: no teacher


def train_student(
    teacher: pathlib.Path, weight: float | None, seed: int, folder: pathlib.Path
) -> dict[str, Any]:
    """Runs one training; returns its row of the CSV."""
    settings: dict[str, Any] = dict(STUDENT)
    if weight is not None:
        settings |= {"train.teacher": str(teacher), "train.distill_weight": weight}
    run = efficientnetv2.train(
        "efficientnetv2-b0",
        "digits",
        overrides=settings,
        seed=seed,
        model_dir=folder / f"student-{weight}-{seed}",
    )
    row = {
        "teacher": "none" if weight is None else "efficientnetv2-b0",
        "distill_weight": weight or 0.0,
        "seed": seed,
        "steps": run.history[-1]["step"],
        "seconds": round(sum(line["seconds"] for line in run.history), 1),
        "train_loss": round(run.history[-1]["loss"], 4),
        "top1": round(run.metrics["raw"]["top1"], 4),
        "top1_ema": round(run.metrics["ema"]["top1"], 4),
    }
    print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        teacher = efficientnetv2.train("efficientnetv2-b0", "digits", model_dir=folder / "teacher")
        top1 = {kind: values["top1"] for kind, values in teacher.metrics.items()}
        print(f"teacher: top-1 {top1['raw']:.4f}, EMA {top1['ema']:.4f}", flush=True)
        rows = [
            train_student(teacher.path, weight, seed, folder)
            for seed in range(arguments.seeds)
            for weight in WEIGHTS
        ]
    for weight in WEIGHTS:
        for key in ("top1", "top1_ema"):
            values = [row[key] for row in rows if row["distill_weight"] == (weight or 0.0)]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            mean = statistics.mean(values)
            print(f"teacher's share {weight}: {key} {mean:.4f} +- {deviation:.4f}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "distillation-digits-2cpu.csv"
    write_csv(rows, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
