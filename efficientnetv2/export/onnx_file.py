"""Converts a folded model to an ONNX file with labels and metadata."""

from __future__ import annotations

import json
import pathlib
import tempfile
from typing import TYPE_CHECKING

from tensorflow import keras

from efficientnetv2.export.formats import UnsupportedLayerError
from efficientnetv2.export.servable import Servable
from efficientnetv2.runtime.tensorflow_import import silence_native_output

if TYPE_CHECKING:
    import onnx


def onnx_model(servable: Servable) -> onnx.ModelProto:
    """Returns an ONNX model that maps ``image`` float32 ``[B, H, W, C]`` to ``[B, K]``.

    B, H and W are dynamic; of a user's model with images of one size only B.
    """
    import onnx  # not at the top: exports of other formats do not need it

    shape = tuple(servable.folded.inputs[0].shape)
    image = keras.InputSpec(dtype="float32", shape=shape)
    image.name = "image"
    with tempfile.TemporaryDirectory() as folder, silence_native_output():
        path = pathlib.Path(folder) / "model.onnx"
        try:
            servable.folded.export(str(path), format="onnx", verbose=False, input_signature=[image])
            model = onnx.load(str(path))
            onnx.checker.check_model(model)
        except (ValueError, NotImplementedError, onnx.checker.ValidationError) as error:
            raise UnsupportedLayerError(f"ONNX cannot express it: {error}") from None
    _rename(model, model.graph.output[0].name, servable.output_name)
    for value, num_dynamic in ((model.graph.input[0], 3), (model.graph.output[0], 1)):
        axes = zip(value.type.tensor_type.shape.dim, ("batch", "height", "width")[:num_dynamic])
        for (axis, name), side in zip(axes, shape):
            if side is None:
                axis.dim_param = name
    return model


def packed(model: onnx.ModelProto, servable: Servable) -> bytes:
    """Returns the bytes of a model's file, with the class names and what an app must know.

    ``metadata_props`` hold ``labels`` (one class per line) and ``Servable.metadata``.
    """
    import onnx

    texts = {key: json.dumps(value) for key, value in servable.metadata().items()}
    onnx.helper.set_model_props(model, {**texts, "labels": "\n".join(servable.class_names)})
    model.producer_name = "efficientnetv2-tensorflow"
    model.doc_string = (
        f"{servable.model_name}, {servable.description}; of an image of another size: "
        f"{servable.resize_steps}"
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    graph = model.graph
    graph.output[0].name = new
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
        node.input[:] = [new if name == old else name for name in node.input]
