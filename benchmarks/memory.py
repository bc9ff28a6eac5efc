"""Measures the host memory of training and of its input pipeline.

``python -m benchmarks.memory`` (five minutes on two cores) prints a table and writes a CSV: the
peak memory of a training process, for ours, keras.applications and timm; and the memory of the
input pipeline as images pass, which must stay flat (``--images=60000``: as many as in the test).
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
from benchmarks.measurement import KERAS, write
from benchmarks.photos import make_photos
from benchmarks.rivals import keras_training, timm_settings, timm_training
from benchmarks.train_step import batch, define_flags, ours
from efficientnetv2.reporting.tables import table

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
    """Returns the peak memory of this process after some training steps of one contestant."""
    call = CONTESTANTS[name](network, *batch(size, count))
    for _ in range(STEPS):
        call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def training_rows(values: flags.FlagValues) -> list[list[str]]:
    context = multiprocessing.get_context("spawn")
    rows = []
    for name in CONTESTANTS:
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            arguments = name, values.network, values.size, values.batch
            peak = pool.submit(peak_mib, *arguments).result()
        rows.append([f"training step, {name}", f"{peak:.0f}"])
    return rows


def input_rows(images: int) -> list[list[str]]:
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
    rows = training_rows(values) + input_rows(values.images)
    header = ["what", "MiB of host memory"]
    print(table(header, rows))
    write(f"memory-{values.network}-{values.size}px-batch{values.batch}", header, rows)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_integer("images", 12_000, "images that pass the input pipeline")
    app.run(main)
