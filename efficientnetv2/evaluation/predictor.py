"""Predicts the classes of image files, optionally averaged over several crops of each image."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.bad_images import unreadable_file
from efficientnetv2.data.eval_input import evaluation_image
from efficientnetv2.model.fold_batchnorm import for_inference
from efficientnetv2.model.kernels import is_cpu_only
from efficientnetv2.model.parallel_inference import cores, set_inference_threads
from efficientnetv2.train.losses import probabilities
from hparams.config import Config

# From this many images on, tracing and folding the network pay for the time that they take.
_WORTH_TRACING = 17
_WORTH_FOLDING = 500
_MAX_CORES = 8  # running parts of a batch in parallel was not tried on more
_CROP_MARGIN = 8 / 7  # side of the image that several crops are cut from, relative to a crop


@dataclasses.dataclass(frozen=True)
class ImagePrediction:
    """A network's prediction for one image.

    Attributes:
      path: the image file.
      probabilities: float32 ``[K]``, 0..1.
      features: float32 ``[F]``, the classifier's input; None: not requested.
      image: float32 ``[S, S, 3]``, normalised, the crop that was used (of several, the central).
    """

    path: pathlib.Path
    probabilities: np.ndarray
    features: np.ndarray | None
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class UnreadableImage:
    """An image file that cannot be read.

    Attributes:
      path: the image file.
      reason: what is wrong, in one line that names the file.
    """

    path: pathlib.Path
    reason: str


def prepare_threads(num_images: int) -> None:
    """Sets TensorFlow's threads for fast inference, if there are enough images to gain from it.

    Does nothing with an accelerator, on many cores, or once TensorFlow has started.

    Args:
      num_images: the number of images that ``predict`` will be called with.
    """
    if num_images < _WORTH_FOLDING or cores() > _MAX_CORES or not is_cpu_only():
        return
    with contextlib.suppress(RuntimeError):  # TensorFlow has started: its threads are fixed
        set_inference_threads()


def predict(
    model: keras.Model,
    config: Config,
    paths: Sequence[pathlib.Path],
    *,
    crops: int = 1,
    flip: bool = False,
    with_features: bool = False,
) -> Iterator[ImagePrediction | UnreadableImage]:
    """Yields one prediction per image, in order; the images of a batch are read in parallel.

    Args:
      model: maps normalised images ``[B, S, S, 3]`` to logits ``[B, K]``.
      config: says how images are cropped, resized and normalised.
      paths: the image files.
      crops: 1: the crop that evaluation uses; 5: the centre and the corners of a larger image.
      flip: also use the mirror image of each crop. Probabilities and features are means over all
        views.
      with_features: also return the classifier's input.
    """
    outputs = {"logits": model.output}
    if with_features:
        outputs["features"] = model.get_layer("avg_pool").output
    network = keras.Model(model.inputs, outputs)
    run = _probabilities_and_features(
        for_inference(network) if len(paths) >= _WORTH_FOLDING else network, config
    )
    if len(paths) >= _WORTH_TRACING:
        signature = [tf.TensorSpec([None, None, None, 3])]
        run = tf.function(run, input_signature=signature, autograph=False)
    size = config.eval.batch_size
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:

        def read(start: int) -> list[concurrent.futures.Future]:
            batch = paths[start : start + size]
            return [pool.submit(_views, config, path, crops=crops, flip=flip) for path in batch]

        pending = read(0)
        for start in range(0, len(paths), size):
            views = [future.result() for future in pending]
            pending = read(start + size)  # while the network runs
            yield from _predictions_of(run, paths[start : start + size], views)


def _predictions_of(
    run: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    paths: Sequence[pathlib.Path],
    views: Sequence[tf.Tensor | str],
) -> Iterator[ImagePrediction | UnreadableImage]:
    readable = [image for image in views if not isinstance(image, str)]
    results: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    if readable:
        outputs = [output.numpy() for output in run(tf.concat(readable, 0))]
        images_and_views = (len(readable), len(readable[0]))
        results = zip(*(o.reshape(*images_and_views, o.shape[-1]).mean(axis=1) for o in outputs))
    for path, image in zip(paths, views):
        if isinstance(image, str):
            yield UnreadableImage(path, image)
        else:
            class_probabilities, features = next(results)
            yield ImagePrediction(
                path,
                class_probabilities,
                features if features.size else None,
                image[0].numpy(),
            )


def _probabilities_and_features(
    network: keras.Model, config: Config
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Maps images ``[B, S, S, 3]`` to probabilities ``[B, K]`` and features ``[B, F or 0]``."""

    def run(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = network(images, training=False)
        features = outputs.get("features", tf.zeros([tf.shape(images)[0], 0]))
        class_probabilities = probabilities(outputs["logits"], config.train.loss_type)
        return class_probabilities, tf.cast(features, tf.float32)

    return run


def _views(config: Config, path: pathlib.Path, *, crops: int, flip: bool) -> tf.Tensor | str:
    """All views of an image, ``[V, S, S, 3]``, the central one first; or why it cannot be read."""
    size = config.eval.isize
    encoded = b""
    try:
        encoded = path.read_bytes()
        image = evaluation_image(
            config,
            tf.constant(encoded),
            image_size=size if crops == 1 else round(size * _CROP_MARGIN),
        )
    except (OSError, tf.errors.OpError) as error:
        return unreadable_file(path, error, encoded)
    views = tf.stack(list(_crops(image, size, count=crops)))
    return tf.concat([views, tf.image.flip_left_right(views)], 0) if flip else views


def _crops(image: tf.Tensor, size: int, *, count: int) -> Iterator[tf.Tensor]:
    margin = image.shape[0] - size
    corners = [(0, 0), (0, margin), (margin, 0), (margin, margin)] if count == 5 else []
    for top, left in [(margin // 2, margin // 2), *corners]:
        yield image[top : top + size, left : left + size]
