"""Averages the weights of several trainings of one network: a model soup (arXiv 2203.05482)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.traced_function import function_without_gradient

Weights = list[np.ndarray]  # of a network, in Keras's order


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """One training that may become part of an average.

    Attributes:
      name: of the training.
      weights: of its network.
      origin: which weights they are, as text.
      score: its metric on the minival split.
      together: the metric of the average with it; None: it was the first.
      is_used: whether it is part of the average.
    """

    name: str
    weights: Weights
    origin: str
    score: float
    together: float | None = None
    is_used: bool = True


def mean_weights(weights: Sequence[Weights]) -> Weights:
    """Returns the mean of each weight, summed in float64."""
    return [
        np.mean(np.stack([np.float64(value) for value in values]), axis=0).astype(values[0].dtype)
        for values in zip(*weights)
    ]


def uniform_soup(
    ingredients: Sequence[Ingredient], score: Callable[[Weights], float]
) -> list[Ingredient]:
    """Averages all; returns the ingredients, the last of them with the metric of the average.

    Args:
      ingredients: at least two.
      score: sets weights in a network, perhaps with BatchNorm statistics of their own, and returns
        the network's metric on the minival split.
    """
    together = score(mean_weights([one.weights for one in ingredients]))
    return [*ingredients[:-1], dataclasses.replace(ingredients[-1], together=together)]


def greedy_soup(
    ingredients: Sequence[Ingredient], score: Callable[[Weights], float]
) -> list[Ingredient]:
    """Adds one training after another, the best first, if the metric does not fall.

    Recipe 1 of the paper. At the end, ``score`` has been called with other weights than those of
    the average if the last training was left out.

    Args:
      ingredients: at least two.
      score: as in ``uniform_soup``.

    Returns:
      The ingredients in the order in which they were tried, with what came of each.
    """
    first, *rest = sorted(ingredients, key=lambda one: -one.score)
    tried, best = [first], first.score
    for one in rest:
        used = [other.weights for other in tried if other.is_used]
        together = score(mean_weights([*used, one.weights]))
        is_used = together >= best
        tried.append(dataclasses.replace(one, together=together, is_used=is_used))
        best = together if is_used else best
    return tried


class BatchNormEstimator:
    """Estimates the statistics of a network's BatchNormalization layers on images.

    An average of weights does not have the statistics that are the average of the statistics
    (arXiv 1803.05407, section 3.2). Each layer sees the outputs of layers that normalise by the
    batch, as in training, but without dropout. Its mean and variance are those of all images.

    Args:
      model: a network of stock Keras layers; its statistics are changed by each call.
      images: normalised images float32 ``[N, S, S, C]``, in an order that mixes the classes.
      batch_size: images a batch; a last batch of fewer is left out.
    """

    def __init__(self, model: keras.Model, images: np.ndarray, *, batch_size: int) -> None:
        norms = keras.layers.BatchNormalization
        self._layers = [layer for layer in model.layers if isinstance(layer, norms)]
        size = min(batch_size, len(images))
        count = len(images) // size * size
        self._batches = tf.data.Dataset.from_tensor_slices(images[:count]).batch(size)
        for layer in self._layers:
            layer.momentum = 0.0  # each batch replaces the statistics

        def call(layer: keras.Operation, *args: object, **options: object) -> object:
            if isinstance(layer, keras.layers.Layer):  # and not an operator, such as +
                options["training"] = isinstance(layer, norms)
            return layer(*args, **options)

        twin = keras.models.clone_model(
            model, clone_function=lambda layer: layer, call_function=call
        )
        self._run = function_without_gradient(lambda batch: twin(batch), reduce_retracing=True)

    def __call__(self) -> None:
        """Replaces the statistics of the model by those with its present weights."""
        means, variances = [], []
        for batch in self._batches:
            self._run(batch)
            means.append([np.float64(layer.moving_mean) for layer in self._layers])
            variances.append([np.float64(layer.moving_variance) for layer in self._layers])
        for number, layer in enumerate(self._layers):
            mean = np.stack([batch[number] for batch in means])
            variance = np.stack([batch[number] for batch in variances])
            layer.moving_mean.assign(mean.mean(axis=0))
            layer.moving_variance.assign(variance.mean(axis=0) + mean.var(axis=0))
