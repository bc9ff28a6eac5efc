"""Shows which parts of an image speak for a class, as a Grad-CAM heat map.

Grad-CAM (arXiv 1610.02391) sums the last feature maps, each weighted by how much the class's logit
rises with it.
"""

from __future__ import annotations

import os
import pathlib

import matplotlib as mpl
import matplotlib.image
import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.preprocess import shown_pixels
from efficientnetv2.evaluation.image_prediction import Prediction
from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.runtime.atomic_write import draft_of, write_error_for
from hparams.channels import normalisation_of
from hparams.choices import Normalisation
from hparams.label_kinds import NUMBERS

_LAYER = "top_activation"
_MAX_NAME_BYTES = 250  # file systems take 255, the ending among them
_MIN_SIDE = 320  # pixels, of a picture
_MAX_OPACITY = 0.5  # of the heat map over the image, where it is hottest


def heat_maps(model: keras.Model, images: tf.Tensor, classes: np.ndarray) -> np.ndarray:
    """Returns a heat map per image, float32 ``[B, h, w]`` in 0..1.

    A map is all 0 if no part of the image speaks for the class.

    Args:
      model: maps images to logits, with our layer names.
      images: normalised, float32 ``[B, S, S, C]``.
      classes: the index of the class to look for in each image, int ``[B]``.
    """
    with_feature_maps = keras.Model(model.inputs, [model.get_layer(_LAYER).output, model.output])
    with tf.GradientTape() as tape:
        tape.watch(images)  # else nothing before the first variable would be recorded
        feature_maps, logits = with_feature_maps(images, training=False)
        class_logits = tf.gather(logits, tf.constant(classes, tf.int64), batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(class_logits, feature_maps), [1, 2], keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * feature_maps, -1))
    hottest = tf.reduce_max(heat, [1, 2], keepdims=True)
    return tf.math.divide_no_nan(heat, hottest).numpy()


def overlay(image: np.ndarray, heat: np.ndarray, *, preprocess: Normalisation | str) -> np.ndarray:
    """Draws a heat map over its image; returns uint8 ``[P, P, 3]``, P at least 320.

    Args:
      image: normalised, float32 ``[S, S, C]``; see ``to_pixels`` for C other than 3.
      heat: ``[h, w]``, 0..1.
      preprocess: how the image was normalised, as in ``normalise``.
    """
    side = max(_MIN_SIDE, image.shape[0])
    pixels = shown_pixels(image, preprocess) / 255
    pixels = tf.image.resize(pixels, [side, side], "bicubic").numpy()
    heat = np.clip(tf.image.resize(heat[..., None], [side, side], "bicubic").numpy(), 0, 1)
    colours = mpl.colormaps["turbo"](heat[..., 0])[..., :3]
    opacity = _MAX_OPACITY * heat
    return (np.clip(pixels * (1 - opacity) + colours * opacity, 0, 1) * 255).astype(np.uint8)


def save_picture(picture: np.ndarray, path: pathlib.Path) -> None:
    """Writes a picture as a PNG file; missing folders are created.

    Raises:
      WriteError: if it cannot be written.
    """
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft:
        matplotlib.image.imsave(draft, picture, format="png")


def explain_prediction(
    loaded: LoadedModel, prediction: Prediction, *, folder: pathlib.Path, number: int
) -> None:
    """Writes the heat map of an image's most likely class into ``explain/`` of a folder.

    Of a network that predicts numbers, it is that of the first number.

    Args:
      loaded: the network.
      prediction: its prediction for the image, with ``image``.
      folder: an existing folder.
      number: the image's number in the list, from 1; part of the file name, so that images of the
        same name from several folders stay apart.

    Raises:
      WriteError: if the picture cannot be written.
    """
    assert prediction.image is not None
    images = tf.constant(prediction.image)[tf.newaxis]
    output = 0 if prediction.kind == NUMBERS else int(prediction.probabilities.argmax())
    heat = heat_maps(loaded.model, images, np.array([output]))[0]
    normalisation = normalisation_of(loaded.config.model)
    picture = overlay(prediction.image, heat, preprocess=normalisation)
    name = f"{number:05}-{prediction.path.stem}"
    while len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = name[:-1]
    save_picture(picture, folder / "explain" / f"{name}.png")
