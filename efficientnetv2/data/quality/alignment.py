"""Tells whether two images show the same, although one was encoded anew, resized or cropped a bit.

Two images that share a perceptual hash may merely be alike. So one is laid over the other by a
Gauss-Newton search for scale and shift (Lucas and Kanade 1981, with a gain and an offset of
brightness), and then the directions and strengths of their edges are compared.
"""

from __future__ import annotations

import functools

import numpy as np

SAME = 0.92  # copies reach 0.95 to 1, different pictures seldom 0.8 (benchmarks/planted_faults.py)
SIDE = 64  # pixels of the squares that are compared
_BLUR = 1.0  # pixels, so that noise of JPEG counts little
_STEPS = 10  # at most, at each blur
_COARSE_TO_FINE = (4.0, 1.5, 0.0)  # pixels of blur: fine detail attracts over a pixel or two only
_DAMPING = 1e-6  # of the mean of the diagonal, so that a flat image has a solution
_MARGIN = 4  # pixels at the border that the search leaves out
_MOST = 0.1  # change of scale, and shift in units of half the image
_SMALLEST_STEP = 2e-4


def edge_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Returns how alike the edges of two images are once they lie over each other.

    Args:
      first: float32 ``[SIDE, SIDE]``, grey levels of the whole image, as ``small_grey`` makes it.
      second: the same of the other image.

    Returns:
      The correlation of their gradients, -1..1; 1 for copies. It is 0 if one has no edges.
    """
    in_place = _sample(first, np.ones(2), np.zeros(2))
    # On a smooth ramp a shift looks like a change of brightness, and the search may go astray.
    return max(_correlation(*layer, second) for layer in (in_place, _aligned(first, second)))


def _correlation(moved: np.ndarray, inside: np.ndarray, second: np.ndarray) -> float:
    ours, theirs = (np.stack(np.gradient(image))[:, inside] for image in (moved, second))
    strength = float(np.sqrt((ours**2).sum() * (theirs**2).sum()))
    return float((ours * theirs).sum()) / strength if strength > 0 else 0.0


def small_grey(grey: np.ndarray) -> np.ndarray:
    """Returns grey levels ``[h, w]`` as ``edge_similarity`` takes them: ``[SIDE, SIDE]``."""
    from PIL import Image
    from scipy import ndimage

    square = Image.fromarray(np.uint8(grey)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return ndimage.gaussian_filter(np.asarray(square, np.float32), _BLUR)


@functools.cache
def _grid() -> tuple[np.ndarray, np.ndarray]:
    line = np.linspace(-1, 1, SIDE, dtype=np.float32)
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x


def _aligned(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``first`` laid over ``second``, and where it covers it (bool ``[SIDE, SIDE]``)."""
    from scipy import ndimage

    scale, shift = np.ones(2), np.zeros(2)  # of y and x
    for blur in _COARSE_TO_FINE:
        layers = [
            ndimage.gaussian_filter(image, blur) if blur else image for image in (first, second)
        ]
        scale, shift = _search(layers[0], layers[1], scale, shift)
    return _sample(first, scale, shift)


def _search(
    first: np.ndarray, second: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scale and shift that lay ``first`` over ``second``, from a guess of them."""
    core = slice(_MARGIN, -_MARGIN)
    target = second[core, core].ravel()
    y, x = (axis[core, core].ravel() for axis in _grid())
    for _ in range(_STEPS):
        moved, _ = _sample(first, scale, shift)
        dy, dx = (g[core, core].ravel() * (SIDE - 1) / 2 for g in np.gradient(moved))
        # moved + d(moved) = gain * second + offset, solved for the four steps, gain and offset.
        columns = [-dy / scale[0] * y, -dx / scale[1] * x, -dy / scale[0], -dx / scale[1]]
        matrix = np.stack([*columns, target, np.ones_like(target)], 1)
        square = matrix.T @ matrix
        square += _DAMPING * np.trace(square) / len(square) * np.eye(len(square))
        step = np.linalg.solve(square, matrix.T @ moved[core, core].ravel())[:4]
        step = np.clip(step, -0.05, 0.05)
        scale = np.clip(scale + step[:2], 1 - _MOST, 1 + _MOST)
        shift = np.clip(shift + step[2:], -_MOST, _MOST)
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    return scale, shift


def _sample(
    image: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    from scipy import ndimage

    places = [(s * axis + t + 1) * (SIDE - 1) / 2 for axis, s, t in zip(_grid(), scale, shift)]
    inside = np.all([(place >= 0) & (place <= SIDE - 1) for place in places], 0)
    inside[[0, -1]] = inside[:, [0, -1]] = False  # gradients there are one-sided
    return ndimage.map_coordinates(image, places, order=1, mode="nearest"), inside
