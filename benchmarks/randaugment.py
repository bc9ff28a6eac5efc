"""Times RandAugment in an input pipeline, ours beside tf-models-official, and other policies.

``python -m benchmarks.randaugment`` (three minutes on two idle cores) prints three tables and
writes a CSV of the last two. Two operations of magnitude 15 are applied to uint8 images of 128 and
300 pixels, mapped and batched as in training. The implementations take turns over the same
photograph. The first table is the CPU time of each augmentation that a setting turns on
(``--costs`` prints it alone), the last that of each operation of RandAugment.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping

import tensorflow as tf
from absl import app, flags
from official.vision.ops.augment import RandAugment
from sklearn.datasets import load_sample_image

from benchmarks.measurement import write
from efficientnetv2.data import augment
from efficientnetv2.data.augment import OP_TABLES, auto_augment, rand_augment, trivial_augment
from efficientnetv2.data.default_ops import Op
from efficientnetv2.reporting.tables import table

SIZES = flags.DEFINE_multi_integer("size", [128, 300], "pixels")
MAGNITUDE = flags.DEFINE_float("magnitude", 15.0, "RandAugment magnitude")
ROUNDS = flags.DEFINE_integer("rounds", 15, "timed passes of each, in turns", lower_bound=7)
IMAGES = flags.DEFINE_integer("images", 300, "images a pass at 300 pixels, more at fewer pixels")
COSTS = flags.DEFINE_bool("costs", False, "print the costs of the augmentations alone")
PEER = "tf-models-official"
BATCH = 20

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # image, seed -> image


def implementations() -> dict[str, Augment]:
    """Returns name -> implementation; that of tf-models-official ignores the seed."""
    peer = RandAugment(num_layers=2, magnitude=MAGNITUDE.value)

    def ours(ops: str) -> Augment:
        return lambda image, seed: rand_augment(image, seed, magnitude=MAGNITUDE.value, ops=ops)

    return {
        PEER: lambda image, _: peer.distort(image),
        "ours, official ops": ours("official"),
        "ours, default ops": ours("default"),
        "AutoAugment": auto_augment,
        "TrivialAugment": trivial_augment,
    }


def single_operations(ops: str) -> dict[str, Augment]:
    """Returns each operation of one of our tables, with fixed centre and sign, and the identity."""
    magnitude, sign, centre = tf.constant(MAGNITUDE.value), tf.constant(1.0), [0.4, 0.6]

    def single(op: Op) -> Augment:
        return lambda image, _: op(
            image, magnitude=magnitude, sign=sign, centre=tf.constant(centre)
        )

    operations = {name: single(op) for name, op in OP_TABLES[ops].randaugment.items()}
    return {"none": lambda image, _: image, **operations}


def augmentations() -> dict[str, Augment]:
    """Returns what each setting does to an image, RandAugment beside it; and the identity."""

    def on_floats(function: Augment) -> Augment:  # flips and rotations come before the rounding
        return lambda image, seed: function(tf.cast(image, tf.float32), seed)

    def jitter(*strengths: float) -> Augment:
        return lambda image, seed: augment.color_jitter(image, seed, strengths=strengths)

    return {
        "none": lambda image, _: image,
        "RandAugment": lambda image, seed: rand_augment(image, seed, magnitude=MAGNITUDE.value),
        "AugMix": lambda image, seed: augment.aug_mix(image, seed, magnitude=MAGNITUDE.value),
        "colour jitter": jitter(0.4, 0.4, 0.4, 0.0),
        "colour jitter with hue": jitter(0.4, 0.4, 0.4, 0.1),
        "vertical flip": on_floats(augment.flip_vertically),
        "quarter turns": on_floats(augment.turn_quarters),
        "rotation": on_floats(functools.partial(augment.rotate, degrees=180.0)),
    }


def photograph(size: int) -> tf.Tensor:
    """Returns a square of a real photograph, uint8 ``[size, size, 3]``."""
    whole = load_sample_image("china.jpg")[:, 106:533]
    return tf.cast(tf.image.resize(whole, [size, size]), tf.uint8)


def one_pass(function: Augment, image: tf.Tensor, *, images: int, calls: int) -> Callable[[], None]:
    """Returns a function that augments ``images`` images (whole batches), ``calls`` at a time."""

    @tf.autograph.experimental.do_not_convert
    def prepare(index: tf.Tensor) -> tf.Tensor:
        # The graph does not know the size, as in training, where it changes between stages.
        dynamic = tf.compat.v1.placeholder_with_default(image, [None, None, 3])
        return function(dynamic, tf.stack([1, index]))

    # One stream serves all passes, so that none pays for its setup; only the calls in flight are
    # prepared ahead of their pass.
    data = tf.data.Dataset.range(tf.int64.max).map(prepare, num_parallel_calls=calls).batch(BATCH)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False
    stream = iter(data.with_options(options))

    def step(count: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([stream.get_next()]):
            return count + 1

    batches = images // BATCH
    run = tf.function(lambda: tf.while_loop(lambda n: n < batches, step, [0]), autograph=False)
    run()
    return run


def timed(
    passes: Mapping[str, Callable[[], None]], clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Returns the seconds of every pass, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(ROUNDS.value):
        for name, run in passes.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
    return seconds


def compare(size: int) -> list[list[str]]:
    """Returns rows: size, implementation, images/s, ratio to tf-models-official, its range."""
    images = IMAGES.value * 300 // size // BATCH * BATCH
    passes = {
        name: one_pass(function, photograph(size), images=images, calls=tf.data.AUTOTUNE)
        for name, function in implementations().items()
    }
    seconds = timed(passes, time.perf_counter)
    rows = []
    for name, values in seconds.items():
        ratios = sorted(peer / own for peer, own in zip(seconds[PEER], values))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        speed = f"{images / statistics.median(values):.0f}"
        rows.append([str(size), name, speed, f"{statistics.median(ratios):.2f}", spread])
    return rows


def cpu_times(
    operations: Mapping[str, Augment], size: int, statistic: Callable[[list[float]], float]
) -> dict[str, float]:
    """Returns operation -> CPU microseconds for an image, less those of an empty map, "none".

    Args:
      operations: what to time.
      size: pixels.
      statistic: of the passes; other programs disturb the fastest least.
    """
    images = max(20, IMAGES.value * 60 // size)
    passes = {
        name: one_pass(function, photograph(size), images=images, calls=1)
        for name, function in operations.items()
    }
    seconds = timed(passes, time.process_time)
    times = {name: statistic(values) / images * 1e6 for name, values in seconds.items()}
    empty = times.pop("none")
    return {name: value - empty for name, value in times.items()}


def print_costs() -> None:
    """Prints the CPU time of each augmentation, the median of all passes."""
    columns = [cpu_times(augmentations(), size, statistics.median) for size in SIZES.value]
    header = ["augmentation, CPU us", *(f"{size}px" for size in SIZES.value)]
    rows = [[name, *(f"{times[name]:.0f}" for times in columns)] for name in columns[0]]
    print(table(header, rows))


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    tf.get_logger().setLevel("ERROR")  # it warns that the passes are retraced, which is intended
    print_costs()
    if COSTS.value:
        return
    header = ["size", "policy", "images/s", f"x {PEER}", "from to"]
    rows = [row for size in SIZES.value for row in compare(size)]
    print(table(header, rows))
    columns = {
        (size, ops): cpu_times(single_operations(ops), size, min)
        for size in SIZES.value
        for ops in OP_TABLES
    }
    op_header = ["operation, CPU us", *(f"{ops} {size}px" for size, ops in columns)]
    op_rows = [
        [name, *(f"{times[name]:.0f}" for times in columns.values())]
        for name in OP_TABLES["default"].randaugment
    ]
    op_rows.append(["mean", *(f"{statistics.mean(t.values()):.0f}" for t in columns.values())])
    print(table(op_header, op_rows))
    sizes = "-".join(f"{size}px" for size in SIZES.value)
    write(f"randaugment-{sizes}", header, [*rows, op_header, *op_rows])


if __name__ == "__main__":
    app.run(main)
