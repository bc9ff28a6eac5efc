"""Fits, on minival, the temperature of the probabilities and the threshold of unknown images.

Temperature scaling (arXiv 1706.04599, section 4.2) divides all logits by one number, chosen on
images that were not trained on, so that probabilities say how often the network is right. The
likeliest class of an image stays the same. An image is unknown if its best probability then is
below a threshold (arXiv 1610.02136), which all but a few of the same images reach.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import tensorflow as tf
from scipy.optimize import brentq, minimize_scalar
from scipy.special import logsumexp

from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.sources import Source
from efficientnetv2.evaluation.predictions import Predictions, calibration_error
from efficientnetv2.evaluation.thresholds import predict_minival
from efficientnetv2.runtime.calibration_file import (
    HIGHEST,
    LOWEST,
    Calibration,
    UnknownRule,
    takes_temperature,
)
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.losses import probabilities
from efficientnetv2.train.workers import Workers
from hparams.config import Config
from hparams.errors import DataError
from hparams.label_kinds import ONE, UNKNOWN, label_kind

FEWEST_IMAGES = 50  # with fewer, a temperature or a threshold is unreliable
HIGHEST_THRESHOLD = 0.99
_TOLERANCE = 1e-6  # of the logarithm of the temperature


@dataclasses.dataclass(frozen=True)
class Fit:
    """The temperature and threshold fitted on minival, or the reasons why there are none.

    Attributes:
      calibration: the temperature, or why there is none.
      unknown: the threshold below which an image is unknown, or why there is none.
    """

    calibration: Calibration | str
    unknown: UnknownRule | str


def fit_on_minival(
    config: Config,
    source: Source,
    run: RunDirectory,
    *,
    workers: Workers,
    images: EvaluationInput | None = None,
) -> Fit:
    """Fits the temperature of a run, and its threshold of unknown images, on the minival split.

    They are those of the weights that prediction and export use; see ``load_trained``.

    Args:
      config: of the run, complete; its network gives probabilities.
      source: its data set.
      run: holds a checkpoint.
      workers: this process.
      images: of minival, which may be in memory; None: they are opened.
    """
    with contextlib.suppress(DataError):  # minival may be empty
        count = source.num_images(config.data.minival_split)
        if count < FEWEST_IMAGES:  # known before a network is built for them
            return Fit(_too_few(count), _too_few(count))
    is_one = label_kind(config) == ONE
    found = predict_minival(config, source, run, workers=workers, images=images, with_logits=is_one)
    if found is None:
        reason = "minival has no images, or too many outputs to keep"
        return Fit(reason, reason)
    calibration: Calibration | str = "its loss is not softmax with one class an image"
    temperature, outputs = None, found.outputs
    if takes_temperature(config):
        calibration = calibrate(found.outputs, found.targets.argmax(-1))
        temperature = None if isinstance(calibration, str) else calibration.temperature
    if is_one:
        outputs = probabilities(
            tf.constant(found.outputs) / (temperature or 1.0), config.train.loss_type
        ).numpy()
    if UNKNOWN in source.class_names:
        return Fit(calibration, f"one of the classes is called {UNKNOWN}")
    scores = outputs.max(-1)[(found.targets > 0).any(-1)]  # images may be without a label
    return Fit(calibration, fit_unknown(scores, known_share=config.train.known_share))


def fit_unknown(scores: np.ndarray, *, known_share: float) -> UnknownRule | str:
    """Returns the threshold of the best probability that keeps a share of these images.

    >>> fit_unknown(np.linspace(0.01, 1, 100), known_share=0.95)
    UnknownRule(threshold=0.055, images=100, kept=0.95)

    It lies half way between two probabilities, so that rounding in an exported file changes
    nothing, and is at most 0.99, as the outputs of 8-bit files have steps of 1/256.

    Args:
      scores: ``[N]``, the best probability of each image of the classes.
      known_share: 0..1, at least so many are kept.
    """
    count = len(scores)
    if count < FEWEST_IMAGES:
        return _too_few(count)
    ordered = np.sort(np.float64(scores))
    dropped = math.floor(round(count * (1 - known_share), 6))  # 10 x (1 - 0.9) is 0.99...
    threshold = ordered[max(dropped - 1, 0) : dropped + 1].mean()
    threshold = float(min(threshold, HIGHEST_THRESHOLD))
    return UnknownRule(round(threshold, 6), count, float((ordered >= threshold).mean()))


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration | str:
    """Returns the temperature for these images and what it does, or why there is none.

    Args:
      logits: ``[N, K]``.
      labels: int ``[N]``, the true classes.
    """
    count = len(labels)
    if count < FEWEST_IMAGES:
        return _too_few(count)
    temperature = fit_temperature(logits, labels)
    nll, ece = zip(*(_errors(logits / value, labels) for value in (1.0, temperature)))
    return Calibration(temperature, count, nll[0], nll[1], ece[0], ece[1])


def _too_few(count: int) -> str:
    return f"minival has {count} images, {FEWEST_IMAGES} are needed"


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature, 0.05..20, with the least mean negative log-likelihood.

    Where all N images are named right, that would be the lowest one. Then it is the one with which
    the mean best probability is (N + 1) / (N + 2), which is how often the next image is right by
    Laplace's rule of succession.

    >>> fit_temperature(np.array([[4.0, 0], [4, 0], [4, 0], [4, 0]]), np.array([0, 0, 0, 1]))
    3.64...

    In that example, a class with the logit 4 above the other is right in 3 of 4 cases, so that
    ``exp(4 / temperature)`` is 3.

    Args:
      logits: ``[N, K]``.
      labels: int ``[N]``, the true classes.
    """
    if (np.asarray(logits).argmax(-1) == labels).all():
        return _flawless_temperature(logits)
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


def _flawless_temperature(logits: np.ndarray) -> float:
    """Returns the temperature with which the mean best probability of N images is as high.

    The mean falls as the temperature rises, so its distance from (N + 1) / (N + 2) has one zero.
    """
    wanted = (len(logits) + 1) / (len(logits) + 2)

    def excess(log: float) -> float:
        scaled = np.float64(logits) / math.exp(log)
        return float(np.exp(scaled.max(-1) - logsumexp(scaled, axis=-1)).mean()) - wanted

    low, high = math.log(LOWEST), math.log(HIGHEST)
    if excess(low) <= 0 or excess(high) >= 0:
        return LOWEST if excess(low) <= 0 else HIGHEST
    return math.exp(brentq(excess, low, high, xtol=_TOLERANCE))


def _errors(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the negative log-likelihood and the expected calibration error."""
    logits = np.asarray(logits, np.float64)
    confidence = np.exp(logits.max(-1) - logsumexp(logits, axis=-1))
    predictions = Predictions(
        np.arange(len(labels)), labels, logits.argmax(-1), np.float32(confidence)
    )
    return negative_log_likelihood(logits, labels), calibration_error(predictions)
