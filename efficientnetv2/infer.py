"""Image files and a network in; class probabilities, and features if wanted, of each image out."""

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

from efficientnetv2.data.decode import decode_evaluation
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.model.folding import for_inference
from efficientnetv2.model.kernels import is_cpu_alone
from efficientnetv2.model.parts import cores, set_inference_threads
from hparams.resolve import Config

# Images, from which on a traced and a folded network make good for the time that they take to make.
_WORTH_TRACING = 17
_WORTH_FOLDING = 500
_MOST_PARTS = 8  # of a batch, side by side; with more cores than these it was not tried
_LARGER = 8 / 7  # side of the image that several crops are cut from, by the side of a crop


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
      path: the file.
      probabilities: float32 ``[K]``, 0..1.
      features: float32 ``[F]``, what the classifier saw; None: not asked for.
      image: float32 ``[S, S, 3]``, normalised, the crop that counted (of several, the centre).
    """

    path: pathlib.Path
    probabilities: np.ndarray
    features: np.ndarray | None
    image: np.ndarray


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An image that cannot be used.

    Attributes:
      path: the file.
      reason: one line, the file's name included.
    """

    path: pathlib.Path
    reason: str


def prepare_threads(num_images: int) -> None:
    """Sets TensorFlow's threads as the inference of many images wants them, where it can.

    Args:
      num_images: that ``predict`` will get.
    """
    if num_images < _WORTH_FOLDING or cores() > _MOST_PARTS or not is_cpu_alone():
        return
    with contextlib.suppress(RuntimeError):  # TensorFlow has begun: its threads stay as they are
        set_inference_threads()


def predict(
    model: keras.Model,
    config: Config,
    paths: Sequence[pathlib.Path],
    *,
    crops: int = 1,
    flip: bool = False,
    with_features: bool = False,
) -> Iterator[Prediction | Unreadable]:
    """Yields one answer an image, in order; the images of a batch are read side by side.

    Args:
      model: normalised images ``[B, S, S, 3]`` to logits ``[B, K]``.
      config: how images are cropped, resized and normalised.
      paths: image files.
      crops: 1: the image as evaluation sees it; 5: the centre and the corners of a larger one.
      flip: also look at each crop mirrored. Probabilities and features are means over all views.
      with_features: also return what the classifier saw.
    """
    outputs = {"logits": model.output}
    if with_features:
        outputs["features"] = model.get_layer("avg_pool").output
    network = keras.Model(model.inputs, outputs)
    run = _answering(for_inference(network) if len(paths) >= _WORTH_FOLDING else network, config)
    if len(paths) >= _WORTH_TRACING:
        signature = [tf.TensorSpec([None, None, None, 3])]
        run = tf.function(run, input_signature=signature, autograph=False)
    size = config.eval.batch_size
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:

        def read(start: int) -> list[concurrent.futures.Future]:
            batch = paths[start : start + size]
            return [pool.submit(_views, config, path, crops=crops, flip=flip) for path in batch]

        waiting = read(0)
        for start in range(0, len(paths), size):
            answers = [future.result() for future in waiting]
            waiting = read(start + size)  # while the network runs
            yield from _answered(run, paths[start : start + size], answers)


def _answered(
    run: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    paths: Sequence[pathlib.Path],
    answers: Sequence[tf.Tensor | str],
) -> Iterator[Prediction | Unreadable]:
    views = [answer for answer in answers if not isinstance(answer, str)]
    results: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    if views:
        outputs = [output.numpy() for output in run(tf.concat(views, 0))]
        of_each = (len(views), len(views[0]))
        results = zip(*(o.reshape(*of_each, o.shape[-1]).mean(axis=1) for o in outputs))
    for path, answer in zip(paths, answers):
        if isinstance(answer, str):
            yield Unreadable(path, answer)
        else:
            likely, seen = next(results)
            yield Prediction(path, likely, seen if seen.size else None, answer[0].numpy())


def _answering(
    network: keras.Model, config: Config
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Images ``[B, S, S, 3]`` to probabilities ``[B, K]`` and features ``[B, F]`` or ``[B, 0]``."""
    activation = tf.nn.softmax if config.train.loss_type == "softmax" else tf.nn.sigmoid

    def run(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = network(images, training=False)
        seen = found.get("features", tf.zeros([tf.shape(images)[0], 0]))
        return activation(tf.cast(found["logits"], tf.float32)), tf.cast(seen, tf.float32)

    return run


def _views(config: Config, path: pathlib.Path, *, crops: int, flip: bool) -> tf.Tensor | str:
    """All views of one image, ``[V, S, S, 3]``, the centre first; or what is wrong with it."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return f"cannot read image '{path}': {error.strerror or error}"
    if not encoded:
        return f"image '{path}' is empty"
    size = config.eval.isize
    try:
        image = decode_evaluation(
            tf.constant(encoded),
            image_size=size if crops == 1 else round(size * _LARGER),
            preprocess=config.model.preprocess,
            crop=config.data.eval_crop,
        )
    except tf.errors.OpError:
        return f"'{path}' is not an image, or is broken (JPEG, PNG, BMP, GIF)"
    views = tf.stack(list(_crops(normalise(image, config.model.preprocess), size, count=crops)))
    return tf.concat([views, tf.image.flip_left_right(views)], 0) if flip else views


def _crops(image: tf.Tensor, size: int, *, count: int) -> Iterator[tf.Tensor]:
    rest = image.shape[0] - size
    corners = [(0, 0), (0, rest), (rest, 0), (rest, rest)] if count == 5 else []
    for top, left in [(rest // 2, rest // 2), *corners]:
        yield image[top : top + size, left : left + size]
