"""Times the first step of a training and that of a new image size; out: a table and a CSV.

``python -m benchmarks.stage_change --network=s`` (three minutes on two cores). Keras takes images
of any size too, but traces its step anew for them. Of the first steps, the time of a later step of
that size is taken off: what stays is waiting.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags

from benchmarks.measuring import seconds, write
from benchmarks.rivals import NETWORKS, keras_compiled
from benchmarks.train_step import batch, our_trainer
from efficientnetv2.report.tables import table

SIZES = (128, 160, 192)


def our_steps(network: str, count: int) -> Callable[[int], Callable[[], object]]:
    """Returns: size -> a step of our training at that size."""
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
    """Returns: size -> a step of Keras's training at that size."""
    model = keras_compiled(network, (None, None, 3))

    def at(size: int) -> Callable[[], object]:
        images, targets = batch(size, count)
        return lambda: model.train_on_batch(images, targets)

    return at


def waits(at: Callable[[int], Callable[[], object]]) -> list[float]:
    """Returns the seconds that the first step of each size takes more than later ones."""
    found = []
    for size in SIZES:
        step = at(size)
        first = seconds(step)
        found.append(first - statistics.median(seconds(step) for _ in range(7)))
    return found


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    arguments = values.network, values.batch
    found = {
        "ours": waits(our_steps(*arguments)),
        "keras.applications": waits(keras_steps(*arguments)),
    }
    first, *later = SIZES
    header = ["waiting, s", f"first step, {first} px", *(f"change to {size} px" for size in later)]
    rows = [[name, *(f"{wait:.1f}" for wait in times)] for name, times in found.items()]
    print(table(header, rows))
    write(f"stage_change-{values.network}-batch{values.batch}", header, rows)


if __name__ == "__main__":
    flags.DEFINE_enum("network", "s", sorted(NETWORKS), "EfficientNetV2")
    flags.DEFINE_integer("batch", 4, "images a step")
    app.run(main)
