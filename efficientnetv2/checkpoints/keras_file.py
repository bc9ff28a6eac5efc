"""Reads the values of each layer from a Keras file.

These are ``.weights.h5`` and ``.keras`` files of Keras 3, and the older HDF5 files, such as those
that ``keras.applications`` downloads. Only values are read: no layer is built, and no code is run.
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

from hparams.errors import WeightsError

H5_START = b"\x89HDF\r\n\x1a\n"
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_LARGEST_CONFIG = 64 * 2**20  # bytes
_LARGEST_WEIGHTS = 16 * 2**30
LayerValues = dict[str, list[np.ndarray]]  # layer name -> its variables, in Keras's order


def is_keras_zip(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is a .keras file."""
    return {_WEIGHTS, _CONFIG} <= set(archive.namelist())


def read_keras(path: pathlib.Path) -> LayerValues:
    """Reads a .keras, .weights.h5 or .h5 file.

    Raises:
      WeightsError: if the file is damaged, has a Lambda layer, or links to other files.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path)
        with path.open("rb") as stream:
            return _read_h5(stream)
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise WeightsError(f"'{path}' is not a complete Keras file ({error})") from None


def _read_zip(path: pathlib.Path) -> LayerValues:
    with zipfile.ZipFile(path) as archive:
        config, weights = archive.getinfo(_CONFIG), archive.getinfo(_WEIGHTS)
        if config.file_size > _LARGEST_CONFIG or weights.file_size > _LARGEST_WEIGHTS:
            raise WeightsError("its config or its weights are too large for a network")
        names = set(_class_names(json.loads(archive.read(config))))
        if "Lambda" in names:
            raise WeightsError("it has a Lambda layer, which is code; nothing was run")
        return _read_h5(io.BytesIO(archive.read(weights)))


def _class_names(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _class_names(item)


def _read_h5(stream: BinaryIO) -> LayerValues:
    with h5py.File(stream, "r") as file:
        root = _member(file, "model_weights") if "model_weights" in file else file
        if _names(root, "layer_names"):
            return dict(_read_old_layers(root))
        return dict(_read_layers(file))


def _read_old_layers(root: h5py.Group) -> Iterator[tuple[str, list[np.ndarray]]]:
    for layer in _names(root, "layer_names"):
        group = _member(root, layer)
        yield layer, [_values(group, name) for name in _names(group, "weight_names")]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Reads a list of names; Keras splits a long one into layer_names0, layer_names1, ..."""
    chunks = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(chunks)}" in group.attrs:
        chunks.append(f"{attribute}{len(chunks)}")
    return [_text(name) for chunk in chunks for name in group.attrs[chunk]]


def _read_layers(group: h5py.Group) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Reads the groups ``vars`` that name their layer, however deeply models are nested."""
    for name in group:
        member = _member(group, name)
        if not isinstance(member, h5py.Group):
            continue
        if name == "vars" and "name" in member.attrs and len(member):
            numbers = sorted(member, key=int)
            yield _text(member.attrs["name"]), [_values(member, number) for number in numbers]
        else:
            yield from _read_layers(member)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _member(group: h5py.Group, path: str) -> Any:
    """Follows a path step by step: a link could lead to another file of this machine."""
    for step in path.split("/"):
        if not isinstance(group.get(step, getlink=True), h5py.HardLink):
            raise WeightsError(f"its entry '{step}' is missing or a link")
        group = group[step]
    return group


def _values(group: h5py.Group, path: str) -> np.ndarray:
    dataset = _member(group, path)
    if dataset.is_virtual or dataset.external:
        raise WeightsError(f"the values of '{path}' are stored in another file")
    if dataset.dtype.kind not in "fiu" or dataset.nbytes > _LARGEST_WEIGHTS:
        raise WeightsError(f"the values of '{path}' are not weights")
    return np.asarray(dataset[()])
