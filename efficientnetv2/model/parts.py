"""A functional model in; the same, run on a CPU by parts of a batch side by side, out.

An operation on all cores ends with the slowest of them, and a network has hundreds of operations
to wait for. With one thread an operation nothing waits, and each core keeps its part in its cache.
How many threads an operation has is settled once a process, before TensorFlow's first operation.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.kernels import is_cpu_alone


def set_inference_threads(parts: int | None = None) -> None:
    """Gives operations one thread each, and lets ``parts`` of them run at once.

    ``for_inference`` then makes networks that cut each batch into as many parts. For a process that
    infers batches: all else in it, training and single images too, is slower for it.

    Args:
      parts: 1 or more; None: the cores that this process may use. Each has its own copy of the
        network's graph, which takes time to make: on a machine of many cores, take fewer.

    Raises:
      ValueError: if ``parts`` is less than 1.
      RuntimeError: if TensorFlow has begun to work.
    """
    if parts is not None and parts < 1:
        raise ValueError(f"parts is 1 or more, not {parts}")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(parts or cores())


def cores() -> int:
    """How many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def num_parts() -> int:
    """How many parts of a batch are run side by side: 1, unless operations have one thread."""
    threads = tf.config.threading
    if threads.get_intra_op_parallelism_threads() != 1 or not is_cpu_alone():
        return 1
    return threads.get_inter_op_parallelism_threads() or cores()


class InParts(keras.Model):
    """A functional model that runs the parts of its batch side by side.

    Args:
      model: functional, of one input ``[B, ...]``; ``B`` may be less than the number of parts.
      parts: their number.
    """

    def __init__(self, model: keras.Model, *, parts: int) -> None:
        super().__init__(inputs=model.inputs, outputs=model.output, name=model.name)
        self._parts = parts
        # Traced once, not once a part; and where there is no graph, parts would not run at once.
        self._run_part = tf.function(super().call, autograph=False, reduce_retracing=True)
        self._run_all = tf.function(self._in_parts, autograph=False, reduce_retracing=True)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Returns what the model does, a batch of ``B``; for inference alone."""
        del training, mask
        return self._run_all(inputs)

    def _in_parts(self, inputs: Any) -> Any:
        (images,) = tf.nest.flatten(inputs)
        count, parts = tf.shape(images)[0], self._parts
        if images.shape[0] is None or images.shape[0] < parts:
            # The convolutions refuse a part without images.
            images = tf.cond(count < parts, lambda: _padded(images, parts - count), lambda: images)
        size = tf.shape(images)[0]
        bounds = [size * part // parts for part in range(parts + 1)]
        outputs = [
            self._run_part(images[start:end], training=False)
            for start, end in zip(bounds, bounds[1:])
        ]
        return tf.nest.map_structure(lambda *found: tf.concat(found, 0)[:count], *outputs)


def _padded(images: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
    return tf.pad(images, [[0, missing], *([[0, 0]] * (images.shape.rank - 1))])
