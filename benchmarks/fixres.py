"""Measures what a larger size in evaluation gains, a last epoch at it, and the moving average.

EfficientNetV2-B0 is trained from scratch on crops of 16 photographs at 128 px, evaluated at 128 and
at 160 px, and once more after ``recipe="fixres"`` at 160 px; and trained at 104 px, the choice of
``preset="fast"``, and evaluated at 128 px. Writes a CSV.

    pip install --no-deps scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen --test_crops=400
    python -m benchmarks.fixres photos16 [--seeds=3] [--runs=FOLDER]
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from typing import Any

import efficientnetv2
from benchmarks.flag_types import existing_folder
from benchmarks.measurement import RESULTS, write_beside
from benchmarks.smallest_files import train

NETWORK, LARGER, SMALLER = "b0-photos16", 160, 104  # pixels; the network is trained at 128


def measure(photos: pathlib.Path, *, seed: int, runs: pathlib.Path) -> dict[str, Any]:
    """Trains, and trains once more at the larger size; returns the row of the CSV."""
    run = train(NETWORK, photos, seed=seed, model_dir=runs / f"{NETWORK}-{seed}")
    size = run.config.eval.isize
    larger = run.evaluate(image_size=LARGER, eval_name="larger")
    tuned = efficientnetv2.train(
        run.config.model.model_name,
        photos,
        recipe="fixres",
        weights=run.path,
        image_size=LARGER,
        seed=seed,
        model_dir=runs / f"{NETWORK}-{seed}-fixres",
    )
    small = train(
        NETWORK,
        photos,
        seed=seed,
        model_dir=runs / f"{NETWORK}-{seed}-small",
        changes={"train.isize": SMALLER},
    )
    row = {
        "seed": seed,
        f"raw, {size} px": run.metrics["raw"]["top1"],
        f"{size} px": run.metrics["ema"]["top1"],
        f"{LARGER} px": larger["ema"]["top1"],
        f"FixRes, {LARGER} px": tuned.metrics["ema"]["top1"],
        f"trained at {SMALLER} px, {size} px": small.metrics["ema"]["top1"],
        "seconds": _seconds(run),
        "seconds of FixRes": _seconds(tuned),
        f"seconds at {SMALLER} px": _seconds(small),
    }
    return {key: round(value, 4) for key, value in row.items()}


def _seconds(run: efficientnetv2.Run) -> float:
    return sum(line["seconds"] for line in run.history)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos", type=existing_folder)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=pathlib.Path, help="folder that keeps the runs")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        runs = arguments.runs or pathlib.Path(temporary)
        for seed in range(arguments.seeds):
            rows.append(measure(arguments.photos, seed=seed, runs=runs))
            print(rows[-1], flush=True)
            write_beside(rows, RESULTS / "fixres-photos16-2cpu.csv", keys=("seed",))
    for key in list(rows[0])[1:]:
        values = [row[key] for row in rows]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{key}: {statistics.mean(values):.4f} +- {deviation:.4f}")


if __name__ == "__main__":
    main()
