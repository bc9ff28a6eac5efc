"""Predicts the classes of image files, optionally averaged over several crops of each image."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.bad_images import unreadable_file
from efficientnetv2.data.eval_input import evaluation_image
from efficientnetv2.data.views import Views
from efficientnetv2.evaluation.image_prediction import (
    Prediction,
    UnreadableImage,
    numbered_class_names,
)
from efficientnetv2.evaluation.metric_sums import metric_sums
from efficientnetv2.model.fold_batchnorm import for_inference
from efficientnetv2.model.kernels import is_cpu_only
from efficientnetv2.model.parallel_inference import cores, set_inference_threads
from efficientnetv2.model.traced_function import function_without_gradient
from efficientnetv2.train.target_scale import target_scale
from hparams.config import Config
from hparams.label_kinds import label_kind
from hparams.quantisation import is_quantised

# From this many images on, tracing and folding the network pay for the time that they take; and
# so does tracing the preprocessing, which then takes a fifth to two fifths of the time.
_WORTH_TRACING = 17
_WORTH_FOLDING = 500
_MAX_CORES = 8  # running parts of a batch in parallel was not tried on more


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
    paths: Iterable[pathlib.Path],
    *,
    class_names: Sequence[str] | None = None,
    thresholds: np.ndarray | None = None,
    temperature: float | None = None,
    known_from: float | None = None,
    num_images: int | None = None,
    crops: int = 1,
    flip: bool = False,
    with_features: bool = False,
    with_images: bool = True,
) -> Iterator[Prediction | UnreadableImage]:
    """Yields one prediction per image, in order; the images of a batch are read in parallel.

    Holds two batches of ``eval.batch_size`` images in memory, whatever the number of paths.

    Args:
      model: maps normalised images ``[B, S, S, C]`` to logits ``[B, K]``.
      config: says how images are cropped, resized and normalised.
      paths: the image files.
      class_names: K names; None: numbers.
      thresholds: as in ``Prediction``.
      temperature: logits are divided by it before the softmax, which calibrates the probabilities;
        None: they are not.
      known_from: as in ``Prediction``.
      num_images: of the whole work, of which ``paths`` may be the rest: the more images, the more
        is done to make the network fast, which changes the last bits of its outputs. None: the
        number of paths; many if they cannot be counted.
      crops: 1: the crop that evaluation uses; 5: the centre and the corners of a larger image.
      flip: also use the mirror image of each crop. Probabilities and features are means over all
        views.
      with_features: also return the classifier's input.
      with_images: also return the normalised image, which is much larger than all else.
    """
    outputs = {"logits": model.output}
    if with_features:
        outputs["features"] = model.get_layer("avg_pool").output
    network = keras.Model(model.inputs, outputs)
    if num_images is None:
        num_images = len(paths) if isinstance(paths, Sized) else _WORTH_FOLDING
    is_foldable = not is_quantised(config)  # else its BatchNormalization is folded already
    run = _probabilities_and_features(
        for_inference(network) if is_foldable and num_images >= _WORTH_FOLDING else network,
        config,
        temperature=temperature,
    )
    if num_images >= _WORTH_TRACING:
        signature = [tf.TensorSpec([None, None, None, config.model.channels])]
        run = function_without_gradient(run, input_signature=signature, autograph=False)
    views_of = _views_of_image(config, crops=crops, flip=flip, traced=num_images >= _WORTH_FOLDING)
    names = class_names or numbered_class_names(model.output.shape[-1])
    for batch, views in _batches(paths, views_of, size=config.eval.batch_size):
        for path, result in zip(batch, _results(run, views)):
            if isinstance(result, str):
                yield UnreadableImage(path, result)
            else:
                class_probabilities, features, image = result
                yield Prediction(
                    path,
                    names,
                    class_probabilities,
                    features if features.size else None,
                    image.numpy() if with_images else None,
                    kind=label_kind(config),
                    thresholds=thresholds,
                    known_from=known_from,
                )


def _batches(
    paths: Iterable[pathlib.Path], views_of: Callable[[tf.Tensor], tf.Tensor], *, size: int
) -> Iterator[tuple[list[pathlib.Path], list[tf.Tensor | str]]]:
    """Yields batches of paths and their views; reads one while the network runs on another."""
    files = iter(paths)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:

        def read() -> tuple[list[pathlib.Path], list[concurrent.futures.Future]]:
            batch = list(itertools.islice(files, size))
            return batch, [pool.submit(_read, views_of, path) for path in batch]

        batch, pending = read()
        while batch:
            views = [future.result() for future in pending]
            following = read()
            yield batch, views
            batch, pending = following


def _results(
    run: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], views: Sequence[tf.Tensor | str]
) -> Iterator[str | tuple[np.ndarray, np.ndarray, tf.Tensor]]:
    """Yields for each image its probabilities, features and first view, or why there are none."""
    readable = [image for image in views if not isinstance(image, str)]
    results: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
    if readable:
        outputs = [output.numpy() for output in run(tf.concat(readable, 0))]
        images_and_views = (len(readable), len(readable[0]))
        results = zip(*(o.reshape(*images_and_views, o.shape[-1]).mean(axis=1) for o in outputs))
    for image in views:
        yield image if isinstance(image, str) else (*next(results), image[0])


def _probabilities_and_features(
    network: keras.Model, config: Config, *, temperature: float | None
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Maps images ``[B, S, S, C]`` to probabilities ``[B, K]`` and features ``[B, F or 0]``.

    A network that predicts numbers gives these in place of probabilities.
    """
    metrics = metric_sums(
        config.train.loss_type,
        multi_label=config.data.multi_label,
        scale=target_scale(config.model),
    )

    def run(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = network(images, training=False)
        features = outputs.get("features", tf.zeros([tf.shape(images)[0], 0]))
        features = tf.cast(features, tf.float32)
        logits = outputs["logits"]
        if temperature is not None:
            logits = tf.cast(logits, tf.float32) / temperature
        return metrics.outputs(logits), features

    return run


def _views_of_image(
    config: Config, *, crops: int, flip: bool, traced: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Maps an encoded image to its views ``[V, S, S, C]``, the central one first."""
    views = Views(crops=crops, flip=flip)
    larger = views.source_size(config.eval.isize)

    def views_of(encoded: tf.Tensor) -> tf.Tensor:
        return views.of_image(evaluation_image(config, encoded, image_size=larger))

    if not traced:
        return views_of
    return tf.function(views_of, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _read(views_of: Callable[[tf.Tensor], tf.Tensor], path: pathlib.Path) -> tf.Tensor | str:
    """Returns all views of an image file; or why it cannot be read."""
    encoded = b""
    try:
        encoded = path.read_bytes()
        return views_of(tf.constant(encoded))
    except (OSError, tf.errors.OpError) as error:
        return unreadable_file(path, error, encoded)
