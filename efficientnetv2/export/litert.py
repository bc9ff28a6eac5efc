"""Converts a folded model to LiteRT (TensorFlow Lite) files, returned as bytes.

Uses TensorFlow's converter, and adds the class names and the metadata that an app needs.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from efficientnetv2.export.formats import UnsupportedLayerError
from efficientnetv2.export.litert_metadata import IMAGE, with_metadata
from efficientnetv2.export.servable import Servable
from efficientnetv2.int8.arithmetic import is_known
from efficientnetv2.int8.rounded_network import RoundedNetwork
from efficientnetv2.model.traced_function import function_without_gradient
from efficientnetv2.runtime.tensorflow_import import silence_native_output
from efficientnetv2.train.target_scale import TargetScale

# Operators that only convert the float input and output of a file of integers.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_INTEGERS = (schema.TensorType.INT8, schema.TensorType.INT16)
# Activations for images unlike the calibration images were 3 to 6 times as large as for those. It
# costs two of 16 bits to have room for them.
_CONTRAST = 4.0


def convert(servable: Servable, precision: str) -> bytes:
    """Returns a LiteRT file of a float network, for images ``[1, S, S, C]``.

    The interpreter can resize its input to other batch and image sizes. Where the image size is so
    small that squeeze-and-excitation gets a single pixel, it can resize the batch alone.

    Args:
      servable: the network to convert.
      precision: ``float32``; ``float16``: weights in 16 bits; ``dynamic``: weights in 8 bits, and
        the runtime computes in 8 bits where that is faster.
    """
    folded = servable.standardised
    converter = _converter(lambda image: folded(image, training=False), servable)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return _run_converter(converter, servable)


def convert_int8(servable: Servable, network: RoundedNetwork, *, integer_io: bool) -> bytes:
    """Returns a LiteRT file whose weights and activations are 8-bit integers.

    Args:
      servable: the network to convert.
      network: its quantised form.
      integer_io: inputs and outputs are uint8 too, with scales that the file states. Otherwise they
        are float32 and converted inside.
    """
    converter = _converter(network, servable)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if integer_io:
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    return _run_converter(converter, servable)


def convert_int8_by_tensorflow(
    servable: Servable, images: np.ndarray, *, integer_io: bool
) -> bytes:
    """Returns a LiteRT file in 8-bit integers that TensorFlow's own quantiser makes.

    For networks with layers that ``QuantisedNetwork`` does not know. Weights are rounded to the
    nearest step and ranges are those of the images, so more is lost. An operator that has no 8-bit
    form stays in float32.

    Args:
      servable: the network to convert.
      images: to calibrate on, as the network takes them, float32 ``[N, S, S, C]``.
      integer_io: as in ``convert_int8``.
    """
    folded = servable.standardised
    converter = _converter(lambda image: folded(image, training=False), servable)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    if integer_io:
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
    kinds = {type(layer).__name__ for layer in folded.operations if not is_known(layer)}
    print(
        f"tflite_int8: quantised by TensorFlow, as this program's own quantiser does not know "
        f"{', '.join(sorted(kinds))}",
        flush=True,
    )
    return _run_converter(converter, servable)


def convert_int16x8(
    servable: Servable, network: RoundedNetwork | None, images: np.ndarray
) -> bytes:
    """Returns a LiteRT file with weights in 8 bits and activations in 16; input and output float32.

    With 65,536 levels, the range of a tensor need not be close: it is that of the smallest and
    largest value for the calibration images and for the same images with stronger contrast.

    Args:
      servable: the network to convert.
      network: its form with rounded weights, whose activations are not rounded; None: each weight
        is rounded to its nearest step.
      images: calibration images as the network takes them, float32 ``[N, S, S, C]``.
    """
    folded = servable.standardised
    converter = _converter(network or (lambda image: folded(image, training=False)), servable)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    wide = np.concatenate([images, _with_contrast(images, _CONTRAST)])
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in wide)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]
    # The new quantiser calibrates too, and has no 16 bits: its ranges would be thrown away.
    converter.experimental_new_quantizer = False
    return _run_converter(converter, servable)


def _with_contrast(images: np.ndarray, factor: float) -> np.ndarray:
    """Returns images whose differences from their mean colour are ``factor`` times as large."""
    mean = images.mean(axis=(0, 1, 2))
    return np.float32(mean + factor * (images - mean))


def float_operators(file: bytes) -> list[str]:
    """Lists a file's operators that compute in floats, as ``OPERATOR (name of its output)``."""
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    graph = model.subgraphs[0]
    entries = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        outputs = [graph.tensors[index] for index in operator.outputs]
        if kind not in _CONVERSIONS and outputs[0].type not in _INTEGERS:
            entries.append(f"{kind} ({outputs[0].name.decode()})")
    return entries


