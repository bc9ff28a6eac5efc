"""Samples of a tensor in; the range that 8 bits should span, so that little is lost, out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LEVELS = 255  # steps of 8 bits
_SAMPLES = 50_000
_SHARES = np.linspace(1.0, 0.3, 29)  # ties go to the whole range


def affine(low: float, high: float) -> tuple[float, float]:
    """Returns the range widened to contain 0, which LiteRT must be able to represent."""
    low, high = min(low, 0.0), max(high, 0.0)
    return low, high if high > low else low + 1e-6


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns each value at the nearest of 256 levels from ``low`` to ``high``, one of them 0."""
    step = (high - low) / LEVELS
    zero = np.round(-low / step)
    return (np.clip(np.round(values / step) + zero, 0, LEVELS) - zero) * step


def best_range(
    values: np.ndarray, *, through: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[float, float]:
    """Returns the range whose 256 levels have the least mean square error.

    A few large values cost all others resolution: cutting them off may lose less.

    Args:
      values: any shape.
      through: the error is measured after this function; None: at once.
    """
    low, high = affine(float(values.min()), float(values.max()))
    flat = values.ravel()
    if flat.size > _SAMPLES:
        flat = flat[np.random.default_rng(0).integers(0, flat.size, _SAMPLES)]
    flat = np.float32(flat)
    follow = through or (lambda x: x)
    exact = follow(flat)

    def error(low: float, high: float) -> float:
        return float(np.mean((follow(quantise(flat, low, high)) - exact) ** 2))

    # One end after the other: SiLU's outputs end near -0.28 below, and nowhere above.
    high *= min(_SHARES, key=lambda share: error(low, high * share))
    low *= min(_SHARES, key=lambda share: error(low * share, high))
    return float(low), float(high)
