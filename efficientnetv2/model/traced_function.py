"""Traces functions that nobody differentiates, so that TensorFlow frees them after use."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

_ATTRIBUTE = "_gradient_op_type"  # of an operation, in a graph, that has a gradient of its own


def function_without_gradient(
    function: Callable, **options: Any
) -> tf.types.experimental.PolymorphicFunction:
    """Traces a function as ``tf.function``, but gradients cannot be taken through it.

    Gradients that the function itself takes are part of its graph, and work.

    TensorFlow keeps the gradient of each ``tf.custom_gradient`` in a graph, such as that of every
    SiLU, until the process ends, and with it the graph and all weights that the graph reads. After
    ten trainings in one process, ten networks would be in memory. Here these gradients are
    forgotten as soon as the function is traced.

    Args:
      function: to be traced.
      **options: of ``tf.function``.
    """

    @functools.wraps(function)
    def traced(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        _forget_gradients(tf.compat.v1.get_default_graph())
        return result

    return tf.function(traced, **options)


def outputs_of(model: keras.Model, inputs: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Returns a network's outputs, ``[N, ...]``, as ``model.predict``, and leaves nothing behind.

    Args:
      model: has one input and one output.
      inputs: ``[N, ...]``, N at least 1.
      batch_size: inputs computed at once.
    """
    run = function_without_gradient(
        lambda batch: model(batch, training=False), autograph=False, reduce_retracing=True
    )
    starts = range(0, len(inputs), batch_size)
    return np.concatenate([run(tf.constant(inputs[s : s + batch_size])).numpy() for s in starts])


def _forget_gradients(graph: tf.Graph) -> None:
    registered = _registered_gradients()
    for operation in graph.get_operations():
        if operation.type != "IdentityN":  # by which tf.custom_gradient marks a gradient
            continue
        try:
            name = operation.get_attr(_ATTRIBUTE)
        except ValueError:
            continue
        registered.pop(name.decode(), None)


def _registered_gradients() -> dict[str, Any]:
    """Returns TensorFlow's gradients by name; empty if a version keeps them elsewhere."""
    from tensorflow.python.framework import ops

    registry = getattr(ops, "gradient_registry", None)
    return getattr(registry, "_registry", {})
