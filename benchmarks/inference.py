"""Times inference, ours beside keras.applications and timm.

``python -m benchmarks.inference --network=b0 --size=192 --batch=16`` (a minute on two cores) prints
a table and writes a CSV. All take turns, each in a process of its own. Ours is ``for_inference`` in
a ``tf.function``, after ``set_inference_threads``; the others keep their default threads. Keras's
model runs in a ``tf.function`` and by ``predict``. Ours and Keras's have the same weights, and
their logits must agree to 1e-4.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow import keras

from benchmarks.contest import Make, contest, times_of
from benchmarks.measurement import BF16_HEADER, HEADER, KERAS, rows, write
from benchmarks.rivals import NETWORKS, Call, keras_network, timm_inference, timm_settings
from benchmarks.train_step import batch, define_flags
from efficientnetv2 import for_inference, get_model, set_inference_threads
from efficientnetv2.reporting.tables import table

TOLERANCE = 1e-4


def traced(model: keras.Model, images: np.ndarray) -> Call:
    """Returns a function that runs the model on a batch."""
    run = tf.function(lambda values: model(values, training=False), autograph=False)
    inputs = tf.constant(images)
    return lambda: run(inputs).numpy()


def with_real_statistics(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Sets the BatchNormalization statistics to those of a batch, so that the logits vary."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    return model


def networks(network: str, images: np.ndarray) -> tuple[keras.Model, keras.Model]:
    """Returns ours and that of Keras, with the same weights in every process."""
    keras.utils.set_random_seed(0)
    theirs = with_real_statistics(keras_network(network, images.shape[1:]), images)
    own = get_model(NETWORKS[network][0])
    own.set_weights(theirs.get_weights())
    return own, theirs


def ours(
    network: str, images: np.ndarray, *, precision: str = "float32", in_parts: bool = True
) -> Call:
    """Returns our inference; ``in_parts``: after ``set_inference_threads``."""
    if in_parts:
        set_inference_threads()
    own, _ = networks(network, images)
    return traced(for_inference(own, precision=precision), images)


def stock(network: str, images: np.ndarray) -> Call:
    """Returns the inference of our network as built, without ``for_inference``."""
    return traced(networks(network, images)[0], images)


def theirs(network: str, images: np.ndarray) -> Call:
    """Returns the inference of Keras's network."""
    return traced(networks(network, images)[1], images)


def keras_predict(network: str, images: np.ndarray) -> Call:
    """Returns the inference of Keras's network by ``predict``."""
    model = networks(network, images)[1]
    return lambda: model.predict(images, batch_size=len(images), verbose=0)


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    arguments = values.network, batch(values.size, values.batch)[0]
    makes: dict[str, Make] = {
        "ours": partial(ours, *arguments),
        "ours, bf16": partial(ours, *arguments, precision="bfloat16"),
        "ours, threads as they are": partial(ours, *arguments, in_parts=False),
        "ours, stock layers": partial(stock, *arguments),
        KERAS: partial(theirs, *arguments),
        f"{KERAS}, predict": partial(keras_predict, *arguments),
    }
    for setting in () if values.tensorflow_only else timm_settings():
        makes[setting] = partial(timm_inference, *arguments, setting=setting)
    with contest(makes) as contestants:
        # Before any result, so that the first call is timed too.
        times = times_of(contestants, rounds=values.rounds)
        expected, logits, rounded = (
            contestants[name].result() for name in (KERAS, "ours", "ours, bf16")
        )
    difference, rounding = np.abs(logits - expected).max(), np.abs(rounded - expected).max()
    deviation = f"{expected.std():.3f} deviation"
    print(f"logits of {deviation} agree to {difference:.1e}, bf16: {rounding:.1e}")
    if not difference < TOLERANCE:
        raise SystemExit(f"they must agree to {TOLERANCE}")
    header = ["inference", *HEADER, *BF16_HEADER]
    lines = rows(times, images=values.batch, ours=("ours", "ours, bf16"))
    print(table(header, lines))
    write(f"inference-{values.network}-{values.size}px-batch{values.batch}", header, lines)


if __name__ == "__main__":
    define_flags()
    app.run(main)
