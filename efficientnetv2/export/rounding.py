"""Layer inputs and float kernels in; int8 kernels whose outputs are nearest to the float ones out.

Rounding each weight to its own nearest step is not what leaves a layer's output nearest: the error
of one weight can be made good by the next. Weights are rounded one after another, and what each
lost is spread over those still to come, as optimal brain quantisation does it (arXiv 2208.11580;
in this order and by the Cholesky factor: arXiv 2210.17323, section 3).
"""

from __future__ import annotations

import numpy as np

_STEPS = 127  # int8 without -128, as LiteRT's kernels want weights
_DAMPING = 0.01  # of the mean of the diagonal: inputs that hardly vary must not get large weights
# Of the same mean: less follows the calibration images more closely, and other images less. Images
# that were kept out choose. Without any, deep networks of small images lose 6 dB of their logits.
_HOLDS = (0.1, 0.3, 1.0, 10.0)
_KEPT_OUT = 0.25  # share of the inputs: the last ones, of other images than the first
_BLOCK = 128  # rows whose effect on later ones is applied at once


def channel_scales(kernel: np.ndarray) -> np.ndarray:
    """Returns the step of each output channel, so that its largest weight is 127 steps.

    Args:
      kernel: ``[N, C]``, N weights of each of C output channels.
    """
    largest = np.abs(kernel).max(axis=0)
    return np.where(largest > 0, largest / _STEPS, 1.0)


def round_to_nearest(kernel: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Returns ``kernel`` with each weight at its nearest multiple of its channel's step."""
    return np.clip(np.round(kernel / scales), -_STEPS, _STEPS) * scales


def round_kernel(kernel: np.ndarray, covariance: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rounds a kernel so that its layer's outputs change little.

    Args:
      kernel: ``[N, C]``.
      covariance: ``[N, N]``, of the inputs that the weights are multiplied with.
      scales: ``[C]``, step of each channel.

    Returns:
      ``[N, C]``, multiples of the steps. Each channel's largest weight stays 127 steps, so that who
      derives the steps from the kernel finds the same.
    """
    size = len(kernel)
    stays = np.arange(size)[:, np.newaxis] == np.abs(kernel).argmax(axis=0)
    damped = covariance + np.eye(size) * (_DAMPING * np.mean(np.diag(covariance)) + 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest = np.array(kernel, np.float64)
    rounded = np.empty_like(rest)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((end - start, kernel.shape[1]))
        for row in range(start, end):
            nearest = round_to_nearest(rest[row], scales)
            rounded[row] = np.where(stays[row], kernel[row], nearest)
            errors[row - start] = (rest[row] - rounded[row]) / factor[row, row]
            rest[row + 1 : end] -= np.outer(factor[row, row + 1 : end], errors[row - start])
        rest[end:] -= factor[start:end, end:].T @ errors
    return rounded


def round_layer(
    kernel: np.ndarray, inputs: np.ndarray, outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rounds the kernel of a dense layer, and moves its bias so that the mean output stays.

    Before, the kernel is adapted to its inputs: what earlier layers lost is in part a function of
    what is still there. How far, inputs decide that took no part in it.

    Args:
      kernel: float ``[N, C]``.
      inputs: ``[P, N]``, what the quantised network feeds it, image after image.
      outputs: ``[P, C]``, what the float network gives there, bias included.

    Returns:
      The rounded kernel, and the bias ``[C]``.
    """
    mean, covariance, products = _moments(inputs, outputs)
    kernel = _adapted(kernel, covariance, products, hold=_best_hold(kernel, inputs, outputs))
    scales = channel_scales(kernel)
    rounded = round_kernel(kernel, covariance, scales)
    return rounded, outputs.mean(axis=0, dtype=np.float64) - mean @ rounded


def _moments(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the inputs' mean and covariance, and their covariance with the outputs."""
    mean = inputs.mean(axis=0, dtype=np.float64)
    centred = np.float32(inputs - mean)
    products = np.float64(centred.T @ np.float32(outputs - outputs.mean(axis=0))) / len(inputs)
    return mean, np.float64(centred.T @ centred) / len(inputs), products


def _adapted(
    kernel: np.ndarray, covariance: np.ndarray, products: np.ndarray, *, hold: float
) -> np.ndarray:
    """Least squares from the quantised inputs to the float outputs, held to the float kernel."""
    held = hold * np.mean(np.diag(covariance)) + 1e-12
    result: np.ndarray = np.linalg.solve(
        covariance + held * np.eye(len(kernel)), products + held * kernel
    )
    return result


def _best_hold(kernel: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> float:
    """Adapts to most of the inputs, and looks how the rest comes out."""
    fitted = len(inputs) - int(_KEPT_OUT * len(inputs))
    mean, covariance, products = _moments(inputs[:fitted], outputs[:fitted])
    seen = np.float32(inputs[fitted:] - mean)
    wanted = np.float32(outputs[fitted:] - outputs[:fitted].mean(axis=0))

    def error(hold: float) -> float:
        adapted = np.float32(_adapted(kernel, covariance, products, hold=hold))
        return float(np.square(seen @ adapted - wanted).mean())

    return min(_HOLDS, key=error)


def round_depthwise(
    kernel: np.ndarray, inputs: np.ndarray, outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As ``round_layer``, for channels that each see their own inputs.

    Args:
      kernel: float ``[N, C]``.
      inputs: ``[P, N, C]``.
      outputs: ``[P, C]``.
    """
    mean = inputs.mean(axis=0, dtype=np.float64)
    centred = np.float32(inputs - mean)
    covariance = np.float64(np.einsum("pnc,pmc->cnm", centred, centred, optimize=True))
    scales = channel_scales(kernel)
    columns = [
        round_kernel(kernel[:, c : c + 1], covariance[c] / len(inputs), scales[c : c + 1])
        for c in range(kernel.shape[1])
    ]
    rounded = np.concatenate(columns, axis=1)
    bias = outputs.mean(axis=0, dtype=np.float64) - (mean * rounded).sum(axis=0)
    return rounded, bias
