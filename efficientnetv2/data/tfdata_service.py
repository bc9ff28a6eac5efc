"""Distributes image preparation over the workers of a tf.data service, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# The service hands out splits (pieces) of a data set. Each stream is a data set of one split, so a
# single worker prepares it from start to end.
_POLICY = tf.data.experimental.service.ShardingPolicy.DYNAMIC


def distribute(
    stream: Callable[[tf.Tensor], tf.data.Dataset],
    *,
    num_streams: int,
    address: str,
    steps: tuple[int, int],
    batches_per_step: int,
) -> tf.data.Dataset:
    """Returns the batches of all streams in the order of their steps, as without a service.

    Args:
      stream: maps a number n (int64 scalar, 0 .. num_streams - 1) to the batches of the steps with
        ``step % num_streams == n``, from the first step on.
      num_streams: at most this many of the service's workers have work.
      address: of the dispatcher, ``grpc://host:port``.
      steps: the first step, and the step after the last one.
      batches_per_step: number of batches that a stream gives for each of its steps.
    """
    streams = [
        tf.data.Dataset.range(number, number + 1)
        .flat_map(stream)
        .apply(tf.data.experimental.service.distribute(_POLICY, address))
        for number in range(num_streams)
    ]
    turns = tf.data.Dataset.range(*steps).flat_map(
        lambda step: tf.data.Dataset.from_tensors(step % num_streams).repeat(batches_per_step)
    )
    return tf.data.Dataset.choose_from_datasets(streams, turns)
