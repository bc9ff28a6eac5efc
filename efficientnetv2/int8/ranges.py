"""Chooses the quantisation range of a tensor: the values that its 256 levels span."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEPS = 255  # between the 256 levels of 8 bits
_SAMPLES = 50_000
_SHARES = np.linspace(1.0, 0.3, 29)  # of the range; from 1 down, so that ties keep all of it


def affine(low: float, high: float) -> tuple[float, float]:
    """Returns the range widened to contain 0, which LiteRT must be able to represent."""
    low, high = min(low, 0.0), max(high, 0.0)
    return low, high if high > low else low + 1e-6


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rounds each value to the nearest of 256 levels from ``low`` to ``high``, one of them 0."""
    step = (high - low) / STEPS
    zero = np.round(-low / step)
    return (np.clip(np.round(values / step) + zero, 0, STEPS) - zero) * step


def best_range(
    values: np.ndarray, *, through: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[float, float]:
    """Returns the range (low, high) whose 256 levels have the least mean square error.

    A few large values would make the steps coarse for all others; clipping them can lose less.

    Args:
      values: the tensor, of any shape.
      through: a function that follows the tensor; the error is measured on its result. None: on the
        tensor itself.
    """
    low, high = affine(float(values.min()), float(values.max()))
    flat = values.ravel()
    if flat.size > _SAMPLES:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, _SAMPLES)]
    flat = np.float32(flat)
    transform = through or (lambda x: x)
    exact = transform(flat)

    def error(low: float, high: float) -> float:
        return float(np.mean((transform(quantise(flat, low, high)) - exact) ** 2))

    # The two ends are searched in turn: SiLU's outputs are bounded below, by -0.28, but not above.
    high *= min(_SHARES, key=lambda share: error(low, high * share))
    low *= min(_SHARES, key=lambda share: error(low * share, high))
    return float(low), float(high)
