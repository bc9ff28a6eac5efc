"""Profiles a training step and an inference by kind of operation.

``python -m benchmarks.operations --network=b0 --size=192 --batch=16`` (a minute on two cores)
prints tables and writes a CSV. As operations run at the same time, their times add up to more than
that of the step. It also compares FLOP/s with the machine's limit, that of a large matrix product
(a backward pass counts as two forward passes).
"""

from __future__ import annotations

import collections
import pathlib
import statistics
import tempfile
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags

from benchmarks.inference import traced
from benchmarks.measurement import seconds, write
from benchmarks.rivals import NETWORKS
from benchmarks.train_step import batch, define_flags, ours, plain
from efficientnetv2 import for_inference, get_model
from efficientnetv2.model.complexity import multiply_adds
from efficientnetv2.reporting.tables import table

CALLS = 5
SHOWN = 16
# Events of the executor and of compiled functions; they contain those of operations.
NO_OPERATION = ("Run", "Process", "Start", "Done", "Record", "StartRegion", "StopRegion")
MATRIX = 2048


def operation_times(call: Callable[[], object]) -> dict[str, tuple[float, float]]:
    """Returns milliseconds and number of each kind of operation in one call, most costly first."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for _ in range(3):
        call()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(CALLS):
            call()
        tf.profiler.experimental.stop()
        file = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    cost, count = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            scope, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if scope and kind.isidentifier() and kind not in NO_OPERATION:
                cost[kind] += event.duration_ps / 1e9 / CALLS
                count[kind] += 1 / CALLS
    return {kind: (value, count[kind]) for kind, value in cost.most_common()}


def matrix_product_flops() -> float:
    """Returns the FLOP/s of a product of two large float32 matrices."""
    matrix = tf.random.normal([MATRIX, MATRIX])
    run = tf.function(lambda: tf.matmul(matrix, matrix)[0, 0])
    run()
    return 2 * MATRIX**3 / min(seconds(lambda: run().numpy()) for _ in range(9))


def report(name: str, call: Callable[[], object], *, flops: float) -> list[list[str]]:
    """Prints and returns the rows of one call, with its share of the machine's limit."""
    costs = operation_times(call)
    total = sum(cost for cost, _ in costs.values())
    median = statistics.median(seconds(call) for _ in range(9))
    limit = matrix_product_flops()
    rows = [
        [name, kind, f"{cost:.1f}", f"{cost / total:.1%}", f"{count:.0f}"]
        for kind, (cost, count) in list(costs.items())[:SHOWN]
    ]
    rows.append([name, "other", f"{total - sum(float(row[2]) for row in rows):.1f}", "", ""])
    print(table(["call", "operation", "ms", "share", "number"], rows))
    print(
        f"{name}: {median:.3f} s, {flops / median / 1e9:.0f} GFLOP/s; a matrix product does "
        f"{limit / 1e9:.0f}: {flops / median / limit:.0%}\n"
    )
    rows.append([name, "GFLOP/s", f"{flops / median / 1e9:.0f}", f"{flops / median / limit:.1%}"])
    return rows


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    images, targets = batch(values.size, values.batch)
    name = NETWORKS[values.network][0]
    fixed = get_model(name, input_shape=images.shape[1:])
    flops = 2.0 * multiply_adds(fixed) * values.batch
    rows = []
    for kind, build in {"training step, stock kernels": plain, "training step": ours}.items():
        rows += report(kind, build(values.network, images, targets), flops=3 * flops)
    for kind, model in {
        "inference, stock layers": fixed,
        "inference": for_inference(fixed),
    }.items():
        rows += report(kind, traced(model, images), flops=flops)
    header = ["call", "operation", "ms", "share", "number"]
    write(f"operations-{values.network}-{values.size}px-batch{values.batch}", header, rows)


if __name__ == "__main__":
    define_flags()
    app.run(main)
