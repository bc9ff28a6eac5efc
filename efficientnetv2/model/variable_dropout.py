"""Makes the rate of Keras's Dropout layers variable, while they stay Keras's own layers.

Keras traces the rate of a ``Dropout`` into the training step as a number, so a new rate would need
a new trace. Here the rate of a layer is multiplied by a variable. Only the method ``call`` of this
one object is replaced: its class, config and weights are those of Keras, and so is whatever
``model.save``, ``ModelCheckpoint`` or ``clone_model`` make of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf
from tensorflow import keras

_SHARE = "_share_of_rate"


def dropout_layers(model: keras.Model) -> Iterator[keras.layers.Dropout]:
    """Yields the layers that drop single elements, at any depth of the model.

    Stochastic depth (a ``Dropout`` with a ``noise_shape``) and the spatial kinds are left out: the
    paper keeps the former fixed, and has none of the latter.
    """
    for layer in model._flatten_layers(include_self=False):
        if type(layer) is keras.layers.Dropout and layer.noise_shape is None and layer.rate > 0:
            yield layer


def vary_dropout(model: keras.Model) -> keras.Model:
    """Makes the rate of each of ``dropout_layers`` variable; it keeps its value until it is set.

    Args:
      model: is changed in place.

    Returns:
      The same model.
    """
    with model.distribute_strategy.scope():
        for layer in dropout_layers(model):
            if not is_variable(layer):
                _vary(layer)
    model.train_function = None  # an earlier trace has the old rates
    # Keras would have XLA compile the step on a GPU, anew for every image size.
    model.supports_jit = False
    return model


def is_variable(layer: keras.layers.Dropout) -> bool:
    """Returns whether the rate of a layer is variable."""
    return hasattr(layer.call, _SHARE)


def set_dropout_share(model: keras.Model, share: float) -> None:
    """Sets all variable rates to this share of what the layers were built with.

    Args:
      model: from ``vary_dropout``.
      share: at least 0; 1 is the layers' own rate.
    """
    with model.distribute_strategy.scope():
        for layer in dropout_layers(model):
            getattr(layer.call, _SHARE).assign(share)


def _vary(layer: keras.layers.Dropout) -> None:
    # Held in a closure: as an attribute of the layer it would be saved among its weights.
    share = tf.Variable(
        1.0,
        trainable=False,
        dtype=tf.float32,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )

    def call(inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training:
            return inputs
        # As in Keras, whose function does not take a rate that is a tensor.
        state = tf.convert_to_tensor(layer.seed_generator.next())
        seed = tf.cast(
            tf.math.floormod(state, tf.constant(tf.int32.max - 1, state.dtype)), tf.int32
        )
        rate = tf.cast(layer.rate * tf.convert_to_tensor(share), inputs.dtype)
        return tf.nn.experimental.stateless_dropout(inputs, rate=rate, seed=seed)

    setattr(call, _SHARE, share)
    layer.call = call
