"""Scales numbers that a network predicts: it learns them with mean 0 and deviation 1.

Without that, the loss of a target of thousands would be millions, and one of two targets would
count a thousand times as much as the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hparams.config import ModelSection


@dataclasses.dataclass(frozen=True)
class TargetScale:
    """Mean and standard deviation of each of T numbers over the training images.

    Attributes:
      mean: T values, in the user's unit.
      deviation: T values above 0, in the user's unit.
    """

    mean: Sequence[float]
    deviation: Sequence[float]

    def standardise(self, targets: Any) -> Any:
        """Maps numbers ``[..., T]`` in the user's unit to what the network learns."""
        return (targets - self._array(self.mean)) / self._array(self.deviation)

    def restore(self, outputs: Any) -> Any:
        """Maps outputs of the network ``[..., T]`` to numbers in the user's unit."""
        return outputs * self._array(self.deviation) + self._array(self.mean)

    @staticmethod
    def _array(values: Sequence[float]) -> np.ndarray:
        return np.array(values, np.float32)


def target_scale(config: ModelSection) -> TargetScale | None:
    """Returns the scale of a network that predicts numbers; None: it predicts classes."""
    if not config.target_mean:
        return None
    return TargetScale(tuple(config.target_mean), tuple(config.target_deviation))
