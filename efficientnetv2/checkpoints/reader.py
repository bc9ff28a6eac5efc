"""Reads weights of any supported format, under our own names.

The format is recognised by the content of a file, never by its name.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from efficientnetv2.checkpoints import keras_file, official_names, tensorflow_file, torch_names
from efficientnetv2.checkpoints.budget import Budget
from efficientnetv2.checkpoints.keras_names import match_layers
from efficientnetv2.checkpoints.layer_map import WeightLayer
from efficientnetv2.checkpoints.safetensors_file import LARGEST_HEADER, read_safetensors
from efficientnetv2.checkpoints.torch_file import LEGACY_START, read_torch
from efficientnetv2.checkpoints.weight_files import (
    KERAS_HUB_BACKBONE,
    KERAS_HUB_TASK,
    file_in_folder,
    is_keras_file,
)
from hparams.errors import WeightsError

# Names that training stores beside the weights.
_NOT_WEIGHTS = re.compile(
    r"^(global_step|save_counter|optimizer/|metrics/|step$)|/RMSProp|/Momentum|OPTIMIZER_SLOT"
    r"|num_batches_tracked$|/ExponentialMovingAverage$"
)


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """The weights of a network that a file contains.

    Attributes:
      path: of the file.
      kind: its format, as shown in reports.
      values: our ``layer/variable`` -> values in Keras's order of axes.
      names: our ``layer/variable`` -> name in the file.
      extra: names in the file that the network does not use.
      note: why the file's classifier cannot be used; "" if it can, or if there is none.
      normalization: ``mean`` and ``variance`` of a Keras file's Normalization layer, which networks
        of ``get_model`` do not have; empty: the file has none.
    """

    path: pathlib.Path
    kind: str
    values: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    extra: tuple[str, ...]
    note: str = ""
    normalization: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def read_weights(
    path: str | pathlib.Path, layers: Sequence[WeightLayer], *, model_name: str
) -> StoredWeights:
    """Reads the weights of a network from a file.

    Formats: TensorFlow checkpoints of the official code (name-based, the moving average where there
    is one, and object-based) and of runs of this program; Keras's .weights.h5, .h5 and .keras, and
    SavedModels and checkpoints of Keras 2; PyTorch's .pth and .safetensors, with the names of
    timm, torchvision, transformers, NVIDIA's examples, or the EfficientNet-Lite port.

    Args:
      path: of the file, of a TensorFlow checkpoint (with or without ``.index``), or of a folder
        with one, or with the files of ``weight_files.FILES``.
      layers: of the network, from ``layer_map.layer_map``.
      model_name: name of the network in the official code.

    Raises:
      WeightsError: if there is no such file, or it has an unknown format, is damaged or unsafe,
        or contains nothing of this network.
    """
    path = pathlib.Path(path)
    budget = Budget(sum(layer.num_values for layer in layers))
    prefix = tensorflow_file.find_checkpoint(path)
    if prefix is not None:
        stored = _read_tensorflow(prefix, layers, budget, model_name=model_name)
    elif (file := file_in_folder(path)) != path:
        stored = _read_file(file, layers, budget)
    elif path.is_dir():
        raise WeightsError(f"folder '{path}' has no checkpoint, or several; give the path of one")
    else:
        stored = _read_file(path, layers, budget)
    if not stored.values:
        examples = ", ".join(stored.extra[:2]) or "none"
        raise WeightsError(
            f"'{path}' ({stored.kind}) has no weights of {model_name}; its names: {examples}"
        )
    return stored


def _read_file(path: pathlib.Path, layers: Sequence[WeightLayer], budget: Budget) -> StoredWeights:
    start = _start(path)
    if is_keras_file(path):
        file = keras_file.read_keras(path, budget=budget)
        task = path.with_name(KERAS_HUB_TASK)
        if path.name == KERAS_HUB_BACKBONE and task.is_file():  # which has the classifier
            head = keras_file.read_keras(task, budget=budget)
            file = dataclasses.replace(file, layers=file.layers + head.layers)
        return _from_keras(path, file, layers, kind="Keras")
    if zipfile.is_zipfile(path) or start.startswith(LEGACY_START):
        return _match_torch(path, read_torch(path, budget=budget), layers, kind="PyTorch")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return _match_torch(path, read_safetensors(path, budget=budget), layers, kind="safetensors")
    raise WeightsError(
        f"'{path}' is not a weights file: give a TensorFlow checkpoint, .weights.h5, .h5, .keras, "
        ".pth or .safetensors"
    )


def _start(path: pathlib.Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(32)
    except OSError as error:
        raise WeightsError(f"cannot read weights '{path}': {error.strerror or error}") from None


def _from_keras(
    path: pathlib.Path,
    file: keras_file.KerasFile,
    layers: Sequence[WeightLayer],
    *,
    kind: str,
) -> StoredWeights:
    found = match_layers(file, layers)
    return StoredWeights(
        path, kind, found.values, found.names, found.extra, found.note, found.normalization
    )


def _match_torch(
    path: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    layers: Sequence[WeightLayer],
    *,
    kind: str,
) -> StoredWeights:
    tables = {
        f"{kind}, timm": torch_names.timm_names(layers),
        f"{kind}, torchvision": torch_names.torchvision_names(layers),
        f"{kind}, transformers": torch_names.hugging_face_names(layers),
        f"{kind}, NVIDIA": torch_names.nvidia_names(layers),
        f"{kind}, NVIDIA, earlier names": torch_names.nvidia_names(layers, is_earlier=True),
        f"{kind}, EfficientNet-Lite port": torch_names.port_names(layers),
    }
    best = max(tables, key=lambda name: len(set(tables[name].values()) & set(tensors)))
    stored = _match_names(path, best, tensors, tables[best])
    values = dict(stored.values)
    for layer in layers:
        for variable in layer.variables:
            name = f"{layer.name}/{variable}"
            if name in values:
                try:
                    values[name] = torch_names.from_torch(layer, variable, values[name])
                except ValueError:
                    raise WeightsError(
                        f"'{path}': the kernel {stored.names[name]} has {values[name].ndim} axes"
                    ) from None
    return dataclasses.replace(stored, values=values)


def _read_tensorflow(
    prefix: str, layers: Sequence[WeightLayer], budget: Budget, *, model_name: str
) -> StoredWeights:
    tensors = tensorflow_file.CheckpointValues(prefix, budget=budget)
    own = [f"{layer.name}/{variable}" for layer in layers for variable in layer.variables]
    tf1 = official_names.tf1_names(layers, model_name=model_name)
    # In graph mode, later official code writes the classifier outside of the head.
    later = {o: t.replace("/head/dense/", "/head_1/dense/") for o, t in tf1.items()}
    kinds = {
        "run of this program, moving average": {name: f"ema/{name}" for name in own},
        "run of this program": {name: f"weights/{name}" for name in own},
        "official TF1 checkpoint, moving average": {
            name: their + official_names.AVERAGE for name, their in tf1.items()
        },
        "official TF1 checkpoint": tf1,
        "official TF1 checkpoint, later names": later,
        "official TF2 checkpoint": official_names.tf2_names(layers),
    }
    # Of equal matches max() takes the first, so moving averages come before raw weights.
    counts = {kind: len(set(names.values()) & set(tensors)) for kind, names in kinds.items()}
    best = max(counts, key=lambda kind: counts[kind])
    path, keras_names = pathlib.Path(prefix), tensors.keras_names()
    if len(set(own) & {_ending(name) for name in keras_names}) > counts[best]:
        file = _keras_layers(tensors, keras_names)
        return _from_keras(path, file, layers, kind="Keras checkpoint")
    if not counts[best]:
        return StoredWeights(path, "TensorFlow checkpoint", {}, {}, tuple(tensors))
    return _match_names(path, best, tensors, kinds[best])


def _ending(name: str) -> str:
    """Returns the layer and the variable of Keras 2's full name, as in Keras 3."""
    *scopes, variable = name.split("/")
    return f"{scopes[-1]}/{keras_file.variable_name(variable)}"


def _keras_layers(
    tensors: tensorflow_file.CheckpointValues, keras_names: Mapping[str, str]
) -> keras_file.KerasFile:
    """Reads the variables that have a name in Keras 2, layer by layer."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in sorted(keras_names, key=lambda name: name.count("/")):
        layer, _, variable = _ending(name).partition("/")
        if variable not in found.setdefault(layer, {}):
            found[layer][variable] = tensors[keras_names[name]]
    return keras_file.KerasFile(
        tuple(
            keras_file.KerasLayer((), layer, tuple(variables.items()))
            for layer, variables in found.items()
        )
    )


def _match_names(
    path: pathlib.Path, kind: str, tensors: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> StoredWeights:
    matches = {ours: theirs for ours, theirs in names.items() if theirs in tensors}
    known = set(matches.values())
    known |= {name.removesuffix(official_names.AVERAGE) for name in known}  # the raw values
    known |= {"weights/" + name.removeprefix("ema/") for name in known}
    extra = (name for name in tensors if name not in known and not _NOT_WEIGHTS.search(name))
    values = {ours: tensors[theirs] for ours, theirs in matches.items()}
    return StoredWeights(path, kind, values, matches, tuple(extra))
