"""Times how long a training waits at its start and when the image size changes.

``python -m benchmarks.stage_change --network=s`` (three minutes on two cores) prints a table and
writes a CSV. The wait is the time of the first step at a size, less that of a later step. Keras
takes images of any size too, but traces its step again for each size.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags

from benchmarks.measurement import seconds, write
from benchmarks.rivals import NETWORKS, keras_compiled
from benchmarks.train_step import batch, our_trainer
from efficientnetv2.reporting.tables import table

SIZES = (128, 160, 192)


def our_steps(network: str, count: int) -> Callable[[int], Callable[[], object]]:
    """Returns a function: size -> a step of our training at that size."""
    trainer = our_trainer(network, count)

    def at(size: int) -> Callable[[], object]:
        images, targets = batch(size, count)
        signature = tf.TensorSpec([count, None, None, 3]), tf.TensorSpec([count, 1000])
        data = tf.data.Dataset.from_generator(
            lambda: iter([(images, targets)]), output_signature=signature
        )
        trainer.set_input(data.cache().repeat())
        return lambda: trainer.train(1)

    return at


def keras_steps(network: str, count: int) -> Callable[[int], Callable[[], object]]:
    """Returns a function: size -> a step of Keras's training at that size."""
    model = keras_compiled(network, (None, None, 3))

    def at(size: int) -> Callable[[], object]:
        images, targets = batch(size, count)
        return lambda: model.train_on_batch(images, targets)

    return at


def waits(at: Callable[[int], Callable[[], object]]) -> list[float]:
    """Returns how many seconds longer the first step of each size takes than later ones."""
    extra = []
    for size in SIZES:
        step = at(size)
        first = seconds(step)
        extra.append(first - statistics.median(seconds(step) for _ in range(7)))
    return extra


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    arguments = values.network, values.batch
    waits_by_name = {
        "ours": waits(our_steps(*arguments)),
        "keras.applications": waits(keras_steps(*arguments)),
    }
    first, *later = SIZES
    header = ["waiting, s", f"first step, {first} px", *(f"change to {size} px" for size in later)]
    rows = [[name, *(f"{wait:.1f}" for wait in times)] for name, times in waits_by_name.items()]
    print(table(header, rows))
    write(f"stage_change-{values.network}-batch{values.batch}", header, rows)


if __name__ == "__main__":
    flags.DEFINE_enum("network", "s", sorted(NETWORKS), "EfficientNetV2")
    flags.DEFINE_integer("batch", 4, "images a step")
    app.run(main)
