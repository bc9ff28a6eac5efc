"""Trains as a Keras user does, for ``benchmarks.time_to_accuracy``: one JSON line an epoch.

    python -m benchmarks.train_keras FOLDER --image_size=64 --epochs=8 --learning_rate=0.004

The folder holds ``train``, ``val`` and ``test``, each with a folder a class.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras

from benchmarks.rival_flags import training_flags


class Lines(keras.callbacks.Callback):
    """Prints a line an epoch."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        assert logs is not None
        line = {"epoch": epoch + 1, "loss": logs["loss"], "val": logs["val_accuracy"]}
        print(json.dumps(line), flush=True)


def build_model(flags: argparse.Namespace, *, num_classes: int) -> keras.Model:
    """Returns EfficientNetV2-B0, or the network of a file with a new classifier."""
    if flags.weights is None:
        return keras.applications.EfficientNetV2B0(
            weights=None,
            classes=num_classes,
            input_shape=(flags.image_size, flags.image_size, 3),
            classifier_activation=None,
        )
    network = keras.models.load_model(flags.weights, compile=False)
    features = network.get_layer("predictions").input
    outputs = keras.layers.Dense(num_classes)(features)
    body = keras.Model(network.input, outputs)
    pixels = keras.Input((flags.image_size, flags.image_size, 3))
    return keras.Model(pixels, body(keras.layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)))


def main() -> None:
    flags = training_flags(__doc__.split("\n")[0]).parse_args()

    keras.utils.set_random_seed(flags.seed)
    images = {
        split: keras.utils.image_dataset_from_directory(
            flags.folder / split,
            image_size=(flags.image_size, flags.image_size),
            batch_size=flags.batch_size,
            shuffle=split == "train",
            seed=flags.seed,
            verbose=False,
        )
        for split in ("train", "val", "test")
    }
    augment = keras.Sequential(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomTranslation(0.1, 0.1)]
    )
    train = (
        images["train"]
        .cache()
        .map(lambda pixels, labels: (augment(pixels, training=True), labels), num_parallel_calls=2)
    )
    model = build_model(flags, num_classes=len(images["train"].class_names))
    steps = len(images["train"])
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps * (flags.epochs - 1), warmup_target=flags.learning_rate, warmup_steps=steps
    )
    model.compile(
        keras.optimizers.AdamW(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        train.prefetch(2),
        epochs=flags.epochs,
        validation_data=images["val"].cache().prefetch(2),
        callbacks=[Lines()],
        verbose=0,
    )
    print(json.dumps({"test": model.evaluate(images["test"], verbose=0)[1]}), flush=True)


if __name__ == "__main__":
    main()