def _converter(
    function: Callable[[tf.Tensor], tf.Tensor], servable: Servable
) -> tf.lite.TFLiteConverter:
    size = servable.image_size
    images = tf.TensorSpec([1, size, size, servable.channels], tf.float32, name=IMAGE)

    def network(image: tf.Tensor) -> tf.Tensor:
        return tf.identity(function(image), name=servable.output_name)

    # The converter can read variables only from a SavedModel, so make them constants.
    traced = function_without_gradient(network, input_signature=[images])
    with silence_native_output():
        frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def _run_converter(converter: tf.lite.TFLiteConverter, servable: Servable) -> bytes:
    try:
        with silence_native_output():
            file = converter.convert()
    except Exception as error:  # the converter has no class of errors of its own
        operators = sorted(set(re.findall(r"\btf\.(\w+)", str(error))))
        what = f"has no {', '.join(operators)}" if operators else f"refuses it: {error}"
        raise UnsupportedLayerError(f"LiteRT {what}") from None
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    _keep_batches(model)
    if servable.scale is not None:
        _append_unit(model, servable.scale, name=servable.output_name)
    return with_metadata(model, servable)


def _append_unit(model: schema.ModelT, scale: TargetScale, *, name: str) -> None:
    """Appends what gives numbers their unit, in floats: a factor and an offset for each.

    In a file of integers, one step would have to do for all numbers, and for 0 as well.
    """
    (graph,) = model.subgraphs
    (last,) = graph.outputs
    source = graph.tensors[last]
    source.name = f"{name}_standardised".encode()
    kinds = schema.BuiltinOptions
    for ending, code, kind, options, values in (
        ("_scaled", "MUL", kinds.MulOptions, schema.MulOptionsT(), scale.deviation),
        ("", "ADD", kinds.AddOptions, schema.AddOptionsT(), scale.mean),
    ):
        constant, output = schema.TensorT(), copy.copy(source)
        constant.name, output.name = f"{name}{ending}/constant".encode(), f"{name}{ending}".encode()
        constant.shape, constant.type = np.array([len(values)], np.int32), source.type
        constant.buffer, output.buffer = len(model.buffers), 0
        content = schema.BufferT()
        content.data = np.frombuffer(np.array(values, "<f4").tobytes(), np.uint8)
        model.buffers.append(content)
        operator = schema.OperatorT()
        operator.opcodeIndex = _code_of(model, getattr(schema.BuiltinOperator, code))
        operator.inputs = [last, len(graph.tensors)]
        graph.tensors += [constant, output]
        last = len(graph.tensors) - 1
        operator.outputs = [last]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        graph.operators.append(operator)
    graph.outputs = [last]


def _code_of(model: schema.ModelT, operator: int) -> int:
    """Returns the place of an operator in the model's list, to which it is added."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _keep_batches(model: schema.ModelT) -> None:
    """Removes operators that let the network take one image only.

    Where squeeze-and-excitation gets a single pixel, the converter drops its axes of length 1, the
    batch among them, before a multiplication that would broadcast them anyway.
    """
    (graph,) = model.subgraphs
    kept: list[schema.OperatorT] = []
    renamed: dict[int, int] = {}  # tensor -> the one that takes its place
    for operator in graph.operators:
        operator.inputs = [renamed.get(tensor, tensor) for tensor in operator.inputs]
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) == schema.BuiltinOperator.RESHAPE:
            source, target = operator.inputs[0], operator.outputs[0]
            shape, new_shape = (list(graph.tensors[tensor].shape) for tensor in (source, target))
            if len(shape) > 1 and shape == [1] * (len(shape) - 1) + new_shape:
                renamed[target] = source
                continue
        kept.append(operator)
    graph.operators = kept
