"""Reads and writes .safetensors files.

A file begins with 8 bytes, the length of a JSON header. The header gives the dtype, shape and
offsets of each tensor; the values follow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from efficientnetv2.checkpoints.budget import Budget
from hparams.errors import WeightsError

LARGEST_HEADER = 100 * 10**6  # bytes; the format's own limit
_LARGEST_USED_HEADER = 8 * 2**20  # that of efficientnet-l2 has 0.5 MB
_MOST_AXES = 8
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


def read_safetensors(path: pathlib.Path, *, budget: Budget | None = None) -> dict[str, np.ndarray]:
    """Reads all tensors; bfloat16 becomes float32.

    Args:
      path: of the file.
      budget: of the network that is to be filled; None: that of a small one.

    Raises:
      WeightsError: if the file cannot be read, its header does not match its content, or its
        tensors are too large for the network.
    """
    budget = budget or Budget(0)
    with _open(path) as (stream, begin, places, _):
        return {
            name: _read_tensor(stream, place, begin, name=name, budget=budget)
            for name, place in places.items()
        }


def read_safetensors_shapes(
    path: pathlib.Path,
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Reads the header alone: (name -> shape, metadata).

    Raises:
      WeightsError: as ``read_safetensors``.
    """
    with _open(path) as (_, _, places, metadata):
        return {name: place.shape for name, place in places.items()}, metadata


@contextlib.contextmanager
def _open(
    path: pathlib.Path,
) -> Iterator[tuple[BinaryIO, int, dict[str, _Place], dict[str, str]]]:
    """Yields the file, where its values begin, the place of each tensor, and the metadata."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            size = os.fstat(stream.fileno()).st_size - 8 - length
            if size < 0 or length > LARGEST_HEADER:
                raise WeightsError("its header is longer than the file")
            if length > _LARGEST_USED_HEADER:
                raise WeightsError("its header is too large for the names of a network's weights")
            header = json.loads(stream.read(length).decode("utf-8"))
            metadata = header.pop("__metadata__", None)
            metadata = metadata if isinstance(metadata, dict) else {}
            places = {str(name): _place(entry, size) for name, entry in header.items()}
            _require_apart(places)
            yield stream, 8 + length, places, {str(k): str(v) for k, v in metadata.items()}
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except OSError as error:
        raise WeightsError(f"cannot read '{path}': {error.strerror or error}") from None
    except Exception as error:  # a broken header can cause any error
        reason = repr(error)[:200]
        raise WeightsError(f"'{path}' is not a complete .safetensors file ({reason})") from None


@dataclasses.dataclass(frozen=True)
class _Place:
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


def _place(entry: Mapping[str, Any], size: int) -> _Place:
    """Checks one entry of the header; ``size`` is that of all values, in bytes."""
    kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in _TYPES:
        raise WeightsError(f"it has values of the unknown type {str(kind)[:40]}")
    if len(shape) > _MOST_AXES:
        raise WeightsError(f"a tensor has {len(shape)} axes, more than weights have")
    numbers = [*shape, start, end]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise WeightsError("a tensor has a size that is not a non-negative integer")
    itemsize = np.dtype(_TYPES[kind]).itemsize
    if not start <= end <= size or end - start != math.prod(shape) * itemsize:
        raise WeightsError("the offsets of a tensor do not match its shape or the file")
    return _Place(kind, tuple(shape), start, end)


def _require_apart(places: Mapping[str, _Place]) -> None:
    last = 0
    for place in sorted(places.values(), key=lambda place: (place.start, place.end)):
        if place.start < last and place.start < place.end:
            raise WeightsError("its tensors overlap, which the format does not allow")
        last = max(last, place.end)


def _read_tensor(
    stream: BinaryIO, place: _Place, begin: int, *, name: str, budget: Budget
) -> np.ndarray:
    dtype = np.dtype(_TYPES[place.kind])
    budget.take(place.shape, dtype.itemsize, name=name)
    stream.seek(begin + place.start)
    data = bytearray(stream.read(place.end - place.start))
    values = np.frombuffer(data, dtype).reshape(place.shape)
    if place.kind == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def safetensors_bytes(
    tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Returns the content of a file of these tensors as float32, in the given order.

    Args:
      tensors: name -> values.
      metadata: what the header says of the file, besides the format.
    """
    header, body, start = {}, [], 0
    for name, value in tensors.items():
        data = np.ascontiguousarray(value, "<f4").tobytes()
        place = [start, start + len(data)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": place}
        body.append(data)
        start += len(data)
    text = json.dumps({"__metadata__": {"format": "pt", **(metadata or {})}, **header}).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + b"".join(body)
