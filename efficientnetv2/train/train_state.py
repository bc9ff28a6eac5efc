"""Builds the train state: the network, its optimizer and everything else that training changes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.checkpoints.loader import WeightsReport
from efficientnetv2.checkpoints.pretrained_model import load_pretrained
from efficientnetv2.data.class_balance import log_priors
from efficientnetv2.model.layers import StepContext, dtype_policy, training_layers
from efficientnetv2.train.ema import MovingAverage
from efficientnetv2.train.learning_rate import KerasSchedule, LearningRate, StagedRate
from efficientnetv2.train.learning_rate_factors import build_factors
from efficientnetv2.train.losses import Objective
from efficientnetv2.train.metrics import TrainingMetrics
from efficientnetv2.train.optimizers import build_optimizer, decouples_decay
from efficientnetv2.train.quantised_network import build_trained_network
from efficientnetv2.train.target_scale import target_scale
from efficientnetv2.train.weight_decay import NO_DECAY, build_weight_decay, matching
from hparams.config import Config
from hparams.errors import UserError
from hparams.quantisation import is_quantised
from hparams.weights import RANDOM


@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that training changes, created under one strategy.

    Attributes:
      model: a network of training layers.
      variables: the variables that are trained.
      optimizer: built for these variables.
      objective: the loss.
      average: moving average of weights and BatchNorm statistics; None: not kept.
      context: step and dropout rate, read by the model's layers.
      metrics: means over the steps of the current epoch.
    """

    model: keras.Model
    variables: list[keras.Variable]
    optimizer: keras.optimizers.Optimizer
    objective: Objective
    average: MovingAverage | None
    context: StepContext
    metrics: TrainingMetrics

    @property
    def step(self) -> int:
        """Number of finished steps."""
        return int(tf.convert_to_tensor(self.context.step))


def named_weights(model: keras.Model) -> dict[str, tf.Variable]:
    """Returns ``layer/variable`` -> value for all weights, BatchNorm statistics included."""
    return {weight.path: weight.value for weight in model.weights}


def build_train_state(config: Config, rate: LearningRate | StagedRate) -> TrainState:
    """Builds a new train state from the config; call it under the strategy's scope.

    Raises:
      UserError: if ``train.varsexp``, ``train.weight_decay_vars`` or an expression of
        ``train.lr_scales`` matches no variable, or ``train.lr_layer_decay`` changes no rate.
    """
    step = tf.Variable(
        0,
        dtype=tf.int64,
        name="step",
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
    context = StepContext(step=step, dropout_rate=config.model.dropout_rate, seed=config.train.seed)
    layers = training_layers(
        context,
        bn_type=config.model.bn_type,
        bn_mode=config.model.bn_mode,
        precision=config.train.precision,
    )
    with precision_policy(config.train.precision):
        model = build_trained_network(config, layer_set=layers)
    variables = _select_variables(model, config.train.varsexp)
    factors = build_factors(config, model, variables)
    weight_decay = build_weight_decay(config, variables, total_steps=rate.total_steps)
    by_loss, by_optimizer = weight_decay, NO_DECAY
    if decouples_decay(config):
        by_loss, by_optimizer = by_optimizer, by_loss
    optimizer = build_optimizer(
        config, KerasSchedule(rate), factors=factors, weight_decay=by_optimizer
    )
    optimizer.build(variables)
    decay = config.train.ema_decay
    average = MovingAverage(named_weights(model), decay=decay) if decay else None
    train = config.train
    objective = Objective(
        train.loss_type,
        train.label_smoothing,
        by_loss,
        temperature=train.distill_temperature,
        distill_weight=train.distill_weight,
        scale=target_scale(config.model),
        focal_gamma=train.focal_gamma,
        log_priors=log_priors(config),
    )
    metrics = TrainingMetrics(
        with_teacher=train.teacher is not None, scale=target_scale(config.model)
    )
    return TrainState(model, variables, optimizer, objective, average, context, metrics)


@contextlib.contextmanager
def precision_policy(name: str) -> Iterator[None]:
    """Sets the type in which layers created in the context compute; weights stay in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype_policy(name))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _select_variables(model: keras.Model, expression: str | None) -> list[keras.Variable]:
    """Returns the trainable variables that match ``train.varsexp``; None: all of them."""
    variables = matching(model.trainable_variables, expression or "")
    if not variables:
        raise UserError(
            f"train.varsexp='{expression}' matches no trainable variable (for example "
            f"'{model.trainable_variables[0].path}' or '{model.trainable_variables[-1].path}')"
        )
    return variables


def start_from_pretrained(config: Config, train_state: TrainState) -> WeightsReport | None:
    """Loads the pretrained weights that ``train.ft_init_ckpt`` names, before the first step.

    If they are of other classes, the classifier keeps its random values. The moving average starts
    at the loaded weights.

    Returns:
      A report of what was loaded; None if no weights were requested, or training is being resumed,
      or the network computes in 8 bits: then calibration gives it its first weights.

    Raises:
      UserError: as ``load_pretrained``.
    """
    weights = config.train.ft_init_ckpt
    if weights in (None, RANDOM) or train_state.step or is_quantised(config):
        return None
    report = load_pretrained(train_state.model, config.model, weights, new_classifier=True)
    if train_state.average is not None:
        train_state.average.restart()
    return report
