"""Fits the temperature with which probabilities say how often the network is right.

Temperature scaling (arXiv 1706.04599, section 4.2) divides all logits by one number, chosen on
images that were not trained on. The likeliest class of an image stays the same.
"""

from __future__ import annotations

import contextlib
import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from efficientnetv2.data.sources import Source
from efficientnetv2.evaluation.predictions import Predictions, calibration_error
from efficientnetv2.evaluation.thresholds import predict_minival
from efficientnetv2.runtime.calibration_file import HIGHEST, LOWEST, Calibration
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.workers import Workers
from hparams.config import Config
from hparams.errors import DataError

FEWEST_IMAGES = 50  # of fewer, a temperature says little
_TOLERANCE = 1e-6  # of the logarithm of the temperature


def fit_calibration(
    config: Config, source: Source, run: RunDirectory, *, workers: Workers
) -> Calibration | str:
    """Fits the temperature of a run on its minival split, or says why there is none.

    It is that of the weights that prediction and export use; see ``load_trained``.

    Args:
      config: of the run, complete; its network names one class, with the softmax loss.
      source: its data set.
      run: holds a checkpoint.
      workers: this process.
    """
    with contextlib.suppress(DataError):  # minival may be empty
        count = source.num_images(config.data.minival_split)
        if count < FEWEST_IMAGES:  # known before a network is built for them
            return _too_few(count)
    found = predict_minival(config, source, run, workers=workers, with_logits=True)
    if found is None:
        return "minival has no images, or too many outputs to keep"
    return calibrate(found.outputs, found.targets.argmax(-1))


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration | str:
    """Returns the temperature for these images and what it does, or why there is none.

    Args:
      logits: ``[N, K]``.
      labels: int ``[N]``, the true classes.
    """
    count = len(labels)
    if count < FEWEST_IMAGES:
        return _too_few(count)
    if (logits.argmax(-1) == labels).all():  # the lower, the better: the fit has no minimum
        return f"all {count:,} images of minival are named right, so that no temperature is best"
    temperature = fit_temperature(logits, labels)
    nll, ece = zip(*(_errors(logits / value, labels) for value in (1.0, temperature)))
    return Calibration(temperature, count, nll[0], nll[1], ece[0], ece[1])


def _too_few(count: int) -> str:
    return f"minival has {count} images, {FEWEST_IMAGES} are needed"


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature, 0.05..20, with the least mean negative log-likelihood.

    >>> fit_temperature(np.array([[4.0, 0], [4, 0], [4, 0], [4, 0]]), np.array([0, 0, 0, 1]))
    3.64...

    In that example, a class with the logit 4 above the other is right in 3 of 4 cases, so that
    ``exp(4 / temperature)`` is 3.

    Args:
      logits: ``[N, K]``.
      labels: int ``[N]``, the true classes.
    """
    result = minimize_scalar(
        lambda log: negative_log_likelihood(logits / math.exp(log), labels),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": _TOLERANCE},
    )
    return float(np.clip(math.exp(result.x), LOWEST, HIGHEST))


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean negative log-likelihood of the true classes; arguments as above."""
    logits = np.asarray(logits, np.float64)
    own = np.take_along_axis(logits, labels[:, np.newaxis], axis=-1)[:, 0]
    return float((logsumexp(logits, axis=-1) - own).mean())


def _errors(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the negative log-likelihood and the expected calibration error."""
    logits = np.asarray(logits, np.float64)
    confidence = np.exp(logits.max(-1) - logsumexp(logits, axis=-1))
    predictions = Predictions(
        np.arange(len(labels)), labels, logits.argmax(-1), np.float32(confidence)
    )
    return negative_log_likelihood(logits, labels), calibration_error(predictions)
