"""Computes what a search maximises: the reward of the EfficientNetV2 paper (3.3), or accuracy."""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol


class TrialReward(Protocol):
    """What a search maximises."""

    def __call__(self, accuracy: float, *, seconds: float | None, parameters: int) -> float:
        """Returns the reward of a trial; see ``Reward``."""


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

    def __call__(self, accuracy: float, *, seconds: float | None, parameters: int) -> float:
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
        if seconds is None:
            raise ValueError("the step time is not measured")
        _require_positive(seconds, "step time")
        _require_positive(parameters, "number of parameters")
        relative_time, relative_size = seconds / self.seconds, parameters / self.parameters
        return float(accuracy * relative_time**self.w * relative_size**self.v)


def accuracy_alone(accuracy: float, *, seconds: float | None, parameters: int) -> float:
    """Returns the accuracy, as the reward of settings that leave the network as it is."""
    del seconds, parameters
    return accuracy


def _require_positive(value: float, name: str) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be above 0, got {value}")
