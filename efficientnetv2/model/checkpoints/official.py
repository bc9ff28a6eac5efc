"""Variable names of google/automl's checkpoints: a network's parts in; our name -> theirs out.

Released files are TF1 name-based: ``efficientnetv2-s/blocks_0/tpu_batch_normalization/gamma``. The
TF2 script writes object-based ones: ``_blocks/0/_norm1/gamma``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from efficientnetv2.model.checkpoints.parts import Part, their_names

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


def tf1_names(parts: Sequence[Part], *, model_name: str) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the names of the released files.

    Args:
      parts: of the network.
      model_name: first part of their names.
    """
    layers = dict(_numbered(parts))
    return their_names(
        parts,
        layer=lambda part: f"{model_name}/{layers[part.layer]}/",
        variable=_tf_variable,
    )


def _numbered(parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    """Our layer and theirs; TensorFlow 1 numbers what is of one kind in one scope."""
    seen: dict[str, int] = {}
    for part in parts:
        kind = "tpu_batch_normalization" if part.role.endswith("_bn") else "conv2d"
        kind = f"{_scope(part)}/{_TF1_KINDS.get(part.role, kind)}"
        count = seen[kind] = seen.get(kind, -1) + 1
        yield part.layer, f"{kind}_{count}" if count else kind


def _scope(part: Part) -> str:
    if part.block is not None:
        return f"blocks_{part.block}"
    return "stem" if part.role.startswith("stem_") else "head"


def tf2_names(parts: Sequence[Part]) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the keys that ``main_tf2.py`` of the official code writes."""
    return their_names(parts, layer=_tf2_layer, variable=_tf_variable)


def _tf2_layer(part: Part) -> str:
    block = "" if part.block is None else f"_blocks/{part.block}/"
    is_second = part.role == "project_bn" and part.is_fused
    return f"{block}{'_norm1' if is_second else _TF2_LAYERS[part.role]}/"


def _tf_variable(part: Part, name: str) -> str:
    return "depthwise_kernel" if part.role == "depthwise_conv" else name
