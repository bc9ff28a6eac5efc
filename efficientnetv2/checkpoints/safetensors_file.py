"""Reads and writes .safetensors files.

A file begins with 8 bytes, the length of a JSON header. The header gives the dtype, shape and
offsets of each tensor; the values follow.
"""

from __future__ import annotations

import json
import math
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from hparams.errors import WeightsError

LARGEST_HEADER = 100 * 10**6  # bytes; the format's own limit
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all tensors; bfloat16 becomes float32.

    Raises:
      WeightsError: if the file cannot be read, or its header does not match its content.
    """
    try:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        if length > min(LARGEST_HEADER, len(data) - 8):
            raise WeightsError("its header is longer than the file")
        header = json.loads(data[8 : 8 + length].decode("utf-8"))
        header.pop("__metadata__", None)
        body = memoryview(data)[8 + length :]
        return {str(name): _tensor(body, entry) for name, entry in header.items()}
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except OSError as error:
        raise WeightsError(f"cannot read '{path}': {error.strerror or error}") from None
    except Exception as error:  # a broken header can cause any error
        raise WeightsError(f"'{path}' is not a complete .safetensors file ({error!r})") from None


def _tensor(body: memoryview, entry: Mapping[str, Any]) -> np.ndarray:
    kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in _TYPES:
        raise WeightsError(f"it has values of the unknown type {kind}")
    numbers = [*shape, start, end]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise WeightsError("a tensor has a size that is not a non-negative integer")
    dtype = np.dtype(_TYPES[kind])
    if not start <= end <= len(body) or end - start != math.prod(shape) * dtype.itemsize:
        raise WeightsError("the offsets of a tensor do not match its shape or the file")
    values = np.frombuffer(body[start:end], dtype).reshape(shape)
    if kind == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.copy()


def safetensors_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the content of a file of these tensors as float32, in the given order."""
    header, body, start = {}, [], 0
    for name, value in tensors.items():
        data = np.ascontiguousarray(value, "<f4").tobytes()
        place = [start, start + len(data)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": place}
        body.append(data)
        start += len(data)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + b"".join(body)
