"""A network, images and classes in; where in each image the class is seen, as a heat map, out.

Grad-CAM (arXiv 1610.02391): the last feature maps, weighted by how much the class's logit rises
with each of them.
"""

from __future__ import annotations

import pathlib

import matplotlib as mpl
import matplotlib.image
import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.durable import writing
from hparams.preprocess import NORMALISATIONS

_LAYER = "top_activation"
_SIDE = 320  # pixels of a picture, at least
_HEAT = 0.5  # share of the heat map in the picture, where it is hottest


def heat_maps(model: keras.Model, images: tf.Tensor, classes: np.ndarray) -> np.ndarray:
    """Returns a map of each image, float32 ``[B, h, w]``, 0 to 1; all 0: nothing speaks for it.

    Args:
      model: images to logits, with our layer names.
      images: normalised, float32 ``[B, S, S, 3]``.
      classes: index of the class that is asked about, int ``[B]``.
    """
    both = keras.Model(model.inputs, [model.get_layer(_LAYER).output, model.output])
    with tf.GradientTape() as tape:
        tape.watch(images)  # or a layer without variables before it would end the trail
        maps, logits = both(images, training=False)
        asked = tf.gather(logits, tf.constant(classes, tf.int64), batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(asked, maps), [1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, -1))
    hottest = tf.reduce_max(heat, [1, 2], keepdims=True)
    return tf.math.divide_no_nan(heat, hottest).numpy()


def overlay(image: np.ndarray, heat: np.ndarray, *, preprocess: str) -> np.ndarray:
    """Lays a heat map over its image; returns uint8 ``[P, P, 3]``.

    Args:
      image: normalised, float32 ``[S, S, 3]``.
      heat: ``[h, w]``, 0 to 1.
      preprocess: how the image was normalised, a row of ``hparams.preprocess``.
    """
    normalisation = NORMALISATIONS[preprocess]
    side = max(_SIDE, image.shape[0])
    pixels = np.clip(image * normalisation.deviation + normalisation.mean, 0, 255) / 255
    pixels = tf.image.resize(pixels, [side, side], "bicubic").numpy()
    spread = np.clip(tf.image.resize(heat[..., None], [side, side], "bicubic").numpy(), 0, 1)
    colours = mpl.colormaps["turbo"](spread[..., 0])[..., :3]
    share = _HEAT * spread
    return (np.clip(pixels * (1 - share) + colours * share, 0, 1) * 255).astype(np.uint8)


def save_picture(picture: np.ndarray, path: pathlib.Path) -> None:
    """Writes a PNG file.

    Raises:
      WriteError: if it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        matplotlib.image.imsave(path, picture)
