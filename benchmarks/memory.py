"""Measures host memory; out: a table and a CSV.

``python -m benchmarks.memory`` (five minutes on two cores): the most that a process held while it
trained, ours beside keras.applications and timm, one process each; and what the training's input
holds while images pass, which must stay flat (``--images=60000`` for as many as the test has).
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import pathlib
import resource
import tempfile
from functools import partial

import psutil
from absl import app, flags

from benchmarks.input_pipeline import our_stream
from benchmarks.measuring import KERAS, write
from benchmarks.photos import make_photos
from benchmarks.rivals import keras_training, timm_settings, timm_training
from benchmarks.train_step import batch, define_flags, ours
from efficientnetv2.report.tables import table

STEPS = 4
_MIB = 2**20
CONTESTANTS = {
    "ours": ours,
    KERAS: keras_training,
    **{
        setting: partial(timm_training, setting=setting)
        for setting in timm_settings()
        if not setting.endswith("channels_last")
    },
}


def peak_mib(name: str, network: str, size: int, count: int) -> float:
    """Returns the most memory that this process held, after some steps of one contestant."""
    call = CONTESTANTS[name](network, *batch(size, count))
    for _ in range(STEPS):
        call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def of_training(values: flags.FlagValues) -> list[list[str]]:
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in CONTESTANTS:
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            arguments = name, values.network, values.size, values.batch
            peak = pool.submit(peak_mib, *arguments).result()
        rows.append([f"training step, {name}", f"{peak:.0f}"])
    return rows


def of_input(images: int) -> list[list[str]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_photos(pathlib.Path(folder), crops=100)
        stream = our_stream(pathlib.Path(folder), size=48, batch_size=100)
        for step, _ in enumerate(stream.take(images // 100), start=1):
            if step * 100 % max(images // 6, 100) == 0:
                resident = psutil.Process().memory_info().rss / _MIB
                rows.append([f"input, {step * 100} images", f"{resident:.0f}"])
    return rows


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    rows = of_training(values) + of_input(values.images)
    header = ["what", "MiB of host memory"]
    print(table(header, rows))
    write(f"memory-{values.network}-{values.size}px-batch{values.batch}", header, rows)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_integer("images", 12_000, "that pass the input")
    app.run(main)
