"""A configuration in; the network, and all that is trained with it, out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import TrainingState, dtype_policy, training_layers
from efficientnetv2.train.ema import MovingAverage
from efficientnetv2.train.losses import Objective, build_objective, matching
from efficientnetv2.train.metrics import TrainingMetrics
from efficientnetv2.train.optimizers import build_optimizer, rate_factors
from efficientnetv2.train.schedules import KerasSchedule, LearningRate, StagedRate
from hparams.errors import UserError
from hparams.resolve import Config


@dataclasses.dataclass(frozen=True)
class Learner:
    """Everything that a training changes, made under one strategy.

    Attributes:
      model: a network of training layers.
      variables: those that are trained.
      optimizer: built for these variables.
      objective: the loss.
      average: moving average of weights and BatchNorm statistics, or None.
      state: step and dropout rate, read by the model's layers.
      metrics: means over the steps of this epoch.
    """

    model: keras.Model
    variables: list[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    objective: Objective
    average: MovingAverage | None
    state: TrainingState
    metrics: TrainingMetrics

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return int(tf.convert_to_tensor(self.state.step))


def named_weights(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns all weights of a model by ``layer/variable``, BatchNorm statistics included."""
    return {weight.path: weight.value for weight in model.weights}


def build_learner(config: Config, rate: LearningRate | StagedRate) -> Learner:
    """Opens the configuration for all that is trained; call it under the strategy's scope.

    Raises:
      UserError: if ``train.varsexp``, ``train.weight_decay_vars`` or an expression of
        ``train.lr_scales`` is in no variable's name.
    """
    step = tf.Variable(
        0,
        dtype=tf.int64,
        name="step",
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
    state = TrainingState(step=step, dropout_rate=config.model.dropout_rate, seed=config.train.seed)
    layers = training_layers(
        state,
        bn_type=config.model.bn_type,
        bn_mode=config.model.bn_mode,
        precision=config.train.precision,
    )
    with _precision(config.train.precision):
        model = build_model(config.model, layer_set=layers)
    variables = _trained_variables(model, config.train.varsexp)
    factors = rate_factors(variables, config.train.lr_scales)
    optimizer = build_optimizer(config, KerasSchedule(rate), factors=factors)
    optimizer.build(variables)
    decay = config.train.ema_decay
    average = MovingAverage(named_weights(model), decay=decay) if decay else None
    objective = build_objective(config, variables, total_steps=rate.total_steps)
    return Learner(model, variables, optimizer, objective, average, state, TrainingMetrics())


@contextlib.contextmanager
def _precision(name: str) -> Iterator[None]:
    """Layers made in the context compute in this type, and keep their weights in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy(name))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _trained_variables(model: keras.Model, expression: str | None) -> list[keras.Variable]:
    variables = matching(model.trainable_variables, expression or "")
    if not variables:
        raise UserError(
            f"train.varsexp='{expression}' is in no variable's name; there are for example "
            f"'{model.trainable_variables[0].path}' and '{model.trainable_variables[-1].path}'"
        )
    return variables
