"""Image files in; their most probable classes out."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.evaluation import evaluation_image
from hparams.errors import UserError
from hparams.resolve import Config


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
      path: the file.
      classes: (name, probability in 0..1), the most probable first.
    """

    path: pathlib.Path
    classes: list[tuple[str, float]]


def predict(
    model: keras.Model,
    config: Config,
    paths: Sequence[pathlib.Path],
    *,
    class_names: Sequence[str],
    top_k: int,
) -> Iterator[Prediction]:
    """Yields one prediction an image, in order.

    Args:
      model: normalised images ``[B, S, S, 3]`` to logits ``[B, K]``.
      config: how images are cropped, resized and normalised.
      paths: image files.
      class_names: K names.
      top_k: classes an image; K if there are fewer.

    Raises:
      UserError: names the first file that cannot be read or is no image.
    """
    size = config.eval.batch_size
    for start in range(0, len(paths), size):
        batch = paths[start : start + size]
        images = tf.stack([_load(config, path) for path in batch])
        probabilities = tf.nn.softmax(tf.cast(model(images, training=False), tf.float32))
        best = tf.math.top_k(probabilities, k=min(top_k, len(class_names)))
        for path, values, indices in zip(batch, best.values.numpy(), best.indices.numpy()):
            classes = [(class_names[i], float(p)) for i, p in zip(indices, values)]
            yield Prediction(path, classes)


def _load(config: Config, path: pathlib.Path) -> tf.Tensor:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image '{path}': {error.strerror or error}") from None
    if not encoded:
        raise UserError(f"image '{path}' is empty")
    try:
        return evaluation_image(config, tf.constant(encoded))
    except tf.errors.OpError:
        raise UserError(f"'{path}' is not an image, or is broken (JPEG, PNG, BMP, GIF)") from None
