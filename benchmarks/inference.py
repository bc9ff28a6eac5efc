"""Times inference, ours beside keras.applications and timm; out: a table and a CSV.

``python -m benchmarks.inference --network=b0 --size=192 --batch=16`` (a minute on two cores). Ours
is ``for_inference`` in a ``tf.function``; that of Keras runs in one too, and by ``predict``. Both
have the same weights, and their logits must agree to 1e-4.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow import keras

from benchmarks.measuring import BF16_HEADER, HEADER, in_turns, rows, write
from benchmarks.rivals import NETWORKS, keras_network, timm_inference
from benchmarks.train_step import batch, define_flags
from efficientnetv2 import for_inference, get_model
from efficientnetv2.report.tables import table

TOLERANCE = 1e-4


def traced(model: keras.Model, images: np.ndarray) -> Callable[[], np.ndarray]:
    """Returns a function that runs the model on a batch."""
    run = tf.function(lambda values: model(values, training=False), autograph=False)
    inputs = tf.constant(images)
    return lambda: run(inputs).numpy()


def with_real_statistics(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Sets the statistics of BatchNormalization to those of a batch: the logits then differ."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    return model


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    keras.utils.set_random_seed(0)
    images, _ = batch(values.size, values.batch)
    theirs = with_real_statistics(keras_network(values.network, images.shape[1:]), images)
    own = get_model(NETWORKS[values.network][0])
    own.set_weights(theirs.get_weights())
    calls = {
        "ours": traced(for_inference(own), images),
        "ours, bf16": traced(for_inference(own, precision="bfloat16"), images),
        "ours, stock layers": traced(own, images),
        "keras.applications": traced(theirs, images),
        "keras.applications, predict": lambda: theirs.predict(
            images, batch_size=values.batch, verbose=0
        ),
        **({} if values.tensorflow_only else timm_inference(values.network, images)),
    }
    wanted = calls["keras.applications"]()
    difference = np.abs(calls["ours"]() - wanted).max()
    rounding = np.abs(calls["ours, bf16"]() - wanted).max()
    print(f"logits of {wanted.std():.3f} deviation agree to {difference:.1e}, bf16: {rounding:.1e}")
    if not difference < TOLERANCE:
        raise SystemExit(f"they must agree to {TOLERANCE}")
    times = in_turns(calls, rounds=values.rounds)
    header = ["inference", *HEADER, *BF16_HEADER]
    lines = rows(times, images=values.batch, ours=("ours", "ours, bf16"))
    print(table(header, lines))
    write(f"inference-{values.network}-{values.size}px-batch{values.batch}", header, lines)


if __name__ == "__main__":
    define_flags()
    app.run(main)
