"""Builds the two blocks of the family, MBConv and Fused-MBConv (paper section 3.2 and Figure 2).

A block maps ``[B, H, W, C]`` to ``[B, H/strides, W/strides, C']``. Layer names are those of
``keras.applications``.
"""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.layers import LayerSet, conv_initializer
from hparams.block_strings import FUSED_MBCONV, PADDING_SUFFIX, BlockSpec, squeezed_filters

# keras.applications names the depthwise layers of V1 and V2 differently.
DEPTHWISE_NAMES = {"v1": "dwconv", "lite": "dwconv", "v2": "dwconv2"}


@dataclasses.dataclass(frozen=True)
class BlockStyle:
    """Settings that all blocks of one network share.

    Attributes:
      layer_set: constructors of the layers.
      act_fn: name of the activation.
      bn_momentum: decay of the moving statistics per step.
      bn_epsilon: added to the variance.
      data_format: ``channels_last`` or ``channels_first``.
      padding: ``same`` or ``torch``, as ``model.padding``.
      depthwise_name: ``dwconv`` (V1) or ``dwconv2`` (V2) in ``keras.applications``.
    """

    layer_set: LayerSet
    act_fn: str
    bn_momentum: float
    bn_epsilon: float
    data_format: str
    padding: str
    depthwise_name: str

    @property
    def channel_axis(self) -> int:
        """Index of the channels in a batch of images."""
        return 3 if self.data_format == "channels_last" else 1


def conv_bn(
    x: tf.Tensor,
    style: BlockStyle,
    *,
    filters: int,
    kernel_size: int,
    strides: int = 1,
    names: tuple[str, str, str | None],
) -> tf.Tensor:
    """Applies a convolution without bias, BatchNorm and, if it is named, an activation.

    Args:
      x: ``[B, H, W, C]``.
      style: settings that all blocks share.
      filters: number of output channels.
      kernel_size: height and width of the kernel.
      strides: in both directions.
      names: of the convolution, the BatchNorm and the activation (None: no activation).

    Returns:
      ``[B, H/strides, W/strides, filters]``, sizes rounded up.
    """
    layer_set = style.layer_set
    x, padding = _pad(x, style, kernel_size=kernel_size, strides=strides, name=names[0])
    x = (layer_set.activated_convolution if names[2] else layer_set.convolution)(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        use_bias=False,
        data_format=style.data_format,
        kernel_initializer=conv_initializer(),
        name=names[0],
    )(x)
    return _bn_act(x, style, bn_name=names[1], act_name=names[2])


def _pad(
    x: tf.Tensor, style: BlockStyle, *, kernel_size: int, strides: int, name: str
) -> tuple[tf.Tensor, str]:
    """Pads the input of a convolution as PyTorch does, where that is not what ``same`` does.

    With strides of 2 and an even size, ``same`` pads the right and lower border by one pixel more;
    PyTorch's networks pad all four by ``(kernel_size - 1) / 2``. Sizes are the same with both.

    Returns:
      (the input, how the convolution has to pad it).
    """
    if style.padding == "same" or strides == 1:
        return x, "same"
    pad = keras.layers.ZeroPadding2D(
        (kernel_size - 1) // 2, data_format=style.data_format, name=f"{name}_{PADDING_SUFFIX}"
    )
    return pad(x), "valid"


def _bn_act(x: tf.Tensor, style: BlockStyle, *, bn_name: str, act_name: str | None) -> tf.Tensor:
    x = style.layer_set.batch_normalization(
        axis=style.channel_axis,
        momentum=style.bn_momentum,
        epsilon=style.bn_epsilon,
        name=bn_name,
    )(x)
    return style.layer_set.activation(style.act_fn, act_name)(x) if act_name else x


def _depthwise_bn(x: tf.Tensor, style: BlockStyle, *, spec: BlockSpec, name: str) -> tf.Tensor:
    conv_name = f"{name}_{style.depthwise_name}"
    x, padding = _pad(x, style, kernel_size=spec.kernel_size, strides=spec.strides, name=conv_name)
    x = style.layer_set.depthwise_convolution(
        spec.kernel_size,
        strides=spec.strides,
        padding=padding,
        use_bias=False,
        data_format=style.data_format,
        depthwise_initializer=conv_initializer(),
        name=conv_name,
    )(x)
    return _bn_act(x, style, bn_name=f"{name}_bn", act_name=None)


