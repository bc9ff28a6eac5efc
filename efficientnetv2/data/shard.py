"""Defines which rows of each global batch a process and its devices read. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shard:
    """A contiguous part of each global batch: ``B / count`` rows, from ``index * B / count`` on.

    Concatenated in the order of their indices, the shards are the batch of a single device.

    Attributes:
      index: number of this process, from 0.
      count: number of processes that feed devices.
      replicas: devices of this process; its rows are cut into one batch for each, in order.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1


WHOLE = Shard()
