"""Writes requests into a SavedModel that TensorFlow Serving runs when it loads the model.

The first request to a signature is slow: TensorFlow then chooses kernels, and XLA compiles. With
these, a server answers at its usual speed from the start. Where and how is in TensorFlow Serving's
"SavedModel Warmup"; the messages are in its ``apis/prediction_log.proto`` and ``predict.proto``.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from efficientnetv2.export.servable import Servable

FILE = pathlib.PurePath("assets.extra") / "tf_serving_warmup_requests"
_GREY_LEVEL = 128
# Numbers of fields in the messages of TensorFlow Serving. Its package would be another dependency
# for these few bytes; a test reads them with it.
_PREDICT_LOG = 6  # of PredictionLog
_REQUEST = 1  # of PredictLog
_MODEL_SPEC, _INPUTS = 1, 2  # of PredictRequest
_NAME, _SIGNATURE_NAME = 1, 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of an entry of a map
_WITH_LENGTH = 2  # wire type of texts and messages


def write_warmup_requests(
    servable: Servable, path: pathlib.Path, signatures: Mapping[str, str]
) -> None:
    """Writes one request with one image to each of some signatures.

    The images are grey: none of the data gets into the file.

    Args:
      servable: the network of the SavedModel.
      path: the folder of the SavedModel.
      signatures: name -> the name of its input, which takes images ``[B, S, S, C]``, or files if
        the name ends in ``_bytes``.
    """
    side, channels = servable.image_size, servable.channels
    shape = (1, side, side, channels)
    # A tensor whose values are all equal states its value once.
    images = tf.make_tensor_proto(np.full(shape, _GREY_LEVEL, np.float32))
    images.tensor_content = b""
    images.float_val.append(_GREY_LEVEL)
    (path / FILE).parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path / FILE)) as writer:
        for signature, name in signatures.items():
            tensor = _files(side, channels) if name.endswith("_bytes") else images
            writer.write(_prediction_log(servable.model_name, signature, name, tensor))


def _files(side: int, channels: int) -> tf.compat.v1.TensorProto:
    """Returns a JPEG file, larger than the images and of another shape, as a tensor ``[1]``."""
    pixels = tf.fill([2 * side, 3 * side, channels], tf.constant(_GREY_LEVEL, tf.uint8))
    return tf.make_tensor_proto([tf.io.encode_jpeg(pixels).numpy()])


def _prediction_log(
    model: str, signature: str, input_name: str, tensor: tf.compat.v1.TensorProto
) -> bytes:
    """Returns the ``PredictionLog`` of a request with one input."""
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE_NAME, signature.encode())
    entry = _field(_KEY, input_name.encode()) + _field(_VALUE, tensor.SerializeToString())
    request = _field(_MODEL_SPEC, spec) + _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a message in the wire format of protocol buffers."""
    return _varint(number << 3 | _WITH_LENGTH) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Returns a number in groups of 7 bits, the lowest first; the high bit says: more follow."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
