"""Runs the parts of a batch side by side on a CPU, for faster inference.

An operation on all cores waits for the slowest of them, and a network has hundreds of operations.
With one thread per operation nothing waits, and each core keeps its part in its cache. The number
of threads per operation is fixed once per process, before TensorFlow's first operation.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.kernels import is_cpu_only
from hparams.arguments import check_count

_MOST_PARTS = 4096


def set_inference_threads(parts: int | None = None) -> None:
    """Gives each operation one thread, and lets ``parts`` operations run at once.

    ``for_inference`` then returns models that split each batch into as many parts. Use it in
    processes that only infer batches: it slows down everything else, such as training and single
    images.

    Args:
      parts: 1 or more; None: the number of cores that this process may use. Each part has its own
        copy of the network's graph, which takes time to build: use fewer on machines with many
        cores.

    Raises:
      TypeError: if ``parts`` is no whole number.
      ValueError: if ``parts`` is less than 1 or more than 4096.
      RuntimeError: if TensorFlow has already run an operation.
    """
    if parts is not None:
        parts = check_count("parts", parts, high=_MOST_PARTS)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(parts or cores())


def cores() -> int:
    """Returns the number of cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # only on Linux
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def num_parts() -> int:
    """Returns how many parts of a batch run at once: 1, unless each operation has one thread."""
    threads = tf.config.threading
    if threads.get_intra_op_parallelism_threads() != 1 or not is_cpu_only():
        return 1
    return threads.get_inter_op_parallelism_threads() or cores()


class ParallelModel(keras.Model):
    """A functional model that runs the parts of its batch side by side.

    Args:
      model: functional, of one input ``[B, ...]``; ``B`` may be less than the number of parts.
      parts: number of parts.
    """

    def __init__(self, model: keras.Model, *, parts: int) -> None:
        super().__init__(inputs=model.inputs, outputs=model.output, name=model.name)
        self._parts = parts
        # Traced once instead of once per part. Eagerly, parts would run one after the other.
        self._run_part = tf.function(super().call, autograph=False, reduce_retracing=True)
        self._run_all = tf.function(self._call_in_parts, autograph=False, reduce_retracing=True)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Returns the model's outputs for a batch; for inference only."""
        del training, mask
        return self._run_all(inputs)

    def _call_in_parts(self, inputs: Any) -> Any:
        (images,) = tf.nest.flatten(inputs)
        count, parts = tf.shape(images)[0], self._parts
        if images.shape[0] is None or images.shape[0] < parts:
            # Convolutions fail on a part without images.
            images = tf.cond(count < parts, lambda: _padded(images, parts - count), lambda: images)
        size = tf.shape(images)[0]
        bounds = [size * part // parts for part in range(parts + 1)]
        outputs = [
            self._run_part(images[start:end], training=False)
            for start, end in zip(bounds, bounds[1:])
        ]
        return tf.nest.map_structure(lambda *values: tf.concat(values, 0)[:count], *outputs)


def _padded(images: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
    return tf.pad(images, [[0, missing], *([[0, 0]] * (images.shape.rank - 1))])
