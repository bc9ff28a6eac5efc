"""Reads the values of each layer from a Keras file.

These are ``.weights.h5`` and ``.keras`` files of Keras 3 and 2, and the older HDF5 files, such as
those that ``keras.applications`` downloads. Only values are read: no layer is built, and no code is
run.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import h5py
import numpy as np

from efficientnetv2.checkpoints import h5_file
from efficientnetv2.checkpoints.budget import Budget
from efficientnetv2.checkpoints.weight_files import KERAS_CONFIG, KERAS_WEIGHTS
from hparams.errors import WeightsError

_LARGEST_CONFIG = 8 * 2**20  # bytes; that of efficientnet-l2 has 1 MB
# Attributes of a model that hold its layers, in one version of Keras or another.
_CONTAINERS = {"layers", "_layer_checkpoint_dependencies"}
# What a file holds besides layers, at its top.
_NOT_LAYERS = ("optimizer", "metrics", "compile_metrics", "loss")


@dataclasses.dataclass(frozen=True)
class KerasLayer:
    """The stored values of one layer.

    Attributes:
      place: where it stands among nested models: the class of each, with its number
        (``functional``, ``conv2d_1``). Empty where a file names layers instead.
      name: of the layer; "" where the file does not say.
      variables: (name, values) in Keras's order; names are "" where the file does not say.
    """

    place: tuple[str, ...]
    name: str
    variables: tuple[tuple[str, np.ndarray], ...]

    @property
    def label(self) -> str:
        """The name, or else the place, for messages."""
        return self.name or "/".join(self.place)


@dataclasses.dataclass(frozen=True)
class ConfigLayer:
    """One layer of a model's config: its place (see ``KerasLayer``), name, class and settings."""

    place: tuple[str, ...]
    name: str
    class_name: str
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class KerasFile:
    """A file's layers with values, and all layers of its config (empty: it has no config)."""

    layers: tuple[KerasLayer, ...]
    config: tuple[ConfigLayer, ...] = ()


def read_config_layers(path: pathlib.Path) -> tuple[ConfigLayer, ...]:
    """Reads the config of a .keras or .h5 file, without its weights; empty: it has none.

    Raises:
      WeightsError: if the file is damaged, or its config is too large.
    """
    try:
        if not zipfile.is_zipfile(path):
            with h5py.File(path, "r") as file:
                return tuple(_config_layers(_config_of_h5(file), ()))
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(KERAS_CONFIG).file_size > _LARGEST_CONFIG:
                raise WeightsError("its config is too large for a network")
            return tuple(_config_layers(json.loads(archive.read(KERAS_CONFIG)), ()))
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except Exception as error:  # as in read_keras
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"'{path}' is not a complete Keras file ({reason})") from None


def _config_of_h5(file: h5py.File) -> Any:
    """Returns the config that a file before Keras 3 keeps in an attribute; None: it has none."""
    stored = file.attrs.get("model_config")
    if stored is None:
        return None
    if len(stored) > _LARGEST_CONFIG:
        raise WeightsError("its config is too large for a network")
    return json.loads(stored)


def read_keras(path: pathlib.Path, *, budget: Budget | None = None) -> KerasFile:
    """Reads a .keras, .weights.h5 or .h5 file.

    Args:
      path: of the file.
      budget: of the network that is to be filled; None: that of a small one.

    Raises:
      WeightsError: if the file is damaged, too large, has a Lambda layer, or links to other files.
    """
    budget = budget or Budget(0)
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path, budget)
        with path.open("rb") as stream:
            return _read_h5(stream, None, budget)
    except WeightsError as error:
        raise WeightsError(f"refusing to load '{path}': {error}") from None
    except Exception as error:  # a damaged file can cause any error
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"'{path}' is not a complete Keras file ({reason})") from None


