"""Finds our weights among the layers of a Keras model: by name, by order, and in its head."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from efficientnetv2.checkpoints.keras_file import KerasFile, KerasLayer
from efficientnetv2.checkpoints.keras_head import Head, find_head
from efficientnetv2.checkpoints.layer_map import WeightLayer

_KINDS = {"depthwise_conv": "depthwise_conv2d", "predictions": "dense"}
_LAST = "predictions"


@dataclasses.dataclass(frozen=True)
class KerasWeights:
    """What a file holds of a network.

    Attributes:
      values: our ``layer/variable`` -> values.
      names: our ``layer/variable`` -> name in the file.
      extra: names in the file that are not used.
      note: why the file's classifier cannot be used; "" if it can, or if there is none.
      normalization: ``mean`` and ``variance`` of the Normalization layer; empty: there is none.
    """

    values: Mapping[str, np.ndarray]
    names: Mapping[str, str]
    extra: tuple[str, ...]
    note: str
    normalization: Mapping[str, np.ndarray]


def match_layers(file: KerasFile, layers: Sequence[WeightLayer]) -> KerasWeights:
    """Finds the weights of a network.

    Layers are found by their names. Those of a file without names, from before Keras 3.6, are found
    by their order among the layers of their class in one model. The classifier is what follows the
    network, whatever its name.

    Args:
      file: from ``keras_file.read_keras``.
      layers: of the network, from ``layer_map.layer_map``.
    """
    stored = [_renamed(layer) for layer in _name_by_order(file.layers, layers)]
    backbone = {layer.name: layer for layer in layers if layer.role != _LAST}
    values: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    rest: list[KerasLayer] = []
    for layer in stored:
        own = _variables(layer, backbone[layer.name]) if layer.name in backbone else None
        if own is None or f"{layer.name}/{backbone[layer.name].variables[0]}" in values:
            rest.append(layer)
            continue
        values.update({f"{layer.name}/{v}": value for v, value in own.items()})
        names.update({f"{layer.name}/{v}": f"{layer.label}/{v}" for v in own})
    head = find_head(rest, file.config) if values else Head()
    if head.kernel is not None and any(layer.role == _LAST for layer in layers):
        assert head.bias is not None
        values |= {f"{_LAST}/kernel": head.kernel, f"{_LAST}/bias": head.bias}
        names |= {f"{_LAST}/{v}": f"{head.label}/{v}" for v in ("kernel", "bias")}
    extra = tuple(
        f"{layer.label}/{name or number}"
        for layer in rest
        if layer not in head.used
        for number, (name, _) in enumerate(layer.variables)
    )
    return KerasWeights(values, names, extra, head.note, _normalization(rest))


def _renamed(layer: KerasLayer) -> KerasLayer:
    """Gives a layer of a KerasHub backbone the name that it has in ``keras.applications``."""
    name = re.sub(r"^(block\d+[a-z]+)_dwconv_bn$", r"\1_bn", layer.name)
    name = re.sub(r"^(block\d+[a-z]+)_project$", r"\1_project_conv", name)
    return layer if name == layer.name else dataclasses.replace(layer, name=name)


def _normalization(layers: Sequence[KerasLayer]) -> Mapping[str, np.ndarray]:
    """Returns the values of the first Normalization layer that has some."""
    for layer in layers:
        name = layer.name or layer.place[-1]
        values = [value for _, value in layer.variables]
        if re.fullmatch(r"normalization(_\d+)?", name) and [v.ndim for v in values] == [1, 1, 0]:
            return {"mean": values[0], "variance": values[1]}
    return {}


def _variables(stored: KerasLayer, layer: WeightLayer) -> dict[str, np.ndarray] | None:
    """Returns a layer's values by our names; None: they are not those of such a layer."""
    if len(stored.variables) != len(layer.variables):
        return None
    by_name = dict(stored.variables)
    if set(by_name) == set(layer.variables):
        return by_name
    return {name: value for name, (_, value) in zip(layer.variables, stored.variables)}


def _kind(layer: WeightLayer) -> str:
    """Returns under which name Keras stores the first layer of this one's class."""
    return "batch_normalization" if layer.role.endswith("_bn") else _KINDS.get(layer.role, "conv2d")


def _name_by_order(
    stored: Sequence[KerasLayer], layers: Sequence[WeightLayer]
) -> Sequence[KerasLayer]:
    """Names the layers without names of the model that has as many of each class as the network."""
    own: dict[str, list[str]] = {}
    for layer in layers:
        if layer.role != _LAST:
            own.setdefault(_kind(layer), []).append(layer.name)
    models: dict[tuple[str, ...], dict[str, list[tuple[int, KerasLayer]]]] = {}
    for stored_layer in stored:
        if stored_layer.place and not stored_layer.name:
            kind, number = _split(stored_layer.place[-1])
            kinds = models.setdefault(stored_layer.place[:-1], {})
            kinds.setdefault(kind, []).append((number, stored_layer))
    found: dict[tuple[str, ...], str] = {}
    for kinds in models.values():
        if all(len(kinds.get(kind, ())) == len(names) for kind, names in own.items()):
            for kind, names in own.items():
                ordered = sorted(kinds[kind], key=lambda pair: pair[0])
                found.update({layer.place: name for name, (_, layer) in zip(names, ordered)})
            break
    return [dataclasses.replace(s, name=s.name or found.get(s.place, "")) for s in stored]


def _split(step: str) -> tuple[str, int]:
    """``conv2d_12`` -> (``conv2d``, 12); ``conv2d`` -> (``conv2d``, 0)."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", step)
    assert match is not None
    return match[1], int(match[2] or 0)
