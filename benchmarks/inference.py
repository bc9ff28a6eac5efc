"""Times inference, ours beside keras.applications and timm; out: a table and a CSV.

``python -m benchmarks.inference --network=b0 --size=192 --batch=16`` (a minute on two cores). Ours
is ``for_inference`` in a ``tf.function``, in a process of its own after ``set_inference_threads``:
threads are settled once a process, and the others run as they are installed. Keras's runs in a
``tf.function`` too, and by ``predict``. All have the same weights, and their logits must agree to
1e-4.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import tensorflow as tf
from absl import app, flags
from tensorflow import keras

from benchmarks.measuring import BF16_HEADER, HEADER, in_turns, rows, write
from benchmarks.rivals import NETWORKS, keras_network, timm_inference
from benchmarks.train_step import batch, define_flags
from efficientnetv2 import for_inference, get_model, set_inference_threads
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


def networks(network: str, images: np.ndarray) -> tuple[keras.Model, keras.Model]:
    """Returns ours and that of Keras, with the same weights in every process."""
    keras.utils.set_random_seed(0)
    theirs = with_real_statistics(keras_network(network, images.shape[1:]), images)
    own = get_model(NETWORKS[network][0])
    own.set_weights(theirs.get_weights())
    return own, theirs


def _work(pipe: Connection, network: str, size: int, count: int) -> None:
    """Answers the name of a call with its logits, until it gets none."""
    set_inference_threads()
    images, _ = batch(size, count)
    own, _ = networks(network, images)
    calls = {
        "ours": traced(for_inference(own), images),
        "ours, bf16": traced(for_inference(own, precision="bfloat16"), images),
    }
    while name := pipe.recv():
        pipe.send(calls[name]())


@contextmanager
def _worker(*arguments: object) -> Iterator[Callable[[str], np.ndarray]]:
    """Yields a function that has a process of its own run a call, by its name."""
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads do not live on in a fork
    pipe, other = context.Pipe()
    process = context.Process(target=_work, args=(other, *arguments), daemon=True)
    process.start()
    other.close()  # or a worker that died would be waited for

    def ask(name: str) -> np.ndarray:
        pipe.send(name)
        return pipe.recv()

    try:
        yield ask
    finally:
        pipe.send(None)
        process.join()


def main(argv: list[str]) -> None:
    """Runs the benchmark."""
    del argv
    values = flags.FLAGS
    images, _ = batch(values.size, values.batch)
    with _worker(values.network, values.size, values.batch) as ask:
        own, theirs = networks(values.network, images)
        calls = {
            "ours": lambda: ask("ours"),
            "ours, bf16": lambda: ask("ours, bf16"),
            "ours, threads as they are": traced(for_inference(own), images),
            "ours, stock layers": traced(own, images),
            "keras.applications": traced(theirs, images),
            "keras.applications, predict": lambda: theirs.predict(
                images, batch_size=values.batch, verbose=0
            ),
            **({} if values.tensorflow_only else timm_inference(values.network, images)),
        }
        wanted = calls["keras.applications"]()
        difference, rounding = (np.abs(ask(of) - wanted).max() for of in ("ours", "ours, bf16"))
        deviation = f"{wanted.std():.3f} deviation"
        print(f"logits of {deviation} agree to {difference:.1e}, bf16: {rounding:.1e}")
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
