"""Lists the layers with weights of a network, with the role and place of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from efficientnetv2.model.network import single_blocks
from hparams.block_strings import FUSED_MBCONV, BlockSpec

_NORM_VARIABLES = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True)
class WeightLayer:
    """One layer with weights.

    Attributes:
      role: ``stem_conv``, ``stem_bn``, ``expand_conv``, ``expand_bn``, ``depthwise_conv``,
        ``depthwise_bn``, ``se_reduce``, ``se_expand``, ``project_conv``, ``project_bn``,
        ``top_conv``, ``top_bn`` or ``predictions``.
      name: of the layer in our models.
      block: index of its block in the network; None in stem and head.
      stage: index of the block's stage.
      repeat: index of the block in its stage.
      is_fused: whether the block is a Fused-MBConv.
      expands: whether the block widens its channels first.
      num_values: about how many values its variables have; of the classifier: 0, as any number of
        classes is possible.
    """

    role: str
    name: str
    block: int | None = None
    stage: int = 0
    repeat: int = 0
    is_fused: bool = False
    expands: bool = False
    num_values: int = 0

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the layer's variables, as in Keras."""
        if self.role.endswith("_bn"):
            return _NORM_VARIABLES
        has_bias = self.role in ("se_reduce", "se_expand", "predictions")
        return ("kernel", "bias") if has_bias else ("kernel",)


def layer_map(
    stages: Sequence[BlockSpec],
    *,
    depthwise_name: str,
    head_filters: int,
    include_top: bool = True,
) -> Iterator[WeightLayer]:
    """Yields all layers with weights, in the order in which they are built.

    Args:
      stages: SCALED stages of the network.
      depthwise_name: ``dwconv2`` for V2, ``dwconv`` for V1 and Lite.
      head_filters: channels of the last convolution.
      include_top: whether to include the classifier.
    """
    stem = 27 * stages[0].input_filters
    yield WeightLayer("stem_conv", "stem_conv", num_values=stem)
    yield WeightLayer("stem_bn", "stem_bn")
    places = [(s, r) for s, stage in enumerate(stages) for r in range(stage.num_repeat)]
    for index, (name, spec, _) in enumerate(single_blocks(stages, survival_prob=1.0)):
        for role in _roles(spec):
            stage, repeat = places[index]
            yield WeightLayer(
                role,
                f"{name}_{_SUFFIXES.get(role, role).format(depthwise_name)}",
                block=index,
                stage=stage,
                repeat=repeat,
                is_fused=spec.conv_type == FUSED_MBCONV,
                expands=spec.expand_ratio != 1,
                num_values=_num_values(role, spec),
            )
    top = stages[-1].output_filters * head_filters
    yield WeightLayer("top_conv", "top_conv", num_values=top)
    yield WeightLayer("top_bn", "top_bn")
    if include_top:
        yield WeightLayer("predictions", "predictions")


def _num_values(role: str, spec: BlockSpec) -> int:
    """Returns the number of values of a block's layer; for BatchNorm, at least that many."""
    inner, area = spec.input_filters * spec.expand_ratio, spec.kernel_size**2
    is_fused = spec.conv_type == FUSED_MBCONV
    if role == "expand_conv":
        return spec.input_filters * inner * (area if is_fused else 1)
    if role == "depthwise_conv":
        return inner * area
    if role in ("se_reduce", "se_expand"):
        return inner * max(1, int(spec.input_filters * (spec.se_ratio or 0)))
    if role == "project_conv":
        return inner * spec.output_filters * (area if is_fused and spec.expand_ratio == 1 else 1)
    return 4 * max(inner, spec.output_filters)


_SUFFIXES = {"depthwise_conv": "{}", "depthwise_bn": "bn"}


def _roles(spec: BlockSpec) -> Iterator[str]:
    if spec.expand_ratio != 1:
        yield "expand_conv"
        yield "expand_bn"
    if spec.conv_type != FUSED_MBCONV:
        yield "depthwise_conv"
        yield "depthwise_bn"
    if spec.se_ratio is not None:
        yield "se_reduce"
        yield "se_expand"
    yield "project_conv"
    yield "project_bn"


def map_names(
    layers: Sequence[WeightLayer],
    *,
    layer_name: Callable[[WeightLayer], str],
    variable_name: Callable[[WeightLayer, str], str],
) -> Mapping[str, str]:
    """Maps our ``layer/variable`` to the name of the same variable in another format.

    Args:
      layers: of the network.
      layer_name: layer -> its name in the other format, with the separator that follows it.
      variable_name: (layer, our name of a variable) -> the variable's name in the other format.
    """
    return {
        f"{layer.name}/{variable}": f"{layer_name(layer)}{variable_name(layer, variable)}"
        for layer in layers
        for variable in layer.variables
    }
