"""Computes the reward of the EfficientNetV2 paper (3.3) from accuracy, step time and size."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Reward:
    """Computes A * S^w * P^v: accuracy A, step time S and parameters P relative to the backbone.

    >>> Reward(w=-0.07, v=-0.05, seconds=0.2, parameters=1000)(0.8, seconds=0.2, parameters=1000)
    0.8

    Attributes:
      w: exponent of the step time.
      v: exponent of the parameters.
      seconds: time of a training step of the backbone, on the same device as the trials.
      parameters: number of variables of the backbone.
    """

    w: float
    v: float
    seconds: float
    parameters: int

    def __post_init__(self) -> None:
        _require_positive(self.seconds, "the backbone's step time")
        _require_positive(self.parameters, "the backbone's number of parameters")

    def __call__(self, accuracy: float, *, seconds: float, parameters: int) -> float:
        """Returns the reward of a network.

        Args:
          accuracy: top-1 on minival, 0..1.
          seconds: time of a training step.
          parameters: number of all variables.

        Raises:
          ValueError: if the accuracy is not in 0..1, or another number is not above 0.
        """
        if not 0 <= accuracy <= 1:
            raise ValueError(f"accuracy must be in 0..1, got {accuracy}")
        _require_positive(seconds, "step time")
        _require_positive(parameters, "number of parameters")
        relative_time, relative_size = seconds / self.seconds, parameters / self.parameters
        return float(accuracy * relative_time**self.w * relative_size**self.v)


def _require_positive(value: float, name: str) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be above 0, got {value}")
