"""Writes a TensorFlow SavedModel with signatures for images, image files and features."""

from __future__ import annotations

import functools
import json
import pathlib
import tempfile
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.eval_input import evaluation_image, evaluation_pixels
from efficientnetv2.export.servable import Servable
from efficientnetv2.export.warmup_requests import write_warmup_requests
from efficientnetv2.runtime.tensorflow_import import silence_native_output
from hparams.channels import GREY, RGB
from hparams.config import Config

XLA_SIGNATURE = "serving_xla"
# Signature -> its input, of those that a server runs when it loads the model.
_WARMED_UP = {"serving_default": "image", "serving_bytes": "image_bytes", XLA_SIGNATURE: "image"}


class _Served(tf.Module):
    """The functions of a network and the files that are saved with it.

    The attribute ``serve`` makes the LiteRT converter take this for one of Keras's own exports: it
    then converts only ``serving_default``, and not the other signatures, where it would fail.
    """

    serve: Callable


def _extract_features(servable: Servable, images: tf.TensorSpec) -> Callable:
    features = keras.Model(servable.folded.input, servable.features)

    @tf.function(input_signature=[images])
    def extract_features(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": features(image, training=False)}

    return extract_features


def write_saved_model(
    servable: Servable,
    path: pathlib.Path,
    *,
    config: Config,
    with_xla: bool,
) -> None:
    """Writes a SavedModel that needs only TensorFlow to run, with requests to warm up a server.

    Its signatures take any number of images B:
      serving_default: ``image`` float32 ``[B, H, W, C]`` -> ``servable.output_name`` ``[B, K]``.
      serving_bytes: ``image_bytes`` string ``[B]``, the contents of image files -> the same; the
        images are cropped and resized as in evaluation. Only with 1 or 3 channels: TensorFlow alone
        cannot read the files of others.
      features: ``image`` -> ``features`` ``[B, F]``, the classifier's input.
      serving_xla: as serving_default, for H and W of evaluation, compiled by XLA for TPU and GPU.

    Args:
      servable: the network to write.
      path: the folder to write.
      config: says how image files are cropped and resized.
      with_xla: also write ``serving_xla``.
    """
    folded, name, size = servable.folded, servable.output_name, servable.image_size
    images = tf.TensorSpec(folded.inputs[0].shape, tf.float32, name="image")
    fixed_images = tf.TensorSpec([None, size, size, servable.channels], tf.float32, name="image")
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    one_image = tf.TensorSpec([size, size, servable.channels], tf.float32)
    divisor = 255.0 if servable.preprocessing and servable.limits == (0.0, 1.0) else 1.0
    decode = functools.partial(
        evaluation_pixels if servable.preprocessing else evaluation_image, config
    )

    @tf.function(input_signature=[images])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: folded(image, training=False)}

    @tf.function(input_signature=[files])
    def serve_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = tf.map_fn(decode, image_bytes, fn_output_signature=one_image)
        decoded = decoded / tf.constant(divisor) if divisor != 1 else decoded
        return {name: folded(decoded, training=False)}

    @tf.function(input_signature=[fixed_images], jit_compile=True)
    def serve_xla(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: folded(image, training=False)}

    served = _Served()
    # Track the variables here: the LiteRT converter makes no constants of variables that only a
    # Keras model tracks.
    served.weights = [weight.value for weight in folded.weights]
    served.serve = serve
    signatures = {"serving_default": serve}
    if servable.channels in (GREY, RGB) and (servable.limits or not servable.preprocessing):
        signatures["serving_bytes"] = serve_bytes
    if servable.features is not None:
        signatures["features"] = _extract_features(servable, images)
    if with_xla:
        signatures[XLA_SIGNATURE] = serve_xla
    _save(served, signatures, servable, path)


def _save(served: _Served, signatures: dict, servable: Servable, path: pathlib.Path) -> None:
    """Writes the folder, with the labels and the metadata as assets, and requests to warm up."""
    with tempfile.TemporaryDirectory() as folder:
        served.assets = _assets(servable, pathlib.Path(folder))
        with silence_native_output():
            tf.saved_model.save(served, str(path), signatures=signatures)
    requests = {
        signature: _WARMED_UP[signature] for signature in _WARMED_UP if signature in signatures
    }
    write_warmup_requests(servable, path, requests)


def _assets(servable: Servable, folder: pathlib.Path) -> list[tf.saved_model.Asset]:
    """Writes the files that a SavedModel carries to a folder, from where it copies them."""
    labels, metadata = folder / "labels.txt", folder / "metadata.json"
    names = "".join(f"{label}\n" for label in servable.class_names)
    labels.write_text(names, encoding="utf-8")
    metadata.write_text(json.dumps(servable.metadata(), indent=2) + "\n", encoding="utf-8")
    return [tf.saved_model.Asset(str(file)) for file in (labels, metadata)]