def _read_zip(path: pathlib.Path, budget: Budget) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        config, weights = archive.getinfo(KERAS_CONFIG), archive.getinfo(KERAS_WEIGHTS)
        # Beside the values: two slots of an optimizer, and 2 kB of groups for each layer.
        if config.file_size > _LARGEST_CONFIG or weights.file_size > 2 * budget.num_bytes:
            raise WeightsError("its config or its weights are too large for the network")
        content = json.loads(archive.read(config))
        return _read_h5(io.BytesIO(archive.read(weights)), content, budget)


def _read_h5(stream: BinaryIO, content: Any, budget: Budget) -> KerasFile:
    with h5py.File(stream, "r") as file:
        content = _config_of_h5(file) if content is None else content
        config = tuple(_config_layers(content, ()))
        if any(layer.class_name == "Lambda" for layer in config):
            raise WeightsError("it has a Lambda layer, which is code; nothing was run")
        root = h5_file.member(file, "model_weights") if "model_weights" in file else file
        if h5_file.names(root, "layer_names"):
            return KerasFile(tuple(_read_old_layers(root, budget)), config)
        return KerasFile(tuple(_with_names(_read_layers(file, budget), config)), config)


def _read_old_layers(root: h5py.Group, budget: Budget) -> Iterator[KerasLayer]:
    """Reads HDF5 files that list their layers; the values of a nested model stand in one list."""
    for outer in h5_file.names(root, "layer_names"):
        group = h5_file.member(root, outer)
        layers: dict[str, list[tuple[str, np.ndarray]]] = {}
        for name in h5_file.names(group, "weight_names"):
            *parents, variable = name.split("/")
            layer = parents[-1] if parents else outer
            value = h5_file.values(group, name, budget=budget)
            layers.setdefault(layer, []).append((variable_name(variable), value))
        yield from (KerasLayer((), name, tuple(values)) for name, values in layers.items())


def variable_name(name: str) -> str:
    """Returns the name of a variable as in Keras 3; ``depthwise_kernel:0`` is ``kernel``."""
    return name.partition(":")[0].replace("depthwise_kernel", "kernel")


def _read_layers(file: h5py.Group, budget: Budget) -> Iterator[KerasLayer]:
    """Reads the groups ``vars`` of all layers, however deeply models are nested."""
    for path, group in h5_file.groups(file):
        *parents, last = path.split("/")
        if last != "vars" or not len(group) or (parents and parents[0].startswith(_NOT_LAYERS)):
            continue
        values = (h5_file.values(group, n, budget=budget) for n in sorted(group, key=int))
        place = tuple(step for step in parents if step not in _CONTAINERS)
        name = h5_file.text(group.attrs.get("name", ""))
        yield KerasLayer(place, name, tuple(("", value) for value in values))


def _config_layers(model: Any, place: tuple[str, ...]) -> Iterator[ConfigLayer]:
    """Yields the layers of a model's config in its order, those of nested models in their place."""
    settings = model.get("config") if isinstance(model, dict) else None
    layers = settings.get("layers") if isinstance(settings, dict) else settings
    counts: dict[str, int] = {}
    for layer in layers if isinstance(layers, list) else ():
        own = layer.get("config") if isinstance(layer, dict) else None
        if own is None:
            continue
        class_name = str(layer.get("class_name"))
        kind = _snake_case(class_name)
        count = counts[kind] = counts.get(kind, -1) + 1
        inner = (*place, f"{kind}_{count}" if count else kind)
        is_model = isinstance(own, list) or "layers" in own
        name = str(layer.get("name") or "") if is_model else str(own.get("name") or "")
        yield ConfigLayer(inner, name, class_name, {} if is_model else own)
        yield from _config_layers(layer, inner)


def _snake_case(class_name: str) -> str:
    """Returns the name under which Keras stores a layer of a class."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _with_names(
    layers: Iterable[KerasLayer], config: Iterable[ConfigLayer]
) -> Iterator[KerasLayer]:
    """Names the layers of a file from before Keras 3.6 by their places in its config."""
    known = {layer.place: layer.name for layer in config}
    for layer in layers:
        yield dataclasses.replace(layer, name=layer.name or known.get(layer.place, ""))
