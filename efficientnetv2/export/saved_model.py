"""A folded model in; a TensorFlow SavedModel with a signature for each way to be asked out."""

from __future__ import annotations

import json
import pathlib
import tempfile
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.export.servable import Servable
from efficientnetv2.quiet import quiet

SIGNATURES = ("serving_default", "serving_bytes", "features")
XLA_SIGNATURE = "serving_xla"


class _Served(tf.Module):
    """Functions of a network and the files that go with it.

    The attribute ``serve`` is what the LiteRT converter knows Keras's own exports by; it then
    converts ``serving_default`` and leaves the others, which it could not.
    """

    serve: Callable


def write_saved_model(
    servable: Servable,
    path: pathlib.Path,
    *,
    decode: Callable[[tf.Tensor], tf.Tensor],
    with_xla: bool,
) -> None:
    """Writes a SavedModel that needs TensorFlow and nothing else.

    Signatures, all for any number of images B:
      serving_default: ``image`` float32 ``[B, H, W, C]`` -> ``servable.output_name`` ``[B, K]``.
      serving_bytes: ``image_bytes`` string ``[B]``, files -> the same, cropped and resized as in
        evaluation.
      features: ``image`` -> ``features`` ``[B, F]``, what the classifier sees.
      serving_xla: as serving_default, H and W of evaluation, compiled by XLA for TPU and GPU.

    Args:
      servable: the network.
      path: folder.
      decode: one file's bytes to an image ``[S, S, C]`` as the network takes it.
      with_xla: also write ``serving_xla``.
    """
    folded, name, size = servable.folded, servable.output_name, servable.image_size
    features = keras.Model(folded.input, folded.get_layer("avg_pool").output)
    images = tf.TensorSpec([None, None, None, servable.channels], tf.float32, name="image")
    fixed = tf.TensorSpec([None, size, size, servable.channels], tf.float32, name="image")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    one = tf.TensorSpec([size, size, servable.channels], tf.float32)

    @tf.function(input_signature=[images])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: folded(image, training=False)}

    @tf.function(input_signature=[files])
    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = tf.map_fn(decode, image_bytes, fn_output_signature=one)
        return {name: folded(decoded, training=False)}

    @tf.function(input_signature=[images])
    def see(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": features(image, training=False)}

    @tf.function(input_signature=[fixed], jit_compile=True)
    def serve_xla(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: folded(image, training=False)}

    served = _Served()
    # The variables themselves: of those that only a Keras model tracks the LiteRT converter makes
    # no constants.
    served.weights = [weight.value for weight in folded.weights]
    served.serve = serve
    signatures = dict(zip(SIGNATURES, (serve, serve_bytes, see)))
    if with_xla:
        signatures[XLA_SIGNATURE] = serve_xla
    with tempfile.TemporaryDirectory() as folder:
        labels = pathlib.Path(folder) / "labels.txt"
        labels.write_text("".join(f"{label}\n" for label in servable.class_names))
        metadata = pathlib.Path(folder) / "metadata.json"
        metadata.write_text(json.dumps(servable.metadata(), indent=2) + "\n")
        served.assets = [tf.saved_model.Asset(str(file)) for file in (labels, metadata)]
        with quiet():
            tf.saved_model.save(served, str(path), signatures=signatures)
