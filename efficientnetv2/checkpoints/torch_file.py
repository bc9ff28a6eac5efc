"""Reads the tensors of a PyTorch file as NumPy arrays, without PyTorch.

Such a file contains a pickle, which could run any code. This reader knows the few names that
tensors are made of, and refuses a file that asks for another before anything in it is called.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from hparams.errors import WeightsError

LEGACY_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # the pickled magic number
_LARGEST_PICKLE = 64 * 2**20  # bytes; names and shapes, not the values
_BFLOAT16 = "bfloat16"
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    numel: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A view of a storage whose bytes may not have been read yet."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self, data: bytes) -> np.ndarray:
        """Returns the values, checked to lie in the storage."""
        values = _decode(data, self.storage)
        whole = (*self.size, *self.stride, self.offset)
        if not all(isinstance(number, int) and number >= 0 for number in whole):
            raise WeightsError("a tensor has a size that is not a non-negative integer")
        if len(self.size) != len(self.stride) or math.prod(self.size) > len(values):
            raise WeightsError("a tensor is larger than its data")
        if 0 in self.size:
            return np.zeros(self.size, values.dtype)
        end = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
        if end >= len(values):
            raise WeightsError("a tensor reaches beyond its data")
        steps = tuple(step * values.itemsize for step in self.stride)
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, steps)
        return view.copy()


def _decode(data: bytes, storage: _Storage) -> np.ndarray:
    kind = np.dtype("uint16" if storage.dtype == _BFLOAT16 else storage.dtype)
    if not isinstance(storage.numel, int) or storage.numel * kind.itemsize > len(data):
        raise WeightsError("the data of a tensor is cut off")
    values = np.frombuffer(data, kind.newbyteorder("<"), count=storage.numel)
    if storage.dtype == _BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, *rest: object
) -> _Tensor:
    del rest  # requires_grad and hooks
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: _Tensor, *rest: object) -> _Tensor:
    del rest
    return data


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors, lists, dictionaries, numbers and text; nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the replacement of an allowed name, and refuses all others."""
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise WeightsError(
                f"it asks for {module}.{name}, which is not part of a tensor; nothing was run"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns which storage a tensor refers to."""
        kind, dtype, key, _, numel, *_ = pid
        if kind != "storage" or dtype not in _STORAGES.values():
            raise WeightsError("it has an unknown kind of data")
        return _Storage(str(key), dtype, numel)


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads a state dictionary, in either of PyTorch's two formats.

    From a training checkpoint, the moving average (``state_dict_ema``) is taken if there is one, or
    else ``state_dict`` or ``model``.

    Raises:
      WeightsError: if the file is damaged, or asks for more than tensors.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive)
        with path.open("rb") as stream:
            return _read_legacy(stream)
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except Exception as error:  # a pickle's opcodes can fail in any way
        raise WeightsError(f"'{path}' is not a complete PyTorch file ({error})") from None


def _read_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    names = [info.filename for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if len(names) != 1:
        raise WeightsError(f"it has {len(names)} files data.pkl, expected 1")
    folder = names[0].removesuffix("data.pkl")
    if archive.getinfo(names[0]).file_size > _LARGEST_PICKLE:
        raise WeightsError("its data.pkl is too large for names and shapes")
    state = _state_dict(_Unpickler(io.BytesIO(archive.read(names[0]))).load())

    def data(storage: _Storage) -> bytes:
        info = archive.getinfo(f"{folder}data/{storage.key}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightsError("its data is compressed, which PyTorch never does")
        return archive.read(info)

    return {name: tensor.array(data(tensor.storage)) for name, tensor in state.items()}


def _read_legacy(stream: BinaryIO) -> dict[str, np.ndarray]:
    for _ in range(3):  # the magic number, the version of the format, the machine
        _Unpickler(stream).load()
    state = _state_dict(_Unpickler(stream).load())
    storages = {t.storage.key: t.storage for t in state.values()}
    data: dict[str, bytes] = {}
    for key in _Unpickler(stream).load():
        (numel,) = np.frombuffer(stream.read(8), "<i8")
        storage = storages.get(str(key))
        if storage is None or numel != storage.numel:
            raise WeightsError("its list of storages does not match its tensors")
        kind = "uint16" if storage.dtype == _BFLOAT16 else storage.dtype
        data[storage.key] = stream.read(int(numel) * np.dtype(kind).itemsize)
    return {name: tensor.array(data[tensor.storage.key]) for name, tensor in state.items()}


def _state_dict(content: object) -> dict[str, _Tensor]:
    """Returns the tensors by name, without the prefix of a model on several devices."""
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict):
        raise WeightsError("it contains no state dictionary")
    return {
        str(name).removeprefix("module."): value
        for name, value in content.items()
        if isinstance(value, _Tensor)
    }
