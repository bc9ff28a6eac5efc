"""Compares a fixed image size with progressive learning, with and without adaptive regularisation.

Network, steps, data and seeds are the same; only the schedule differs (as in Figure 6 and Table 13
of the paper, at a size that one machine trains in minutes). A small network is trained on
scikit-learn's digits, or EfficientNetV2-B0 on crops of 16 photographs, as ``--preset=fast`` does.
Writes a CSV and a plot of accuracy over training time.

    python -m benchmarks.progressive [--seeds 3] [--schedules NAME ...]

    pip install --no-deps scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen --test_crops=400
    python -m benchmarks.progressive --photos photos16 --schedules fixed "progressive, adaptive"

With ``--photos`` the preset chooses what is not given: ``--image_size`` (of evaluation),
``--first_size`` (of the first stage) and ``--epochs``.
"""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from benchmarks.flag_types import existing_folder
from hparams.overrides import Overrides, overrides_text

ROOT = pathlib.Path(__file__).parent.parent

# A small network, so that nine trainings take twenty minutes on two CPU cores. Half of the digits
# are for testing, because with few test images a single one weighs too much; the curve uses some of
# them. The settings were chosen while looking at these test images, with the first seed.
SETTINGS: dict[str, object] = {
    "model.blocks_args": [
        "r1_k3_s1_e1_i24_o24_c1",
        "r2_k3_s2_e4_i24_o48_c1",
        "r2_k3_s2_e4_i48_o64_c1",
        "r2_k3_s2_e4_i64_o128_se0.25",
    ],
    "model.feature_size": 256,
    "model.survival_prob": 0.9,
    "model.dropout_base": 0.0,
    "model.dropout_rate": 0.3,
    "train.epochs": 40,
    "train.batch_size": 64,
    "train.stages": 4,
    "train.isize": 96,
    "train.lr_base": 0.016,
    "train.lr_sched": "linear",
    "train.ema_decay": 0.98,
    "data.train_split": "train[:900]",
    "data.minival_split": "test",
    "data.eval_split": "train[900:]+minival+test",
    "data.ibase": 32,
    "data.augname": "randaug",
    "data.ram_base": 0.0,
    "data.ram": 10.0,
    "data.mixup_alpha": 0.2,
    "data.crop_area": [0.8, 1.0],
    "data.crop_aspect": [0.9, 1.1],
    "eval.isize": 96,
}
SCHEDULES: dict[str, dict[str, object]] = {
    "fixed": {"train.size_schedule": "fixed"},
    "progressive": {"train.adaptive_regularisation": False},
    "progressive, adaptive": {},
    "random": {"train.size_schedule": "random", "train.adaptive_regularisation": False},
    "random, adaptive": {"train.size_schedule": "random"},
}
COLOURS = {
    "fixed": "#6b6b6b",
    "progressive": "#d1791f",
    "progressive, adaptive": "#2b5c8a",
    "random": "#8a4f8f",
    "random, adaptive": "#4f8f5b",
}


def train(
    schedule: str, seed: int, folder: pathlib.Path, *, settings: Overrides, flags: Sequence[str]
) -> dict[str, object]:
    """Runs one training by the command line; returns its time, accuracies and curve."""
    run = folder / f"{schedule.replace(', ', '-')}-{seed}"
    text = overrides_text({**settings, **SCHEDULES[schedule], "train.seed": seed})
    command = [sys.executable, str(ROOT / "main_tf2.py"), "--mode=traineval", "--noarchive_ckpt"]
    command += ["--model_name=efficientnetv2-b0", f"--model_dir={run}", f"--hparam_str={text}"]
    subprocess.run([*command, *flags], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run / "eval.json").read_text())
    return {
        "schedule": schedule,
        "seed": seed,
        "steps": lines[-1]["step"],
        "seconds": sum(line["seconds"] for line in lines),
        "top1": result["raw"]["top1"],
        "top1_ema": result["ema"]["top1"],
        "curve": [(line["seconds"], line["minival_ema_top1"]) for line in lines],
    }


def plot(results: list[dict], path: pathlib.Path, *, digits: bool) -> None:
    """Plots accuracy over training time, one thin line for each seed."""
    from matplotlib.figure import Figure  # late, as its import takes half a second

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for schedule, colour in COLOURS.items():
        for row in (row for row in results if row["schedule"] == schedule):
            seconds, accuracy = np.array(row["curve"]).T
            label = schedule if row["seed"] == 0 else None
            axes.plot(np.cumsum(seconds), 100 * accuracy, color=colour, label=label, alpha=0.8)
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("top-1, EMA (%)")
    axes.set_ylim(80 if digits else 0, 100)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def report(results: list[dict]) -> None:
    """Prints means over the seeds, and the time saved against the first schedule."""

    def mean(schedule: str, key: str) -> float:
        return float(np.mean([row[key] for row in results if row["schedule"] == schedule]))

    schedules = list(dict.fromkeys(row["schedule"] for row in results))
    for schedule in schedules:
        saved = 1 - mean(schedule, "seconds") / mean(schedules[0], "seconds")
        print(
            f"{schedule:<22} {mean(schedule, 'seconds'):6.1f} s  time saved {saved:6.1%}  "
            f"top-1 {mean(schedule, 'top1'):.4f}  EMA {mean(schedule, 'top1_ema'):.4f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES)[:3])
    parser.add_argument("--photos", type=existing_folder, help="folder of benchmarks.photos")
    parser.add_argument("--image_size", type=int, help="of photographs in evaluation, pixels")
    parser.add_argument("--first_size", type=int, help="of photographs in the first stage, pixels")
    parser.add_argument("--epochs", type=int, help="of photographs")
    parser.add_argument("--name", default="progressive", help="beginning of the CSV file's name")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--plot", type=pathlib.Path, help="default: docs/images/NAME[-PHOTOS].png")
    arguments = parser.parse_args()
    choices = {
        "eval.isize": (arguments.image_size, "px"),
        "data.ibase": (arguments.first_size, "px"),
        "train.epochs": (arguments.epochs, "epochs"),
    }
    given = {key: choice for key, choice in choices.items() if choice[0]}
    if given and not arguments.photos:
        parser.error("--image_size, --first_size and --epochs are for --photos")
    settings, flags, data = SETTINGS, [], "digits"
    if arguments.photos:
        photos = arguments.photos.resolve()
        settings = {key: number for key, (number, _) in given.items()}
        flags = [f"--data_dir={photos}", "--preset=fast"]
        data = "-".join([photos.name, *(f"{number}{unit}" for number, unit in given.values())])
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(arguments.seeds):
            for schedule in arguments.schedules:
                place = pathlib.Path(folder)
                results.append(train(schedule, seed, place, settings=settings, flags=flags))
                print({k: v for k, v in results[-1].items() if k != "curve"}, flush=True)
    report(results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / f"{arguments.name}-{data}-cpu2.csv").open("w", newline="") as file:
        columns = ["schedule", "seed", "steps", "seconds", "top1", "top1_ema"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(results)
    images = ROOT / "docs" / "images"
    picture = f"{arguments.name}-{data}.png" if arguments.photos else f"{arguments.name}.png"
    plot(results, arguments.plot or images / picture, digits=not arguments.photos)


if __name__ == "__main__":
    main()
