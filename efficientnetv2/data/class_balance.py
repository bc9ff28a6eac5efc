"""Weighs, and draws, images of rare and of frequent classes: sampling, weights, log priors.

docs/data.md says which to use when.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from efficientnetv2.data.sources.source import permutation
from hparams.choices import SAMPLINGS
from hparams.class_weights import BALANCED, given_weights
from hparams.config import Config


def class_weights(config: Config) -> np.ndarray | None:
    """Returns the weight of each class in the loss, float32 ``[K]``; None: all weigh the same.

    ``balanced`` is in inverse proportion to the number of images, as in scikit-learn. The mean over
    the training images is 1, where their number by class is known.
    """
    wanted = given_weights(config)
    if not wanted:
        return None
    counts = np.array(config.train.class_counts, np.float64)
    is_balanced = wanted == [BALANCED]
    weights = 1 / counts if is_balanced else np.array([float(text) for text in wanted])
    if len(counts):
        weights = weights * counts.sum() / (weights * counts).sum()
    return weights.astype(np.float32)


def log_priors(config: Config) -> np.ndarray | None:
    """Returns what logit adjustment adds to the logits in training: float32 ``[K]``; None: nothing.

    ``train.logit_adjustment`` times the logarithm of each class's share of the training images
    (arXiv:2007.07314, equation 10): rare classes must win by more to count as won.
    """
    strength = config.train.logit_adjustment
    if not strength:
        return None
    counts = np.array(config.train.class_counts, np.float64)
    return np.float32(strength * np.log(counts / counts.sum()))


def draw_probabilities(labels: np.ndarray, sampling: str) -> np.ndarray:
    """Returns how often an epoch draws each image, on average: float64 ``[N]``, with mean 1.

    Args:
      labels: int ``[N]``, class of each image.
      sampling: a value of ``data.sampling``: each class as often as it has images (natural), as the
        root of that (sqrt), or all equally often (balanced).
    """
    counts = np.bincount(labels)
    by_class = np.float64(counts) ** SAMPLINGS[sampling] / np.maximum(counts, 1)
    drawn = by_class[labels]
    return drawn * len(labels) / drawn.sum()


def draw(drawn: np.ndarray, seed: tf.Tensor) -> tf.Tensor:
    """Returns int64 ``[N]``: an epoch's draw of N of N images, in random order.

    Systematic sampling: each image comes as often as ``drawn`` says, rounded up or down; which way
    depends on the seed. So of a frequent class other images come in each epoch, and of a rare class
    all images, equally often.

    Args:
      drawn: from ``draw_probabilities``.
      seed: int64 scalar; the draw is a function of it alone.
    """
    count = len(drawn)
    order = permutation(count, seed)
    ends = tf.cumsum(tf.gather(tf.constant(drawn, tf.float64), order))
    full_seed = tf.stack([tf.cast(seed, tf.int64), tf.constant(1, tf.int64)])
    start = tf.random.stateless_uniform([], full_seed, dtype=tf.float64, alg="philox")
    points = start + tf.range(count, dtype=tf.float64)
    places = tf.minimum(tf.searchsorted(ends, points, side="right"), count - 1)
    # Equal images are neighbours here.
    return tf.gather(tf.gather(order, places), permutation(count, ~tf.cast(seed, tf.int64)))
