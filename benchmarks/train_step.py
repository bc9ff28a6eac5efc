"""Times one training step, ours beside keras.applications; out: a table and a CSV in results/.

``python -m benchmarks.train_step --size=192 --batch=16`` (B0; minutes on two cores). Both train the
same network with RMSProp and momentum on the same TensorFlow, in turns; ours also keeps its moving
average and the L2 term.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable

import tensorflow as tf
from absl import app, flags
from tensorflow import keras

from efficientnetv2.report.tables import table
from efficientnetv2.train.learner import build_learner
from efficientnetv2.train.schedules import build_learning_rate
from efficientnetv2.train.sizes import staged
from efficientnetv2.train.stages import build_stages
from efficientnetv2.train.step import Trainer
from hparams import resolve

SIZE = flags.DEFINE_integer("size", 192, "pixels")
BATCH = flags.DEFINE_integer("batch", 16, "images a step")
ROUNDS = flags.DEFINE_integer("rounds", 9, "timed steps of each, in turns", lower_bound=7)
RESULTS = pathlib.Path(__file__).parent / "results"


def ours(images: tf.Tensor, targets: tf.Tensor) -> Callable[[], None]:
    """Returns a function that runs one step of our training."""
    overrides = {"train.optimizer": "rmsprop", "model.bn_momentum": 0.9}
    config = resolve("efficientnetv2-b0", "imagenet2012", overrides)
    plan = build_stages(config, num_images=1_256_167)
    learner = build_learner(config, build_learning_rate(config, plan))
    settings = staged([dataclasses.replace(plan[-1], first_step=0, batch_size=len(images))])
    trainer = Trainer(
        learner,
        tf.distribute.get_strategy(),
        settings=settings,
        after_step=lambda _: None,
    )
    trainer.set_input(tf.data.Dataset.from_tensors((images, targets)).repeat())
    return lambda: trainer.train(1)


def keras_applications(images: tf.Tensor, targets: tf.Tensor) -> Callable[[], None]:
    """Returns a function that runs one step of Keras's own training of the same network."""
    model = keras.applications.EfficientNetV2B0(
        weights=None,
        include_preprocessing=False,
        classifier_activation=None,
        input_shape=tuple(images.shape[1:]),
    )
    model.compile(
        keras.optimizers.RMSprop(0.001, rho=0.9, momentum=0.9, epsilon=1e-3),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
    )
    return lambda: model.train_on_batch(images, targets)


def seconds(step: Callable[[], None]) -> float:
    """Returns the time of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    keras.utils.set_random_seed(0)
    images = tf.random.uniform([BATCH.value, SIZE.value, SIZE.value, 3], -1, 1)
    targets = tf.one_hot(tf.random.uniform([BATCH.value], 0, 1000, tf.int32), 1000)
    steps = {
        "ours": ours(images, targets),
        "keras.applications": keras_applications(images, targets),
    }
    first = {name: seconds(step) for name, step in steps.items()}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS.value):
        for name, step in steps.items():
            times[name].append(seconds(step))
    ratios = sorted(k / o for o, k in zip(times["ours"], times["keras.applications"]))
    header = ["step", "first step s", "median s", "images/s"]
    rows = [
        [name, f"{first[name]:.1f}", f"{median:.3f}", f"{BATCH.value / median:.1f}"]
        for name, median in ((name, statistics.median(values)) for name, values in times.items())
    ]
    print(table(header, rows))
    print(f"ours is {statistics.median(ratios):.2f}x as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    gpus = tf.config.list_physical_devices("GPU")
    device = f"{len(gpus)}gpu" if gpus else f"{os.cpu_count()}cpu"
    versions = f"tf{tf.__version__}-keras{keras.__version__}-py{platform.python_version()}"
    path = RESULTS / f"train_step-b0-{SIZE.value}px-batch{BATCH.value}-{device}-{versions}.csv"
    RESULTS.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows, ["ratio", "", statistics.median(ratios), ""]])
    print(f"written to {path.relative_to(pathlib.Path.cwd())}")


if __name__ == "__main__":
    app.run(main)