def _activate_and_excite(
    x: tf.Tensor, style: BlockStyle, *, spec: BlockSpec, name: str, act_name: str | None
) -> tf.Tensor:
    """Applies the activation, if it is named, and squeeze-and-excitation, if the block has it.

    The latter scales each channel by a number in 0..1, computed from the means of all channels
    (MnasNet's form). Its inner width is a fraction of the BLOCK's input channels, not of the
    expanded ones.
    """
    if spec.se_ratio is None:
        return style.layer_set.activation(style.act_fn, act_name)(x) if act_name else x
    filters = x.shape[style.channel_axis]

    def conv(width: int, activation: str, *, suffix: str) -> keras.layers.Layer:
        return style.layer_set.convolution(
            width,
            1,
            padding="same",
            activation=activation,
            data_format=style.data_format,
            kernel_initializer=conv_initializer(),
            name=f"{name}_{suffix}",
        )

    x, scale = style.layer_set.activation_and_mean(
        x,
        style.act_fn,
        act_name=act_name,
        name=f"{name}_se",
        data_format=style.data_format,
    )
    scale = conv(squeezed_filters(spec), style.act_fn, suffix="se_reduce")(scale)
    scale = conv(filters, "sigmoid", suffix="se_expand")(scale)
    return keras.layers.Multiply(name=f"{name}_se_excite")([x, scale])


def _mbconv_path(x: tf.Tensor, style: BlockStyle, *, spec: BlockSpec, name: str) -> tf.Tensor:
    if spec.expand_ratio != 1:
        names = (f"{name}_expand_conv", f"{name}_expand_bn", f"{name}_expand_activation")
        width = spec.input_filters * spec.expand_ratio
        x = conv_bn(x, style, filters=width, kernel_size=1, names=names)
    x = _depthwise_bn(x, style, spec=spec, name=name)
    x = _activate_and_excite(x, style, spec=spec, name=name, act_name=f"{name}_activation")
    project_names = (f"{name}_project_conv", f"{name}_project_bn", None)
    return conv_bn(x, style, filters=spec.output_filters, kernel_size=1, names=project_names)


def _fused_mbconv_path(x: tf.Tensor, style: BlockStyle, *, spec: BlockSpec, name: str) -> tf.Tensor:
    kernel_size, strides, act_name = spec.kernel_size, spec.strides, None
    if spec.expand_ratio != 1:
        names = (f"{name}_expand_conv", f"{name}_expand_bn", f"{name}_expand_activation")
        x = conv_bn(
            x,
            style,
            filters=spec.input_filters * spec.expand_ratio,
            kernel_size=kernel_size,
            strides=strides,
            names=names,
        )
        kernel_size, strides = 1, 1
    else:
        # Without expansion the projection is the spatial convolution, so it gets the activation.
        act_name = f"{name}_project_activation"
    x = _activate_and_excite(x, style, spec=spec, name=name, act_name=None)
    return conv_bn(
        x,
        style,
        filters=spec.output_filters,
        kernel_size=kernel_size,
        strides=strides,
        names=(f"{name}_project_conv", f"{name}_project_bn", act_name),
    )


def block(
    x: tf.Tensor, style: BlockStyle, *, spec: BlockSpec, survival_probability: float, name: str
) -> tf.Tensor:
    """Applies one MBConv or Fused-MBConv block with its residual connection.

    Args:
      x: ``[B, H, W, input_filters]``.
      style: settings that all blocks share.
      spec: of this one block (``num_repeat`` is ignored).
      survival_probability: of stochastic depth, in (0, 1].
      name: prefix of the layer names, for example ``block1a``.

    Returns:
      ``[B, H/strides, W/strides, output_filters]``, sizes rounded up.
    """
    path = _fused_mbconv_path if spec.conv_type == FUSED_MBCONV else _mbconv_path
    y = path(x, style, spec=spec, name=name)
    if spec.strides != 1 or spec.input_filters != spec.output_filters:
        return y
    if survival_probability < 1:
        y = style.layer_set.block_dropout(1 - survival_probability, f"{name}_drop")(y)
    return keras.layers.Add(name=f"{name}_add")([y, x])
