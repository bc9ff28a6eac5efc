"""Parts of a stream of batches in; the stream, made by the workers of a tf.data service, out."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# A part is one split of its data set, so one worker makes it from start to end.
_POLICY = tf.data.experimental.service.ShardingPolicy.DYNAMIC


def served(
    part: Callable[[tf.Tensor], tf.data.Dataset],
    *,
    parts: int,
    address: str,
    steps: tuple[int, int],
    batches_per_step: int,
) -> tf.data.Dataset:
    """Returns the batches of all parts in the order of their steps, the same as without a service.

    Args:
      part: number n (int64 scalar, 0 .. parts - 1) -> the batches of the steps n, n + parts, ...
        from ``first_step`` on.
      parts: of the stream; no more workers than these have work.
      address: of the dispatcher, ``grpc://host:port``.
      steps: the first of the stream, and the first after it.
      batches_per_step: of a part.
    """
    streams = [
        tf.data.Dataset.range(number, number + 1)
        .flat_map(part)
        .apply(tf.data.experimental.service.distribute(_POLICY, address))
        for number in range(parts)
    ]
    turns = tf.data.Dataset.range(*steps).flat_map(
        lambda step: tf.data.Dataset.from_tensors(step % parts).repeat(batches_per_step)
    )
    return tf.data.Dataset.choose_from_datasets(streams, turns)
