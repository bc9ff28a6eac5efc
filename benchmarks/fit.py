"""Compares progressive learning in Keras's ``model.fit`` with our own training.

Data, network, optimizer, steps and seeds are the same; loop and layers differ. A small network
learns scikit-learn's digits, at 16 to 32 px; 360 test images. Times are those of the processor, as
other programs may run beside. Writes a CSV.

    python -m benchmarks.fit [--seeds 3]
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
from tensorflow import keras

import efficientnetv2
from benchmarks.measurement import write
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.callbacks import TrainingCallback
from efficientnetv2.train.keras_fit import TrainingData, training_data
from efficientnetv2.train.loop import Training
from hparams.resolve import with_overrides

NETWORK: dict[str, object] = {
    "blocks_args": [
        "r1_k3_s1_e1_i16_o16_c1",
        "r2_k3_s2_e4_i16_o32_c1",
        "r2_k3_s2_e4_i32_o64_se0.25",
    ],
    "depth_coefficient": 1.0,
    "feature_size": 128,
    "survival_prob": 1.0,
    "dropout_rate": 0.3,
    "bn_momentum": 0.9,
}
# Adam, without moving average and weight decay, is the same in both.
OF_OUR_TRAINING = {"train.optimizer": "adam", "train.ema_decay": 0.0, "train.weight_decay": 0.0}
SETTINGS: dict[str, object] = {
    **{f"model.{key}": value for key, value in NETWORK.items()},
    "model.dropout_base": 0.1,
    "train.stages": 3,
    "data.ibase": 16,
    "data.augname": "randaug",
    "data.ram_base": 2.0,
    "data.ram": 8.0,
    "data.mixup_alpha": 0.2,
    "data.crop_area": [0.8, 1.0],
    "data.crop_aspect": [0.9, 1.1],
}
ARGUMENTS = {"epochs": 9, "image_size": 32, "batch_size": 64, "learning_rate": 0.012}
HEADER = ["loop", "seed", "steps", "to the end of the first epoch, cpu s", "later, cpu s", "top1"]


class FitClock(keras.callbacks.Callback):
    """Notes the CPU time at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.times = [time.process_time()]

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        del epoch, logs
        self.times.append(time.process_time())


class OurClock(TrainingCallback):
    """Notes the same."""

    def __init__(self) -> None:
        self.times = [time.process_time()]

    def epoch(self, line: dict) -> None:
        del line
        self.times.append(time.process_time())


def open_digits(seed: int) -> TrainingData:
    return training_data("digits", "efficientnetv2-b0", seed=seed, overrides=SETTINGS, **ARGUMENTS)


def by_fit(seed: int) -> tuple[keras.Model, list[float], int]:
    """Trains by Keras; returns the network, the clock's times, and the number of steps."""
    clock = FitClock()
    data = open_digits(seed)
    keras.utils.set_random_seed(seed)
    model = efficientnetv2.get_model(
        "efficientnetv2-b0", num_classes=10, overrides=NETWORK, for_training=True
    )
    model.compile(
        optimizer=keras.optimizers.Adam(data.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        metrics=["accuracy"],
    )
    callbacks = [*data.callbacks, clock]
    model.fit(data, epochs=data.epochs, callbacks=callbacks, shuffle=False, verbose=0)
    return model, clock.times, int(model.optimizer.iterations)


def by_our_training(seed: int) -> tuple[keras.Model, list[float], int]:
    """Trains by our own loop, checkpoints included; returns the same."""
    data = open_digits(seed)
    clock = OurClock()
    config = with_overrides(data.config, OF_OUR_TRAINING)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(pathlib.Path(folder))
        run.start(config, data.class_names)
        training = Training(config, data.source, run=run, callback=clock)
        training.run()
    return training.train_state.model, clock.times, training.train_state.step


LOOPS = {"ours": by_our_training, "model.fit": by_fit}


def top1(model: keras.Model, data: TrainingData) -> float:
    """Returns the accuracy on the test split."""
    right = [
        np.argmax(model(images, training=False), -1) == np.argmax(targets, -1)
        for images, targets in data.test
    ]
    return float(np.concatenate(right).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        for name, train in LOOPS.items():
            model, (start, first, *_, end), steps = train(seed)
            accuracy = top1(model, open_digits(seed))
            rows.append([name, seed, steps, first - start, end - first, accuracy])
            print(*rows[-1], flush=True)
    for name in LOOPS:
        *_, firsts, others, accuracies = zip(*(row for row in rows if row[0] == name))
        print(
            f"{name}: top-1 {statistics.mean(accuracies):.4f}; CPU time to the end of the first "
            f"epoch {statistics.mean(firsts):.1f} s, later {statistics.mean(others):.1f} s"
        )
    texts = [[*row[:3], *(f"{value:.1f}" for value in row[3:5]), f"{row[5]:.4f}"] for row in rows]
    write("fit-digits-32px", HEADER, texts)


if __name__ == "__main__":
    main()
