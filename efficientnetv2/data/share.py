"""A process and its devices in; which rows of each global batch they get out. No TensorFlow."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Share:
    """A contiguous part of each global batch: rows ``index * B / count`` and so on, ``B / count``.

    The shares of all indices, one after the other, are the batch of a single device.

    Attributes:
      index: of this process, from 0.
      count: processes that feed devices.
      replicas: devices of this process; its rows are cut into as many batches, in order.
    """

    index: int = 0
    count: int = 1
    replicas: int = 1


WHOLE = Share()
