"""Times one training step, ours beside keras.applications and timm.

``python -m benchmarks.train_step --network=b0 --size=192 --batch=16`` (two minutes on two cores)
prints a table and writes a CSV. All train the same network with RMSProp and momentum, in turns,
each in a process of its own; ours also computes its moving average and the L2 term.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow import keras

from benchmarks.contest import contest, times_of
from benchmarks.measurement import BF16_HEADER, HEADER, KERAS, rows, write
from benchmarks.rivals import NETWORKS, keras_training, timm_settings, timm_training
from efficientnetv2.model import layers
from efficientnetv2.reporting.tables import table
from efficientnetv2.train.learning_rate import build_learning_rate
from efficientnetv2.train.progressive import build_stages, stage_settings
from efficientnetv2.train.step import Trainer, build_trainer
from efficientnetv2.train.train_state import build_train_state
from hparams import resolve


def our_trainer(network: str, count: int, **settings: Any) -> Trainer:
    """Returns the trainer of a network, still without input; ``count`` images a step."""
    overrides = {"train.optimizer": "rmsprop", "model.bn_momentum": 0.9, **settings}
    config = resolve(NETWORKS[network][0], "imagenet2012", overrides)
    plan = build_stages(config, num_images=1_256_167)
    train_state = build_train_state(config, build_learning_rate(config, plan))
    schedule = stage_settings([dataclasses.replace(plan[-1], first_step=0, batch_size=count)])
    strategy = tf.distribute.get_strategy()
    return build_trainer(
        config, train_state, strategy, settings=schedule, after_step=lambda _: None
    )


def ours(
    network: str, images: np.ndarray, targets: np.ndarray, **settings: Any
) -> Callable[[], dict[str, float]]:
    """Returns a function that runs one step of our training."""
    keras.utils.set_random_seed(0)
    trainer = our_trainer(network, len(images), **settings)
    trainer.set_input(tf.data.Dataset.from_tensors((images, targets)).repeat())
    return lambda: trainer.train(1)


def plain(*arguments: Any) -> Callable[[], dict[str, float]]:
    """Returns the same with TensorFlow's kernels, without ``efficientnetv2/model/kernels.py``."""
    with mock.patch.dict(layers._CPU_KERNELS, clear=True):
        return ours(*arguments)


def batch(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns normalised noise ``[count, size, size, 3]`` and one-hot targets."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
    return images, np.eye(1000, dtype=np.float32)[rng.integers(0, 1000, count)]


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    arguments = (values.network, *batch(values.size, values.batch))
    makes = {
        "ours": partial(ours, *arguments),
        "ours, bf16": partial(ours, *arguments, **{"train.precision": "bfloat16"}),
        "ours, stock kernels": partial(plain, *arguments),
        KERAS: partial(keras_training, *arguments),
    }
    for setting in () if values.tensorflow_only else timm_settings():
        makes[setting] = partial(timm_training, *arguments, setting=setting)
    with contest(makes) as contestants:
        times = times_of(contestants, rounds=values.rounds)
    header = ["training step", *HEADER, *BF16_HEADER]
    lines = rows(times, images=values.batch, ours=("ours", "ours, bf16"))
    print(table(header, lines))
    write(f"train_step-{values.network}-{values.size}px-batch{values.batch}", header, lines)


def define_flags() -> None:
    """Defines the flags that this benchmark shares with those of inference, memory, ..."""
    flags.DEFINE_enum("network", "b0", sorted(NETWORKS), "EfficientNetV2")
    flags.DEFINE_integer("size", 192, "pixels")
    flags.DEFINE_integer("batch", 16, "images a call")
    flags.DEFINE_integer("rounds", 9, "turns of each", lower_bound=7)
    flags.DEFINE_bool("tensorflow_only", False, "leave timm out")


if __name__ == "__main__":
    define_flags()
    app.run(main)
