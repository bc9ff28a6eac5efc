"""Adds a signature, LiteRT metadata and class names to a LiteRT file, for apps to read.

The format is LiteRT's (``metadata_schema.fbs``): a FlatBuffer in the model's buffer
``TFLITE_METADATA``, and a zip archive after the model with the files that the FlatBuffer names. The
official library for it, tflite-support, has had no release since 2023 and needs Python 3.11 or
older.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from efficientnetv2.export.servable import PIXELS, Servable

LABELS = "labels.txt"
DESCRIPTION = "metadata.json"
SIGNATURE = "serving_default"
IMAGE = "image"  # name of the input
_NAME = b"TFLITE_METADATA"
_INITIAL_BYTES = 1 << 20  # of a builder, which grows
_IDENTIFIER = b"M001"
_MIN_PARSER_VERSION = "1.0.0"  # of image properties, normalisation and axis labels
_AXIS_LABELS = 2  # AssociatedFileType.TENSOR_AXIS_LABELS
_UNKNOWN = 0
_RGB = 1  # ColorSpaceType.RGB
_GRAYSCALE = 2
_IMAGE = 2  # ContentProperties.ImageProperties
_NORMALIZATION = 1  # ProcessUnitOptions.NormalizationOptions


def with_metadata(model: schema.ModelT, servable: Servable) -> bytes:
    """Returns a file with a signature, the size and scale of its input, and its class names."""
    model.signatureDefs = [_signature(model.subgraphs[0], servable)]
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(servable), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = _NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = SharingBuilder(_INITIAL_BYTES)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    whole = io.BytesIO(bytes(builder.Output()))
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr(LABELS, "".join(f"{name}\n" for name in servable.class_names))
        archive.writestr(DESCRIPTION, json.dumps(servable.metadata(), indent=2) + "\n")
    return whole.getvalue()


def _signature(graph: schema.SubGraphT, servable: Servable) -> schema.SignatureDefT:
    """Names the input and the output, so that an app need not know their numbers."""
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE
    (image,), (output,) = graph.inputs, graph.outputs
    signature.inputs = [_named(IMAGE, image)]
    signature.outputs = [_named(servable.output_name, output)]
    return signature


def _named(name: str, tensor: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, tensor
    return entry


class SharingBuilder(flatbuffers.Builder):
    """A FlatBuffer builder that writes equal vectors of numbers only once.

    Otherwise the zero points of all channels would be most of an int8 file's overhead.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
        """Returns the offset of a vector, written now or before."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


def _metadata(servable: Servable) -> bytes:
    builder = flatbuffers.Builder(1024)
    ranges = _ranges(builder, servable)
    image = _table(
        builder,
        {
            0: builder.CreateString(IMAGE),
            1: builder.CreateString(
                f"{servable.image_size} x {servable.image_size} pixels, "
                f"{servable.input_range}; of an image of another size: {servable.resize_steps}"
            ),
            3: _image_content(builder, servable),
            **ranges,
        },
    )
    labels = _table(
        builder,
        {
            0: builder.CreateString(LABELS),
            1: builder.CreateString("names of the outputs, in their order"),
            2: np.int8(_AXIS_LABELS),
        },
    )
    output = _table(
        builder,
        {0: builder.CreateString(servable.output_name), 6: _offsets(builder, [labels])},
    )
    graph = _table(builder, {2: _offsets(builder, [image]), 3: _offsets(builder, [output])})
    model = _table(
        builder,
        {
            0: builder.CreateString(servable.model_name),
            1: builder.CreateString(servable.description),
            3: _offsets(builder, [graph]),
            7: builder.CreateString(_MIN_PARSER_VERSION),
        },
    )
    builder.Finish(model, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _ranges(builder: flatbuffers.Builder, servable: Servable) -> dict[int, int]:
    """Writes how an app brings pixels of 0..255 to the inputs, and the limits of these.

    Pixels stay as they are if it is not known what the inputs are.
    """
    row, limits = servable.normalisation, servable.limits
    mean, deviation = row.mean, row.deviation
    if not servable.preprocessing:
        limits = _normalised_range(mean, deviation)
    else:
        low, high = limits or PIXELS
        factor = 255 / (high - low)
        mean, deviation = (0.0 - low * factor,), (factor,)
    ranges = {4: _offsets(builder, [_normalization(builder, mean, deviation)])}
    return {**ranges, 5: _limits(builder, *limits)} if limits else ranges


def _normalised_range(mean: Sequence[float], deviation: Sequence[float]) -> tuple[float, float]:
    return (
        min(-m / d for m, d in zip(mean, deviation)),
        max((255 - m) / d for m, d in zip(mean, deviation)),
    )


def _limits(builder: flatbuffers.Builder, low: float, high: float) -> int:
    return _table(builder, {0: _floats(builder, [high]), 1: _floats(builder, [low])})


def _image_content(builder: flatbuffers.Builder, servable: Servable) -> int:
    side = np.uint32(servable.image_size)
    size = _table(builder, {0: side, 1: side})
    colours = {1: _GRAYSCALE, 3: _RGB}.get(servable.channels, _UNKNOWN)
    properties = _table(builder, {0: np.int8(colours), 1: size})
    return _table(builder, {0: np.uint8(_IMAGE), 1: properties})


def _normalization(
    builder: flatbuffers.Builder, mean: Sequence[float], deviation: Sequence[float]
) -> int:
    options = _table(builder, {0: _floats(builder, mean), 1: _floats(builder, deviation)})
    return _table(builder, {0: np.uint8(_NORMALIZATION), 1: options})


def _floats(builder: flatbuffers.Builder, values: Sequence[float]) -> int:
    return int(builder.CreateNumpyVector(np.array(values, np.float32)))


def _offsets(builder: flatbuffers.Builder, tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def _table(builder: flatbuffers.Builder, fields: dict[int, Any]) -> int:
    """Writes a table; ``fields`` maps slots to NumPy numbers, or to offsets of written objects."""
    builder.StartObject(max(fields) + 1)
    for slot, value in fields.items():
        if isinstance(value, np.int8):
            builder.PrependInt8Slot(slot, int(value), 0)
        elif isinstance(value, np.uint8):
            builder.PrependUint8Slot(slot, int(value), 0)
        elif isinstance(value, np.uint32):
            builder.PrependUint32Slot(slot, int(value), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(builder.EndObject())
