"""Variable names of google/automl's checkpoints: a block list in; official name -> our name out.

The names are those of the released TF1 name-based files, for example
``efficientnetv2-s/blocks_0/tpu_batch_normalization/gamma``. Ours are ``layer/variable``:
``block1a_project_bn/gamma``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tensorflow import keras

from efficientnetv2.model.network import single_blocks
from hparams.blocks import FUSED_MBCONV, BlockSpec

_BN_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")


def official_names(
    stages: Sequence[BlockSpec], *, model_name: str, depthwise_name: str, include_top: bool = True
) -> dict[str, str]:
    """Maps every official variable name of a network to ours.

    Args:
      stages: SCALED stages of the network.
      model_name: first part of the official names.
      depthwise_name: ``dwconv2`` for V2, ``dwconv`` for V1 and Lite.
      include_top: whether the classifier is part of it.
    """
    layers = dict(_numbered("stem", [("conv2d", "stem_conv"), ("bn", "stem_bn")]))
    for index, (name, spec, _) in enumerate(single_blocks(stages, survival_prob=1.0)):
        pairs = _block_layers(name, spec, depthwise_name=depthwise_name)
        layers.update(_numbered(f"blocks_{index}", pairs))
    layers.update(_numbered("head", [("conv2d", "top_conv"), ("bn", "top_bn")]))
    if include_top:
        layers["head/dense"] = "predictions"
    return {
        f"{model_name}/{official}/{variable}": f"{ours}/{our_variable}"
        for official, ours in layers.items()
        for variable, our_variable in _variables(official)
    }


def _block_layers(name: str, spec: BlockSpec, *, depthwise_name: str) -> Iterator[tuple[str, str]]:
    """Yields (official kind, our layer) of one block, in the order in which it creates them."""
    fused = spec.conv_type == FUSED_MBCONV
    if spec.expand_ratio != 1:
        yield "conv2d", f"{name}_expand_conv"
        yield "bn", f"{name}_expand_bn"
    if not fused:
        yield "depthwise_conv2d", f"{name}_{depthwise_name}"
        yield "bn", f"{name}_bn"
    if spec.se_ratio is not None:
        yield "se/conv2d", f"{name}_se_reduce"
        yield "se/conv2d", f"{name}_se_expand"
    yield "conv2d", f"{name}_project_conv"
    yield "bn", f"{name}_project_bn"


def _numbered(
    scope: str, pairs: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]
) -> dict[str, str]:
    """Numbers repeated kinds as TensorFlow 1 does: ``conv2d``, ``conv2d_1``, ..."""
    seen: dict[str, int] = {}
    layers = {}
    for kind, ours in pairs:
        kind = "tpu_batch_normalization" if kind == "bn" else kind
        count = seen[kind] = seen.get(kind, -1) + 1
        layers[f"{scope}/{kind}" + (f"_{count}" if count else "")] = ours
    return layers


def _variables(official_layer: str) -> list[tuple[str, str]]:
    scope, _, layer = official_layer.rpartition("/")
    if layer.startswith("tpu_batch_normalization"):
        return [(name, name) for name in _BN_VARIABLES]
    if layer.startswith("depthwise_conv2d"):
        return [("depthwise_kernel", "kernel")]
    if layer == "dense" or scope.endswith("/se"):
        return [("kernel", "kernel"), ("bias", "bias")]
    return [("kernel", "kernel")]


def set_weights(
    model: keras.Model, values: Mapping[str, np.ndarray], *, names: Mapping[str, str]
) -> None:
    """Sets every weight of ``model`` from values under official names.

    Args:
      model: any model whose layers are named as ours.
      values: official name -> array; names that ``names`` lacks are not looked at.
      names: from ``official_names``.

    Raises:
      ValueError: if a weight of the model would stay as it is, or a shape differs.
    """
    ours = {names[official]: value for official, value in values.items() if official in names}
    weights = {weight.path: weight for layer in model.layers for weight in layer.weights}
    missing = sorted(set(weights) - set(ours))
    if missing:
        raise ValueError(f"no value for {len(missing)} weights, among them {missing[0]}")
    for path, weight in weights.items():
        if tuple(weight.shape) != tuple(ours[path].shape):
            raise ValueError(
                f"{path} has shape {tuple(weight.shape)}, the value {tuple(ours[path].shape)}"
            )
        weight.assign(ours[path])
