"""Maps our variable names to those of google/automl's checkpoints.

Released files are TF1 name-based: ``efficientnetv2-s/blocks_0/tpu_batch_normalization/gamma``. The
TF2 script writes object-based ones: ``_blocks/0/_norm1/gamma``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from efficientnetv2.checkpoints.layer_map import WeightLayer, map_names

AVERAGE = "/ExponentialMovingAverage"
_TF1_KINDS = {
    "depthwise_conv": "depthwise_conv2d",
    "se_reduce": "se/conv2d",
    "se_expand": "se/conv2d",
    "predictions": "dense",
}
_TF2_LAYERS = {
    "stem_conv": "_stem/_conv_stem",
    "stem_bn": "_stem/_norm",
    "expand_conv": "_expand_conv",
    "expand_bn": "_norm0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_norm1",
    "se_reduce": "_se/_se_reduce",
    "se_expand": "_se/_se_expand",
    "project_conv": "_project_conv",
    "project_bn": "_norm2",
    "top_conv": "_head/_conv_head",
    "top_bn": "_head/_norm",
    "predictions": "_fc",
}


def tf1_names(layers: Sequence[WeightLayer], *, model_name: str) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of the released files.

    Args:
      layers: of the network.
      model_name: prefix of the official names.
    """
    tf1_layers = dict(_tf1_layers(layers))
    return map_names(
        layers,
        layer_name=lambda layer: f"{model_name}/{tf1_layers[layer.name]}/",
        variable_name=_tf_variable,
    )


def _tf1_layers(layers: Sequence[WeightLayer]) -> Iterator[tuple[str, str]]:
    """Yields our layer and theirs; TensorFlow 1 numbers layers of one kind within a scope."""
    counts: dict[str, int] = {}
    for layer in layers:
        kind = "tpu_batch_normalization" if layer.role.endswith("_bn") else "conv2d"
        kind = f"{_scope(layer)}/{_TF1_KINDS.get(layer.role, kind)}"
        count = counts[kind] = counts.get(kind, -1) + 1
        yield layer.name, f"{kind}_{count}" if count else kind


def _scope(layer: WeightLayer) -> str:
    if layer.block is not None:
        return f"blocks_{layer.block}"
    return "stem" if layer.role.startswith("stem_") else "head"


def tf2_names(layers: Sequence[WeightLayer]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the keys that ``main_tf2.py`` of the official code writes."""
    return map_names(layers, layer_name=_tf2_layer, variable_name=_tf_variable)


def _tf2_layer(layer: WeightLayer) -> str:
    block = "" if layer.block is None else f"_blocks/{layer.block}/"
    is_second = layer.role == "project_bn" and layer.is_fused
    return f"{block}{'_norm1' if is_second else _TF2_LAYERS[layer.role]}/"


def _tf_variable(layer: WeightLayer, name: str) -> str:
    return "depthwise_kernel" if layer.role == "depthwise_conv" else name
