"""Draws many augmented images, and tells how far draws are from their distribution."""

import numpy as np
import tensorflow as tf

SIGMAS = 5  # tolerance of all statistics; the draws follow from the seed, so they stay as they are


def photo(side, generator_seed=3):
    """Smooth noise: an image that every operation changes."""
    generator = np.random.default_rng(generator_seed)
    coarse = generator.integers(0, 256, [6, 6, 3]).astype(np.float32)
    return tf.cast(tf.image.resize(coarse, [side, side]), tf.uint8)


def over_seeds(function, image, *, count, seed):
    """``function(image, [seed, index])`` for ``count`` indices inside Dataset.map, in one array."""
    image = tf.constant(image, tf.uint8)

    @tf.autograph.experimental.do_not_convert
    def outcome(index):
        unknown = tf.compat.v1.placeholder_with_default(image, [None, None, 3])
        return function(unknown, tf.stack([seed, index]))

    data = tf.data.Dataset.range(count).map(outcome, num_parallel_calls=2)
    return np.array(list(data.as_numpy_iterator()))


def chi_square(counts):
    """Standard deviations by which counts are less even than chance makes them."""
    expected = counts.sum() / counts.size
    free = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - free) / np.sqrt(2 * free)


def distance(ours, theirs):
    """Kolmogorov and Smirnov's: the largest difference of the distribution functions."""
    values = np.union1d(ours, theirs)
    shares = [np.searchsorted(np.sort(x), values, side="right") / len(x) for x in (ours, theirs)]
    return np.abs(shares[0] - shares[1]).max()
