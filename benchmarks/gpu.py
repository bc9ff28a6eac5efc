"""Measures images/s by batch size on a GPU, in one precision, with or without XLA.

Called by ``benchmarks/gpu.sh``; writes a CSV. The batch doubles until the memory is full; each
batch size runs in a process of its own. ``--table`` prints all files beside NVIDIA's numbers.
The authors have run it on a CPU only, because they had no GPU.
"""

from __future__ import annotations

import concurrent.futures
import csv
import multiprocessing
import pathlib
import resource
import statistics

import tensorflow as tf
from absl import app, flags
from tensorflow import keras

from benchmarks.measurement import seconds
from benchmarks.rivals import NETWORKS
from benchmarks.train_step import batch, our_trainer
from efficientnetv2 import for_inference, get_model
from efficientnetv2.reporting.tables import table

# EfficientNetV2-S on one A100, mixed precision: training at 300 px, inference at 384 px by batch.
# Source: NVIDIA DeepLearningExamples, TensorFlow2/Classification/ConvNets/efficientnet_v2, README.
PUBLISHED = {"training": {0: 950}, "inference": {1: 29, 8: 204, 32: 772, 128: 1674}}
TINY = "tiny"  # two blocks, to check that everything runs
BLOCKS = ["r1_k3_s2_e1_i16_o16_c1", "r1_k3_s2_e4_i16_o24_se0.25"]
NETWORKS_OR_TINY = {**{name: name for name in NETWORKS}, TINY: "b0"}
HEADER = ["what", "precision", "XLA", "px", "batch", "images/s", "peak MiB"]


def training(network: str, size: int, count: int, *, precision: str, xla: bool) -> object:
    """Returns a function that runs one step."""
    settings = {"train.precision": precision, "runtime.xla": xla}
    if network == TINY:
        settings["model.blocks_args"] = BLOCKS
    trainer = our_trainer(NETWORKS_OR_TINY[network], count, **settings)
    trainer.set_input(tf.data.Dataset.from_tensors(batch(size, count)).repeat())
    return lambda: trainer.train(1)


def inference(network: str, size: int, count: int, *, precision: str, xla: bool) -> object:
    """Returns a function that runs one batch."""
    keras.config.set_dtype_policy(precision if precision == "float32" else f"mixed_{precision}")
    overrides = {"blocks_args": BLOCKS} if network == TINY else None
    name = NETWORKS[NETWORKS_OR_TINY[network]][0]
    model = for_inference(get_model(name, overrides=overrides))
    run = tf.function(model, jit_compile=xla, autograph=False)
    images = tf.constant(batch(size, count)[0])
    return lambda: run(images).numpy()


KINDS = {"training": training, "inference": inference}


def rate(kind: str, steps: int, arguments: tuple, options: dict) -> tuple[float, float] | None:
    """Returns images/s and the peak MiB of one kind; None: out of memory."""
    try:
        call = KINDS[kind](*arguments, **options)
        for _ in range(3):  # traces, compiles, warms up
            call()
        median = statistics.median(seconds(call) for _ in range(steps))
    except tf.errors.ResourceExhaustedError:
        return None
    gpus = tf.config.list_logical_devices("GPU")
    peaks = [tf.config.experimental.get_memory_info(gpu.name)["peak"] / 2**20 for gpu in gpus]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return arguments[-1] / median, max(peaks, default=own)


def sweep(kind: str, counts: list[int], values: flags.FlagValues) -> list[list[str]]:
    """Returns the rows of one kind, up to the largest batch that the memory holds."""
    size = values.train_size if kind == "training" else values.eval_size
    options = {"precision": values.precision, "xla": values.xla}
    context = multiprocessing.get_context("spawn")
    rows = []
    for count in counts:
        with concurrent.futures.ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
            arguments = values.network, size, count
            try:
                result = pool.submit(rate, kind, values.steps, arguments, options).result()
            except concurrent.futures.process.BrokenProcessPool:
                result = None
        if result is None:
            print(f"{kind}: the memory does not hold {count} images of {size} px")
            break
        setting = [kind, values.precision, "on" if values.xla else "off", str(size), str(count)]
        rows.append([*setting, f"{result[0]:.1f}", f"{result[1]:.0f}"])
        print(*rows[-1], flush=True)
    return rows


def measure(values: flags.FlagValues) -> list[list[str]]:
    """Returns the rows of one precision."""
    counts = [values.first_batch]
    while counts[-1] * 2 <= values.last_batch:
        counts.append(counts[-1] * 2)
    rows = sweep("training", counts, values)
    return rows + sweep("inference", sorted(map(int, values.infer_batches)), values)


def main(argv: list[str]) -> None:
    """Measures, or prints the table."""
    del argv
    values = flags.FLAGS
    folder = pathlib.Path(values.folder)
    if values.table:
        rows = [row for path in sorted(folder.glob("*.csv")) for row in _read(path)]
        print(table([*HEADER, "NVIDIA, A100"], [[*row, _published(row)] for row in rows]))
        return
    name = f"{values.network}-{values.precision}-xla_{'on' if values.xla else 'off'}.csv"
    rows = measure(values)
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])


def _read(path: pathlib.Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def _published(row: list[str]) -> str:
    numbers = PUBLISHED[row[0]]
    return str(numbers.get(0, numbers.get(int(row[4]), "")))


if __name__ == "__main__":
    flags.DEFINE_enum("network", "s", sorted(NETWORKS_OR_TINY), "EfficientNetV2")
    flags.DEFINE_integer("train_size", 300, "pixels")
    flags.DEFINE_integer("eval_size", 384, "pixels")
    flags.DEFINE_integer("first_batch", 16, "images, doubled until the memory is full")
    flags.DEFINE_integer("last_batch", 4096, "images, at most")
    flags.DEFINE_list("infer_batches", ["1", "128"], "images")
    flags.DEFINE_integer("steps", 20, "timed calls of each")
    flags.DEFINE_string("precision", "float32", "train.precision")
    flags.DEFINE_bool("xla", False, "runtime.xla")
    flags.DEFINE_string("folder", "benchmarks/results/gpu", "of the CSV files")
    flags.DEFINE_bool("table", False, "print the table of all files, and measure nothing")
    app.run(main)
