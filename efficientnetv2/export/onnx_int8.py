"""Quantises an ONNX model to 8 bits by onnxruntime's own quantiser, calibrated on images."""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from efficientnetv2.export.onnx_file import onnx_model, packed
from efficientnetv2.export.servable import Servable
from efficientnetv2.runtime.tensorflow_import import silence_native_output


def _nodes_of_unit(model: onnx.ModelProto) -> list[str]:
    """Returns the names of the nodes that give numbers their unit, behind the classifier.

    In 8 bits they would leave nothing of a year, 2000 +- 5.
    """
    made_by = {output: node for node in model.graph.node for output in node.output}
    constants = {constant.name for constant in model.graph.initializer}
    names: list[str] = []
    node = made_by.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Mul", "Add"):
        names.append(node.name)
        sources = [name for name in node.input if name not in constants]
        node = made_by.get(sources[0]) if len(sources) == 1 else None
    return names if node is not None and node.op_type in ("Gemm", "MatMul") else []


class _Images(quantization.CalibrationDataReader):
    """Gives the quantiser one calibration image after another."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._name = name
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the next image, as a batch of one; None after the last."""
        image = next(self._images, None)
        return None if image is None else {self._name: image[np.newaxis]}


def onnx_int8_bytes(servable: Servable, images: np.ndarray) -> bytes:
    """Returns an ONNX model in 8 bits, with the inputs and outputs of the float one.

    Each tensor is followed by QuantizeLinear and DequantizeLinear (QDQ), which runtimes fuse with
    its operators. Weights have a step for each output channel; activations are uint8.

    Args:
      servable: the network to write.
      images: calibration images as the network takes them, float32 ``[N, S, S, C]``.
    """
    model = onnx_model(servable)
    name = model.graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        exact, prepared, rounded = (
            pathlib.Path(folder) / f"{stage}.onnx" for stage in ("float", "prepared", "int8")
        )
        onnx.save(model, str(exact))
        with silence_native_output():
            # Shapes are known without the symbolic step, which needs another package.
            quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(rounded),
                _Images(name, images),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=_nodes_of_unit(onnx.load(str(prepared))) if servable.scale else [],
            )
        return packed(onnx.load(str(rounded)), servable)
