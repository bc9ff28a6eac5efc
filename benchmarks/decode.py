"""Times the decoding of training images: our window decoder beside decoding the whole image.

``python -m benchmarks.decode`` (a minute on two cores) prints a table and writes a CSV. Each image
is decoded, cropped at random (8% to 100% of its area), resized and flipped. The kinds take turns,
and the clock is the process's CPU time, so that other programs on the machine disturb little:
images/s are those of cores that do nothing else.
"""

from __future__ import annotations

import functools
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import app, flags

from benchmarks.measurement import write
from efficientnetv2.data.decode import decode_training, random_window
from efficientnetv2.data.image_formats import decode_image, decode_jpeg_window, read_jpeg_header
from efficientnetv2.reporting.tables import table

SIZES = flags.DEFINE_list("sizes", ["128", "224", "300"], "pixels")
ROUNDS = flags.DEFINE_integer("rounds", 15, "timed turns of each kind", lower_bound=3)
SECONDS = flags.DEFINE_float("seconds", 0.2, "length of one turn, about", lower_bound=0.01)
CORES = flags.DEFINE_integer("cores", os.cpu_count(), "images decoded at the same time")
PHOTO = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "photo_500x375.jpg"
CROP = {"area": (0.08, 1.0), "aspect": (3 / 4, 4 / 3)}


def whole(encoded: tf.Tensor, seed: tf.Tensor, *, image_size: int) -> tf.Tensor:
    image = decode_image(encoded)
    y, x, height, width = tf.unstack(random_window(tf.shape(image)[:2], seed, **CROP))
    return tf.image.resize(image[y : y + height, x : x + width], [image_size, image_size])


def window(encoded: tf.Tensor, seed: tf.Tensor, *, image_size: int) -> tf.Tensor:
    header = read_jpeg_header(encoded)
    drawn = random_window(header.size, seed, **CROP)
    image = decode_jpeg_window(encoded, drawn, header=header)
    return tf.image.resize(image, [image_size, image_size])


KINDS = {
    "whole, then cut": whole,
    "window, every pixel": window,
    "ours": functools.partial(decode_training, preprocess="v2", **CROP),
}


def photos() -> dict[str, bytes]:
    """Returns a photo of 500x375 and one of 12 megapixels, with the noise of a camera's sensor."""
    small = PHOTO.read_bytes()
    tf.random.set_seed(0)
    large = tf.image.resize(tf.io.decode_jpeg(small), [3000, 4000], "bicubic")
    noisy = large + tf.random.normal(large.shape, stddev=4.0)
    encoded = tf.io.encode_jpeg(tf.saturate_cast(noisy, tf.uint8), quality=90)
    return {"500x375": small, "4000x3000": encoded.numpy()}


def images(kind: Callable[..., tf.Tensor], encoded: bytes, *, size: int) -> Iterator[tf.Tensor]:
    """Returns an endless stream that decodes at most one image a core ahead of time."""

    def prepare(data: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(0, tf.int64), index])
        return tf.image.stateless_random_flip_left_right(kind(data, seed, image_size=size), seed)

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    repeated = tf.data.Dataset.from_tensors(encoded).repeat()
    pairs = tf.data.Dataset.zip(repeated, tf.data.Dataset.range(tf.int64.max))
    return iter(pairs.map(prepare, num_parallel_calls=CORES.value).with_options(options))


def seconds(stream: Iterator[tf.Tensor], count: int) -> float:
    """Returns the CPU seconds of ``count`` images, divided by the number of cores."""
    start = time.process_time()
    for _ in range(count):
        next(stream)
    return (time.process_time() - start) / CORES.value


def measure(encoded: bytes, *, size: int) -> dict[str, list[float]]:
    """Returns the images a second of every kind, turn by turn."""
    streams = {name: images(kind, encoded, size=size) for name, kind in KINDS.items()}
    for stream in streams.values():
        seconds(stream, 3)
    warm_up = 4
    slowest = max(seconds(stream, warm_up) for stream in streams.values()) / warm_up
    count = max(4, round(SECONDS.value / slowest))
    turns: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(ROUNDS.value):
        for name, stream in streams.items():
            turns[name].append(count / seconds(stream, count))
    return turns


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    rows = []
    for name, encoded in photos().items():
        for size in map(int, SIZES.value):
            turns = measure(encoded, size=size)
            rates = [f"{statistics.median(rates):.0f}" for rates in turns.values()]
            gains = [
                statistics.median(ours / other for ours, other in zip(turns["ours"], turns[kind]))
                for kind in KINDS
                if kind != "ours"
            ]
            kilobytes = str(len(encoded) // 1000)
            rows.append([name, kilobytes, str(size), *rates, *(f"{gain:.2f}" for gain in gains)])
    header = ["photo", "KB", "px", *KINDS, "ours / whole", "ours / every pixel"]
    print("images/s")
    print(table(header, rows))
    write(f"decode-{CORES.value}cores", header, rows)


if __name__ == "__main__":
    app.run(main)
