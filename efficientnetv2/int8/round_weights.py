"""Rounds float kernels to 8 bits so that the outputs of their layers change least.

Rounding each weight to its nearest step does not change a layer's outputs least, because later
weights can compensate for the error of an earlier one. So weights are rounded one after another,
and the error of each is spread over those not rounded yet, as in optimal brain quantisation
(arXiv 2208.11580; in fixed order and by the Cholesky factor: arXiv 2210.17323, section 3).
"""

from __future__ import annotations

import numpy as np

STEPS = 127  # int8 without -128, as LiteRT requires of weights
_DAMPING = 0.01  # of the mean of the diagonal: inputs that hardly vary must not get large weights
# Ridge penalties, relative to the same mean: a smaller one fits the calibration images better and
# other images worse, so held-out images decide. Without any, deep networks of small images lose
# 6 dB of their logits.
_RIDGES = (0.1, 0.3, 1.0, 10.0)
_HELD_OUT = 0.25  # share of the inputs: the last ones, of other images than the first
_CHANNELS = 64  # of a depthwise layer, whose inputs are sorted by channel at once
_BLOCK = 128  # rows whose effect on later rows is applied at once


def channel_scales(kernel: np.ndarray) -> np.ndarray:
    """Returns the step of each output channel: its largest weight is 127 steps.

    Args:
      kernel: ``[N, C]``, N weights for each of C output channels.
    """
    largest = np.abs(kernel).max(axis=0)
    return np.where(largest > 0, largest / STEPS, 1.0)


def round_to_nearest(kernel: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rounds each weight to the nearest multiple of its channel's step."""
    return np.clip(np.round(kernel / scales), -STEPS, STEPS) * scales


def round_kernel(kernel: np.ndarray, covariance: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Rounds a kernel so that its layer's outputs change little.

    Args:
      kernel: ``[N, C]``.
      covariance: ``[N, N]``, of the inputs that the weights are multiplied with.
      scales: ``[C]``, the step of each channel.

    Returns:
      ``[N, C]``, multiples of the steps. The largest weight of each channel stays 127 steps, so
      that the converter, which derives the steps from the kernel, gets the same ones.
    """
    size = len(kernel)
    is_largest = np.arange(size)[:, np.newaxis] == np.abs(kernel).argmax(axis=0)
    damped = covariance + np.eye(size) * (_DAMPING * np.mean(np.diag(covariance)) + 1e-12)
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    rest = np.array(kernel, np.float64)
    rounded = np.empty_like(rest)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((end - start, kernel.shape[1]))
        for row in range(start, end):
            nearest = round_to_nearest(rest[row], scales)
            rounded[row] = np.where(is_largest[row], kernel[row], nearest)
            errors[row - start] = (rest[row] - rounded[row]) / factor[row, row]
            rest[row + 1 : end] -= np.outer(factor[row, row + 1 : end], errors[row - start])
        rest[end:] -= factor[start:end, end:].T @ errors
    return rounded


def round_layer(
    kernel: np.ndarray, inputs: np.ndarray, outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rounds the kernel of a dense layer, and corrects its bias so that the mean output stays.

    First the kernel is refitted to its quantised inputs, because part of what earlier layers lost
    can be predicted from them. Held-out inputs decide how far it may move.

    Args:
      kernel: float ``[N, C]``.
      inputs: ``[P, N]``, the layer's inputs in the quantised network, image after image.
      outputs: ``[P, C]``, its outputs in the float network, bias included.

    Returns:
      The rounded kernel ``[N, C]``, and the bias ``[C]``.
    """
    mean, covariance, products = _moments(inputs, outputs)
    ridge = _best_ridge(kernel, inputs, outputs)
    kernel = _fit_kernel(kernel, covariance, products, ridge=ridge)
    scales = channel_scales(kernel)
    rounded = round_kernel(kernel, covariance, scales)
    return rounded, outputs.mean(axis=0, dtype=np.float64) - mean @ rounded


def _moments(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the inputs' mean and covariance, and their covariance with the outputs."""
    mean = inputs.mean(axis=0, dtype=np.float64)
    centred = np.float32(inputs - mean)
    products = np.float64(centred.T @ np.float32(outputs - outputs.mean(axis=0))) / len(inputs)
    return mean, np.float64(centred.T @ centred) / len(inputs), products


def _fit_kernel(
    kernel: np.ndarray, covariance: np.ndarray, products: np.ndarray, *, ridge: float
) -> np.ndarray:
    """Ridge regression of the float outputs on the quantised inputs, around the float kernel."""
    penalty = ridge * np.mean(np.diag(covariance)) + 1e-12
    result: np.ndarray = np.linalg.solve(
        covariance + penalty * np.eye(len(kernel)), products + penalty * kernel
    )
    return result


def _best_ridge(kernel: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> float:
    """Fits the kernel to most of the inputs, and returns the best penalty for the rest."""
    fitted = len(inputs) - int(_HELD_OUT * len(inputs))
    mean, covariance, products = _moments(inputs[:fitted], outputs[:fitted])
    held_out_inputs = np.float32(inputs[fitted:] - mean)
    held_out_outputs = np.float32(outputs[fitted:] - outputs[:fitted].mean(axis=0))

    def error(ridge: float) -> float:
        fitted_kernel = np.float32(_fit_kernel(kernel, covariance, products, ridge=ridge))
        return float(np.square(held_out_inputs @ fitted_kernel - held_out_outputs).mean())

    return min(_RIDGES, key=error)


def round_depthwise(
    kernel: np.ndarray, inputs: np.ndarray, outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Like ``round_layer``, for a depthwise layer, whose channels have inputs of their own.

    Args:
      kernel: float ``[N, C]``.
      inputs: ``[P, N, C]``.
      outputs: ``[P, C]``.
    """
    mean = inputs.mean(axis=0, dtype=np.float64)
    scales = channel_scales(kernel)
    rounded = np.empty(kernel.shape)
    for start in range(0, kernel.shape[1], _CHANNELS):
        these = slice(start, start + _CHANNELS)
        rows = np.ascontiguousarray(inputs[..., these].transpose(2, 1, 0))  # a matrix a channel
        rows -= np.float32(mean[:, these].T[..., np.newaxis])
        covariance = np.float64(rows @ rows.transpose(0, 2, 1)) / len(inputs)
        rounded[:, these] = _round_columns(kernel[:, these], covariance, scales[these])
    bias = outputs.mean(axis=0, dtype=np.float64) - (mean * rounded).sum(axis=0)
    return rounded, bias


def _round_columns(kernel: np.ndarray, covariances: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Does ``round_kernel`` for C columns at once, ``[N, C]``, each with its own ``[C, N, N]``."""
    size = len(kernel)
    is_largest = np.arange(size)[:, np.newaxis] == np.abs(kernel).argmax(axis=0)
    variances = np.diagonal(covariances, axis1=1, axis2=2).mean(axis=1)
    damping = (_DAMPING * variances + 1e-12)[:, np.newaxis, np.newaxis]
    inverses = np.linalg.inv(covariances + np.eye(size) * damping)
    factors = np.linalg.cholesky(inverses).transpose(2, 1, 0)  # row, column, channel
    rest = np.array(kernel, np.float64)
    rounded = np.empty_like(rest)
    for row in range(size):
        nearest = round_to_nearest(rest[row], scales)
        rounded[row] = np.where(is_largest[row], kernel[row], nearest)
        error = (rest[row] - rounded[row]) / factors[row, row]
        rest[row + 1 :] -= factors[row, row + 1 :] * error
    return rounded
