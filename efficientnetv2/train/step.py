"""The training step: a batch in; loss, gradients, update and moving average in one function.

Images float32 ``[B, S, S, 3]`` and targets float32 ``[B, K]``; one trace serves every S.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import orbit
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.settings import SettingsSchedule
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.layers import TrainingState, training_layers
from efficientnetv2.train.ema import MovingAverage
from efficientnetv2.train.losses import LOSSES, l2_term
from efficientnetv2.train.metrics import TrainingMetrics
from efficientnetv2.train.optimizers import build_optimizer
from efficientnetv2.train.schedules import KerasSchedule, LearningRate, StagedRate
from hparams.resolve import Config


@dataclasses.dataclass(frozen=True)
class Learner:
    """Everything that a training changes, made under one strategy.

    Attributes:
      model: a network of training layers.
      optimizer: built for the model's trainable variables.
      average: moving average of weights and BatchNorm statistics, or None.
      state: step and dropout rate, read by the model's layers.
      metrics: means over the steps of this epoch.
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
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
    """Opens the configuration for all that is trained; call it under the strategy's scope."""
    step = tf.Variable(
        0,
        dtype=tf.int64,
        name="step",
        trainable=False,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
    state = TrainingState(step=step, dropout_rate=config.model.dropout_rate, seed=config.train.seed)
    model = build_model(config.model, layer_set=training_layers(state))
    optimizer = build_optimizer(config, KerasSchedule(rate))
    optimizer.build(model.trainable_variables)
    decay = config.train.ema_decay
    average = MovingAverage(named_weights(model), decay=decay) if decay else None
    return Learner(model, optimizer, average, state, TrainingMetrics())


class Trainer(orbit.AbstractTrainer):
    """Orbit's inner loop.

    Args:
      learner: what is trained.
      strategy: where.
      settings: batch size and dropout rate by step.
      loss_type: a row of ``losses.LOSSES``.
      label_smoothing: of the loss.
      weight_decay: of the loss's L2 term.
      after_step: called with the number of finished steps; may raise ``stopping.Stopped``.

    Attributes:
      num_traces: how often the step has been traced.
    """

    def __init__(
        self,
        learner: Learner,
        strategy: tf.distribute.Strategy,
        *,
        settings: SettingsSchedule,
        loss_type: str,
        label_smoothing: float,
        weight_decay: float,
        after_step: Callable[[int], None],
    ) -> None:
        self.num_traces = 0
        self._learner = learner
        self._strategy = strategy
        self._settings = settings
        self._loss = LOSSES[loss_type]
        self._label_smoothing = label_smoothing
        self._weight_decay = weight_decay
        self._after_step = after_step
        self._batches: Iterator | None = None
        self._step = tf.function(self._distributed_step)

    def set_input(self, dataset: tf.data.Dataset) -> None:
        """Trains on ``dataset`` from now on: global batches, split over the replicas."""
        self._batches = iter(self._strategy.experimental_distribute_dataset(dataset))

    def train(self, num_steps: tf.Tensor) -> dict[str, float]:
        """Runs ``num_steps`` steps and returns the epoch's mean ``loss`` and ``accuracy``."""
        first = self._learner.step
        for done in range(1, int(num_steps) + 1):
            self._step(self._batches)
            self._after_step(first + done)
        return self._learner.metrics.result()

    def _distributed_step(self, batches: Iterator) -> None:
        self.num_traces += 1  # Python runs only while tracing
        state, average = self._learner.state, self._learner.average
        settings = self._settings.at(state.step)
        images, targets = next(batches)
        # Where an image cannot be read, nothing of the step may have happened: no count goes on.
        with tf.control_dependencies(self._strategy.experimental_local_results(images)):
            state.dropout_rate.assign(settings.dropout_rate)
            batch_size = tf.cast(settings.batch_size, tf.float32)
        self._strategy.run(self._replica_step, args=(images, targets, batch_size))
        with tf.control_dependencies(self._strategy.experimental_local_results(images)):
            if average is not None:
                average.update(state.step)
            state.step.assign_add(1)

    def _replica_step(
        self, images: tf.Tensor, targets: tf.Tensor, global_batch_size: tf.Tensor
    ) -> None:
        with tf.control_dependencies([images]):
            self._update(images, targets, global_batch_size)

    def _update(self, images: tf.Tensor, targets: tf.Tensor, global_batch_size: tf.Tensor) -> None:
        model = self._learner.model
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            cross_entropy = self._loss(
                logits,
                targets,
                label_smoothing=self._label_smoothing,
                global_batch_size=global_batch_size,
            )
            penalty = l2_term(_kernels(model), weight_decay=self._weight_decay)
            # The optimizer adds the replicas' gradients: each brings its share of the L2 term.
            loss = cross_entropy + penalty / self._strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self._learner.optimizer.apply(gradients, variables)
        images_here = tf.cast(tf.shape(images)[0], tf.float32)
        self._learner.metrics.update(
            loss_sum=cross_entropy * global_batch_size + penalty * images_here,
            logits=logits,
            targets=targets,
        )


def _kernels(model: keras.Model) -> list[tf.Variable]:
    return [v.value for v in model.trainable_variables if v.name.endswith("kernel")]
