"""Times the training input, from JPEG files to batches.

``python -m benchmarks.input_pipeline`` (a minute on two cores) prints a table and writes a CSV. It
compares ours, with random crops, RandAugment (two operations, magnitude 15), mixup and CutMix, with
a plain tf.data pipeline: images decoded whole, cropped, resized, flipped, and RandAugment of
tf-models-official. Both read the same files and take turns.
"""

from __future__ import annotations

import pathlib
import tempfile

import tensorflow as tf
from absl import app, flags
from official.vision.ops.augment import RandAugment

from benchmarks.measurement import HEADER, in_turns, rows, seconds, write
from benchmarks.photos import make_photos
from efficientnetv2.data.decode import random_window
from efficientnetv2.data.sources import build_source
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.reporting.tables import table
from efficientnetv2.train.progressive import build_settings, build_stages
from hparams import resolve

BATCH = 50
BATCHES = 12  # in a timed call
MAGNITUDE = 15.0


def our_stream(folder: pathlib.Path, *, size: int, batch_size: int) -> tf.data.Dataset:
    """Returns the input of our training on a folder of photographs of two classes."""
    settings = {
        "data.data_dir": str(folder),
        "model.num_classes": 2,
        "data.train_split": "train",
        "train.batch_size": batch_size,
        "train.epochs": 100_000,
        "train.stages": 1,
        "train.isize": size,
        "data.ibase": size,
        "data.augname": "randaug",
        "data.ram": MAGNITUDE,
        "data.mixup_alpha": 0.2,
        "data.cutmix_alpha": 1.0,
    }
    config = resolve("efficientnetv2-s", "folder", settings)
    source = build_source(config)
    plan = build_stages(config, num_images=source.num_images("train"))
    phases = [Phase(0, 0, plan[0].steps_per_epoch, batch_size)]
    schedule = build_settings(config, plan)
    return build_training_input(config, source, phases=phases, settings=schedule).batches()


def plain_stream(folder: pathlib.Path, *, size: int, batch_size: int) -> tf.data.Dataset:
    """Returns a pipeline as in tutorials."""
    augment = RandAugment(num_layers=2, magnitude=MAGNITUDE)

    def prepare(path: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        seed = tf.stack([tf.constant(0, tf.int64), index])
        window = random_window(tf.shape(image)[:2], seed, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3))
        y, x, height, width = tf.unstack(window)
        image = tf.image.resize(image[y : y + height, x : x + width], [size, size])
        image = tf.image.stateless_random_flip_left_right(image, seed)
        return tf.cast(augment.distort(tf.cast(image, tf.uint8)), tf.float32) / 127.5 - 1.0

    paths = tf.data.Dataset.from_tensor_slices(sorted(map(str, folder.rglob("*.jpg"))))
    pairs = tf.data.Dataset.zip(paths.shuffle(1000).repeat(), tf.data.Dataset.range(tf.int64.max))
    images = pairs.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def steady(stream: tf.data.Dataset) -> float:
    """Returns the seconds of some batches; the first one, which includes the start, does not count.

    The iterator ends with the call, so that it prepares nothing while the other has its turn.
    """
    batches = iter(stream)
    next(batches)
    return seconds(lambda: [next(batches) for _ in range(BATCHES)])


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        photos = pathlib.Path(folder)
        make_photos(photos)
        for size in map(int, flags.FLAGS.sizes):
            streams = {
                "ours": our_stream(photos, size=size, batch_size=BATCH),
                "plain tf.data": plain_stream(photos, size=size, batch_size=BATCH),
            }
            times = in_turns(streams, rounds=flags.FLAGS.rounds, warm_up=0, clock=steady)
            lines += [[str(size), *row] for row in rows(times, images=BATCH * BATCHES)]
    header = ["px", "input", *HEADER]
    print(table(header, lines))
    write(f"input_pipeline-{'-'.join(flags.FLAGS.sizes)}px", header, lines)


if __name__ == "__main__":
    flags.DEFINE_list("sizes", ["128", "224", "300"], "pixels")
    flags.DEFINE_integer("rounds", 9, "timed calls of each, in turns", lower_bound=7)
    app.run(main)
