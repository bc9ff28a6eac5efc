"""A folded model in; LiteRT (TensorFlow Lite) files, as bytes, out.

The converter is TensorFlow's; names of classes and what an app must know are added to its result.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from efficientnetv2.export.litert_metadata import with_metadata
from efficientnetv2.export.quantised import QuantisedNetwork
from efficientnetv2.export.servable import Servable
from efficientnetv2.quiet import quiet

PRECISIONS = ("float32", "float16", "dynamic", "int8")
# Operators that only move numbers between the types at the ends of an int8 file.
_AT_THE_ENDS = ("QUANTIZE", "DEQUANTIZE")


def convert(servable: Servable, precision: str) -> bytes:
    """Returns a file of a float network, for images ``[1, S, S, C]``.

    The interpreter may resize its input to other batches and sizes, if squeeze-and-excitation sees
    more than one pixel at this one.

    Args:
      servable: the network.
      precision: ``float32``; ``float16``: weights in 16 bits; ``dynamic``: weights in 8 bits,
        computed in 8 bits where the machine is the faster for it.
    """
    folded = servable.folded
    converter = _converter(lambda image: folded(image, training=False), servable)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return _finished(converter, servable)


def convert_int8(servable: Servable, network: QuantisedNetwork, *, integer_io: bool) -> bytes:
    """Returns a file whose weights and activations are 8-bit integers.

    Args:
      servable: the network.
      network: its 8-bit form.
      integer_io: images and answers are uint8 too; the file says their scales. Otherwise both are
        float32, converted inside.
    """
    converter = _converter(network, servable)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if integer_io:
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    return _finished(converter, servable)


def float_operators(file: bytes) -> list[str]:
    """Lists what does not run in the int8 kernels of a file: ``OPERATOR (output's name)``."""
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        outputs = [graph.tensors[index] for index in operator.outputs]
        if kind not in _AT_THE_ENDS and outputs[0].type != schema.TensorType.INT8:
            found.append(f"{kind} ({outputs[0].name.decode()})")
    return found


def _converter(
    function: Callable[[tf.Tensor], tf.Tensor], servable: Servable
) -> tf.lite.TFLiteConverter:
    size = servable.image_size
    images = tf.TensorSpec([1, size, size, servable.channels], tf.float32, name="image")

    @tf.function(input_signature=[images])
    def network(image: tf.Tensor) -> tf.Tensor:
        return tf.identity(function(image), name=servable.output_name)

    # The converter cannot look into variables that it did not find in a SavedModel.
    with quiet():
        frozen = convert_variables_to_constants_v2(network.get_concrete_function())
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def _finished(converter: tf.lite.TFLiteConverter, servable: Servable) -> bytes:
    with quiet():
        file = converter.convert()
    return with_metadata(file, servable)
