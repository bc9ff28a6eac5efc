"""A file that Keras saved in; the values of each layer, by the layer's name, out.

``.weights.h5`` and ``.keras`` of Keras 3, and the older HDF5 files, among them those that
``keras.applications`` downloads. Only values are read: no layer is made, and nothing is run.
"""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

from efficientnetv2.model.checkpoints.errors import WeightsError

H5_START = b"\x89HDF\r\n\x1a\n"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_LARGEST_CONFIG = 64 * 2**20  # bytes
_LARGEST_WEIGHTS = 16 * 2**30
Layers = dict[str, list[np.ndarray]]  # layer -> its variables, in Keras's order


def is_keras_zip(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is a .keras file."""
    return {_WEIGHTS, _CONFIG} <= set(archive.namelist())


def read_keras(path: pathlib.Path) -> Layers:
    """Reads a .keras, .weights.h5 or .h5 file.

    Raises:
      WeightsError: if it is damaged, holds a Lambda layer, or leads outside of itself.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as stream:
            return _read_h5(stream)
    except WeightsError as error:
        raise WeightsError(f"'{path}' is refused: {error}") from None
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"'{path}' is no whole file of Keras ({error})") from None


def _read_zip(path: pathlib.Path) -> Layers:
    with zipfile.ZipFile(path) as archive:
        config, weights = archive.getinfo(_CONFIG), archive.getinfo(_WEIGHTS)
        if config.file_size > _LARGEST_CONFIG or weights.file_size > _LARGEST_WEIGHTS:
            raise WeightsError("a part of it is too large for a network")
        names = set(_class_names(json.loads(archive.read(config))))
        if "Lambda" in names:
            raise WeightsError("it has a Lambda layer, which is code; nothing of it was run")
        return _read_h5(io.BytesIO(archive.read(weights)))


def _class_names(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _class_names(item)


def _read_h5(stream: BinaryIO) -> Layers:
    with h5py.File(stream, "r") as file:
        root = _member(file, "model_weights") if "model_weights" in file else file
        if _names(root, "layer_names"):
            return dict(_older(root))
        return dict(_keras_3(file))


def _older(root: h5py.Group) -> Iterator[tuple[str, list[np.ndarray]]]:
    for layer in _names(root, "layer_names"):
        group = _member(root, layer)
        yield layer, [_values(group, name) for name in _names(group, "weight_names")]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """A list of names; Keras splits one that is too long: layer_names0, layer_names1, ..."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs:
        parts.append(f"{attribute}{len(parts)}")
    return [_text(name) for part in parts for name in group.attrs[part]]


def _keras_3(group: h5py.Group) -> Iterator[tuple[str, list[np.ndarray]]]:
    """All groups ``vars`` that say which layer they are of, however deep models are nested."""
    for name in group:
        member = _member(group, name)
        if not isinstance(member, h5py.Group):
            continue
        if name == "vars" and "name" in member.attrs and len(member):
            numbers = sorted(member, key=int)
            yield _text(member.attrs["name"]), [_values(member, number) for number in numbers]
        else:
            yield from _keras_3(member)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _member(group: h5py.Group, path: str) -> Any:
    """One step after the other: a link could lead to another file of this machine."""
    for step in path.split("/"):
        if not isinstance(group.get(step, getlink=True), h5py.HardLink):
            raise WeightsError(f"'{step}' in it is a link to somewhere else")
        group = group[step]
    return group


def _values(group: h5py.Group, path: str) -> np.ndarray:
    dataset = _member(group, path)
    if dataset.is_virtual or dataset.external:
        raise WeightsError(f"the values of '{path}' are in another file")
    if dataset.dtype.kind not in "fiu" or dataset.nbytes > _LARGEST_WEIGHTS:
        raise WeightsError(f"the values of '{path}' are no weights")
    return np.asarray(dataset[()])
