"""Limits how much of a weight file is read, by the size of the network that is to be filled."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hparams.errors import WeightsError

# Beyond the network itself: another classifier (ImageNet-21k's has 112 MB), and its raw weights
# beside the moving average of a small network.
_SPARE = 2**27


class Budget:
    """Counts the bytes that are read from one file, and stops where no such network would be.

    A file of a few bytes can ask for any amount: by compressed zeros, by a size that nobody wrote,
    or by naming the same values often.

    Args:
      num_values: number of values of the network.
    """

    def __init__(self, num_values: int) -> None:
        self.num_bytes = 8 * num_values + _SPARE
        self._left = self.num_bytes

    def take(self, shape: Sequence[int], itemsize: int, *, name: str) -> None:
        """Counts a tensor before it is read.

        Raises:
          WeightsError: if the file has asked for too much.
        """
        self._left -= math.prod(shape) * itemsize
        if self._left < 0:
            raise WeightsError(
                f"its values, up to those of '{name[:100]}', are larger than "
                f"{self.num_bytes / 2**20:,.0f} MiB, more than the network can use; is it for "
                "another model?"
            )
