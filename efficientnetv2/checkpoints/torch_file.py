"""Reads the tensors of a PyTorch file as NumPy arrays, without PyTorch.

Such a file contains a pickle, which could run any code. This reader knows the few names that
tensors are made of, and refuses a file that asks for another before anything in it is called.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from efficientnetv2.checkpoints.budget import Budget
from hparams.errors import WeightsError

LEGACY_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # the pickled magic number
# Bytes of names and shapes, without the values. Those of efficientnet-l2 take 0.4 MB, and a
# training checkpoint has them up to four times.
_LARGEST_PICKLE = 2 * 2**20
_MOST_AXES = 8
_LARGEST_SIZE = 2**40
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
        if not all(map(_is_size, whole)):
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


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < _LARGEST_SIZE


def _dtype(storage: _Storage) -> np.dtype:
    return np.dtype("uint16" if storage.dtype == _BFLOAT16 else storage.dtype)


def _decode(data: bytes, storage: _Storage) -> np.ndarray:
    kind = _dtype(storage)
    if storage.numel * kind.itemsize > len(data):
        raise WeightsError("the data of a tensor is cut off")
    values = np.frombuffer(data, kind.newbyteorder("<"), count=storage.numel)
    if storage.dtype == _BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple, stride: tuple, *rest: object
) -> _Tensor:
    del rest  # requires_grad and hooks
    if not isinstance(storage, _Storage):
        raise WeightsError("a tensor has no storage")
    return _Tensor(storage, offset, _size(size), _size(stride))


def _size(numbers: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(numbers, (tuple, list)) or len(numbers) > _MOST_AXES:
        raise WeightsError(f"a tensor has no size of up to {_MOST_AXES} axes")
    return tuple(numbers)


def _rebuild_parameter(data: _Tensor, *rest: object) -> _Tensor:
    del rest
    return data


def _ordered(items: list | None = None) -> dict:
    if items is None:
        return {}
    if not isinstance(items, list):
        raise WeightsError("it has a dictionary that is not made of a list")
    result = {_key(name): value for name, value in items}
    items.clear()  # or a few bytes could ask for a copy of the same list without end
    return result


def _key(name: object) -> object:
    # Hashing a tuple that holds itself twice, and so on, takes a time that doubles each level.
    if not isinstance(name, (str, int, float, bool, type(None))):
        raise WeightsError("it has a key that is neither text nor a number")
    return name


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _size,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle._Unpickler):
    """Unpickles tensors, lists, dictionaries, numbers and text; nothing else.

    Python's own unpickler in C makes an array as long as the largest number of its memo, which a
    file of a few bytes can set to billions; that in Python uses a dictionary.
    """

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.dispatch = _DISPATCH  # type: ignore[misc]
        self.storages: dict[str, _Storage] = {}  # all that the file has, by their keys

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
        is_known = kind == "storage" and isinstance(dtype, str) and dtype in _STORAGES.values()
        if not is_known or not isinstance(key, (str, int)) or not _is_size(numel):
            raise WeightsError("it has an unknown kind of data")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, numel))


def _load_setitem(unpickler: Any) -> None:
    value = unpickler.stack.pop()
    key = _key(unpickler.stack.pop())
    _require_dict(unpickler.stack[-1])[key] = value


def _load_setitems(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    target = _require_dict(unpickler.stack[-1])
    for key, value in zip(items[::2], items[1::2]):
        target[_key(key)] = value


def _load_dict(unpickler: Any) -> None:
    items = unpickler.pop_mark()
    unpickler.append({_key(key): value for key, value in zip(items[::2], items[1::2])})


def _load_build(unpickler: Any) -> None:
    unpickler.stack.pop()  # attributes of an OrderedDict: versions of PyTorch's modules


def _require_dict(target: Any) -> dict:
    if type(target) is not dict:
        raise WeightsError("it sets an item of what is not a dictionary")
    return target


def _dispatch() -> dict[int, Any]:
    """Returns the functions of the operations that tensors, lists and dictionaries are made of."""
    names = (
        *("PROTO", "STOP", "MARK", "POP", "POP_MARK", "DUP", "FRAME", "MEMOIZE"),
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
        *("FLOAT", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST"),
        *("APPEND", "APPENDS", "EMPTY_DICT", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID"),
        *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    )
    own = {
        pickle.SETITEM: _load_setitem,
        pickle.SETITEMS: _load_setitems,
        pickle.DICT: _load_dict,
        pickle.BUILD: _load_build,
    }
    theirs = pickle._Unpickler.dispatch
    allowed = {code: theirs[code] for code in (getattr(pickle, name)[0] for name in names)}
    return allowed | {code[0]: function for code, function in own.items()}


_DISPATCH = _dispatch()


def read_torch(path: pathlib.Path, *, budget: Budget | None = None) -> dict[str, np.ndarray]:
    """Reads a state dictionary, in either of PyTorch's two formats.

    From a training checkpoint, the moving average (``state_dict_ema``) is taken if there is one, or
    else ``state_dict`` or ``model``.

    Args:
      path: of the file.
      budget: of the network that is to be filled; None: that of a small one.

    Raises:
      WeightsError: if the file is damaged, asks for more than tensors, or its tensors are too large
        for the network.
    """
    budget = budget or Budget(0)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return _read_zip(archive, budget)
        with path.open("rb") as stream:
            return _read_legacy(stream, budget)
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except Exception as error:  # a pickle's opcodes can fail in any way
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"'{path}' is not a complete PyTorch file ({reason})") from None


def read_torch_shapes(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Reads names and shapes alone, as ``read_torch``; their data may be damaged.

    Raises:
      WeightsError: if the file asks for more than tensors, or is not one of PyTorch.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                state = _pickled_state(archive)[1]
        else:
            with path.open("rb") as stream:
                state, _ = _legacy_state(io.BytesIO(stream.read(_LARGEST_PICKLE)))
        return {name: tensor.size for name, tensor in state.items()}
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except Exception as error:  # as in read_torch
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"'{path}' is not a complete PyTorch file ({reason})") from None


def _pickled_state(archive: zipfile.ZipFile) -> tuple[str, dict[str, _Tensor]]:
    """Returns the folder of an archive's files, and its tensors without their data."""
    names = [info.filename for info in archive.infolist() if info.filename.endswith("/data.pkl")]
    if len(names) != 1:
        raise WeightsError(f"it has {len(names)} files data.pkl, expected 1")
    folder = names[0].removesuffix("data.pkl")
    if archive.getinfo(names[0]).file_size > _LARGEST_PICKLE:
        raise WeightsError("its data.pkl is too large for names and shapes")
    return folder, _state_dict(_Unpickler(io.BytesIO(archive.read(names[0]))).load())


def _read_zip(archive: zipfile.ZipFile, budget: Budget) -> dict[str, np.ndarray]:
    folder, state = _pickled_state(archive)

    def read(storage: _Storage) -> bytes:
        info = archive.getinfo(f"{folder}data/{storage.key}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise WeightsError("its data is compressed, which PyTorch never does")
        budget.take([info.file_size], 1, name=info.filename)
        return archive.read(info)

    return _arrays(state, read, budget)


def _arrays(
    state: Mapping[str, _Tensor], read: Callable[[_Storage], bytes], budget: Budget
) -> dict[str, np.ndarray]:
    """Reads tensors storage by storage; each is read once, and given up before the next."""
    by_storage: dict[str, list[str]] = {}
    for name, tensor in state.items():
        by_storage.setdefault(tensor.storage.key, []).append(name)
    arrays: dict[str, np.ndarray] = {}
    for names in by_storage.values():
        data = read(state[names[0]].storage)
        for name in names:
            # Several tensors of one storage may overlap: tied weights are, but not without end.
            if len(names) > 1:
                budget.take([len(data)], 1, name=name)
            arrays[name] = state[name].array(data)
    return {name: arrays[name] for name in state}


def _legacy_state(start: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, _Storage]]:
    """Returns the tensors of the network, and the storages of all tensors in the file."""
    for _ in range(3):  # the magic number, the version of the format, the machine
        _Unpickler(start).load()
    unpickler = _Unpickler(start)
    return _state_dict(unpickler.load()), unpickler.storages


def _read_legacy(stream: BinaryIO, budget: Budget) -> dict[str, np.ndarray]:
    start = io.BytesIO(stream.read(_LARGEST_PICKLE))
    state, storages = _legacy_state(start)
    keys = _Unpickler(start).load()
    places: dict[str, int] = {}
    place = start.tell()
    for key in keys:
        stream.seek(place)
        (numel,) = struct.unpack("<q", stream.read(8))
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or numel != storage.numel:
            raise WeightsError("its list of storages does not match its tensors")
        places[storage.key] = place + 8
        place += 8 + numel * _dtype(storage).itemsize

    def read(storage: _Storage) -> bytes:
        budget.take([storage.numel], _dtype(storage).itemsize, name=storage.key)
        stream.seek(places[storage.key])
        return stream.read(storage.numel * _dtype(storage).itemsize)

    return _arrays(state, read, budget)


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
