"""Runs the training step: loss, gradients, update and moving average in one traced function.

It takes images, float32 ``[B, S, S, 3]``, targets, float32 ``[B, K]``, and, where images have
weights in the loss, these: float32 ``[B]``. One trace serves every image size S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import orbit
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.schedule import SettingsSchedule, StepSettings
from efficientnetv2.model.batch_norm import per_replica_statistics
from efficientnetv2.model.traced_function import function_without_gradient
from efficientnetv2.train.teacher import Teacher, build_teacher
from efficientnetv2.train.train_state import TrainState
from hparams.config import Config


class Trainer(orbit.AbstractTrainer):
    """Trains for a number of steps: Orbit's inner loop.

    Args:
      train_state: the network, its optimizer and everything else that is trained.
      strategy: the devices.
      settings: batch size and dropout rate by step.
      after_step: called with the number of finished steps; may raise ``signals.Stopped``.
      accumulate: number of microbatches per batch; their gradients are added before the update.
      xla: whether XLA compiles the forward and backward pass, once for each image size.
      steps_per_loop: number of steps in one call of the traced function; ``after_step`` is called
        after each call.
      teacher: a network whose answers are learnt besides the labels; None: none.

    Attributes:
      teacher: as given.
      num_traces: how often the step has been traced.
    """

    def __init__(
        self,
        train_state: TrainState,
        strategy: tf.distribute.Strategy,
        *,
        settings: SettingsSchedule,
        after_step: Callable[[int], None],
        accumulate: int = 1,
        xla: bool = False,
        steps_per_loop: int = 1,
        teacher: Teacher | None = None,
    ) -> None:
        self.num_traces = 0
        self.teacher = teacher
        self._train_state = train_state
        self._strategy = strategy
        self._settings = settings
        self._after_step = after_step
        self._accumulate = accumulate
        self._steps_per_loop = steps_per_loop
        self._statistics = per_replica_statistics(train_state.model)
        self._batches: Iterator | None = None
        self._sums: list[tf.Variable] = []
        if accumulate > 1:
            with strategy.scope():
                self._sums = [_sum_like(variable) for variable in train_state.variables]
        self._loop = function_without_gradient(self._steps, autograph=False)
        # Compiled without the update, which needs the gradients of the other replicas: XLA cannot
        # compile that exchange.
        self._gradients = (
            function_without_gradient(self._pass, autograph=False, jit_compile=True)
            if xla
            else self._pass
        )

    def set_input(self, batches: Iterable) -> None:
        """Sets the batches to train on from now on, from ``strategy.distribute_training``."""
        self._batches = iter(batches)

    def clear_input(self) -> None:
        """Frees the batches, with the buffers and threads that prepare them.

        Otherwise they would live until Python's garbage collector finds the trainer, which refers
        to itself. Then, too, TensorFlow may wait: a stream that goes has to stop the thread that
        tunes its buffers, which can miss the request and sleeps the longer (up to a minute) the
        older the stream is.
        """
        del self._batches  # an assignment would leave a reference with what tf.Module tracks
        self._batches = None

    def train(self, num_steps: tf.Tensor) -> dict[str, float]:
        """Runs ``num_steps`` steps and returns the epoch's means so far."""
        step = self._train_state.step
        end_step = step + int(num_steps)
        while step < end_step:
            count = min(self._steps_per_loop, end_step - step)
            self._loop(self._batches, tf.constant(count))
            step += count
            self._after_step(step)
        return self._train_state.metrics.result()

    def _steps(self, batches: Iterator, count: tf.Tensor) -> None:
        self.num_traces += 1  # this Python code runs only while the function is being traced
        if self._steps_per_loop == 1:
            self._one_step(batches)
        else:
            _repeat(count, lambda _: self._one_step(batches))

    def _one_step(self, batches: Iterator) -> None:
        settings = self._settings.at(self._train_state.context.step)
        if self._accumulate == 1:
            images = self._one_pass(batches, tf.constant(0), settings)
            dependencies = self._strategy.experimental_local_results(images)
        else:
            _repeat(self._accumulate, lambda index: self._one_pass(batches, index, settings))
            self._strategy.run(self._replica_apply)
            dependencies = ()
        with tf.control_dependencies(dependencies):
            step = self._train_state.context.step
            if self._train_state.average is not None:
                self._train_state.average.update(step)
            step.assign(step + 1)  # in this form because a TPU requires it

    def _one_pass(self, batches: Iterator, index: tf.Tensor, settings: StepSettings) -> tf.Tensor:
        """Runs one microbatch (usually the whole batch) and returns its images."""
        context = self._train_state.context
        images, targets, *weights = next(batches)
        # If an image cannot be read, the step must change nothing, not even a counter; so all
        # assignments wait for the images.
        with tf.control_dependencies(self._strategy.experimental_local_results(images)):
            context.dropout_rate.assign(settings.dropout_rate)
            context.draw.assign(context.step * self._accumulate + tf.cast(index, tf.int64))
            batch_size = tf.cast(settings.batch_size, tf.float32)
        self._strategy.run(self._replica_pass, args=(images, targets, batch_size, *weights))
        return images

    def _replica_pass(
        self,
        images: tf.Tensor,
        targets: tf.Tensor,
        global_batch_size: tf.Tensor,
        weights: tf.Tensor | None = None,
    ) -> None:
        with tf.control_dependencies([images]):
            gradients = self._gradients(images, targets, global_batch_size, weights)
            if self._accumulate == 1:
                self._update(gradients)
            for total, gradient in zip(self._sums, gradients):
                total.assign_add(gradient)

    def _replica_apply(self) -> None:
        self._update(_values(self._sums))
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _pass(
        self,
        images: tf.Tensor,
        targets: tf.Tensor,
        global_batch_size: tf.Tensor,
        weights: tf.Tensor | None,
    ) -> list[tf.Tensor]:
        """Returns the gradients of these images' share of the loss, scaled for float16."""
        train_state, objective = self._train_state, self._train_state.objective
        teacher_logits = None if self.teacher is None else self.teacher.logits(images)
        with tf.GradientTape() as tape:
            logits = train_state.model(images, training=True)
            data_loss = label_loss = objective.label_loss(
                logits, targets, global_batch_size=global_batch_size, weights=weights
            )
            if teacher_logits is not None:
                distillation = objective.distillation(
                    logits, teacher_logits, global_batch_size=global_batch_size, weights=weights
                )
                data_loss = objective.weighted(label_loss, distillation)
            penalty = objective.penalty(train_state.context.step)
            # The gradients of all replicas and microbatches are added up, so each of them
            # contributes its share of the L2 term.
            num_shares = self._strategy.num_replicas_in_sync * self._accumulate
            loss = train_state.optimizer.scale_loss(data_loss + penalty / num_shares)
        train_state.metrics.update(
            loss_sum=label_loss * global_batch_size, logits=logits, targets=targets
        )
        if teacher_logits is not None:
            train_state.metrics.update_teacher(
                distillation_sum=distillation * global_batch_size,
                teacher_logits=teacher_logits,
                targets=targets,
            )
        return tape.gradient(loss, [variable.value for variable in train_state.variables])

    def _update(self, gradients: list[tf.Tensor]) -> None:
        train_state = self._train_state
        if self._strategy.num_replicas_in_sync > 1:
            replica = tf.distribute.get_replica_context()
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            if self._statistics:
                statistics = _values(self._statistics)
                means = replica.all_reduce(tf.distribute.ReduceOp.MEAN, statistics)
                for statistic, mean in zip(self._statistics, means):
                    statistic.assign(mean)
        norm = tf.linalg.global_norm(gradients) / train_state.optimizer.scale_loss(1.0)
        train_state.metrics.update_gradient(norm)
        train_state.optimizer.apply(gradients, train_state.variables)


def build_trainer(
    config: Config,
    train_state: TrainState,
    strategy: tf.distribute.Strategy,
    *,
    settings: SettingsSchedule,
    after_step: Callable[[int], None],
) -> Trainer:
    """Builds the trainer, and its teacher, from the config; other arguments as of ``Trainer``.

    Raises:
      UserError: if the teacher cannot be used.
    """
    with strategy.scope():  # each device has its own copy of the teacher
        teacher = build_teacher(config)
    return Trainer(
        train_state,
        strategy,
        settings=settings,
        after_step=after_step,
        accumulate=config.train.accumulate,
        xla=config.runtime.xla,
        steps_per_loop=config.runtime.steps_per_loop,
        teacher=teacher,
    )


def _values(variables: list[tf.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable) for variable in variables]


def _sum_like(variable: keras.Variable) -> tf.Variable:
    """Returns a variable for the sum of a variable's gradients; each replica has its own."""
    return tf.Variable(
        tf.zeros(variable.shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def _repeat(count: tf.Tensor | int, body: Callable[[tf.Tensor], object]) -> None:
    """Calls ``body`` with 0, 1, ... in a loop inside the graph, one call after the other."""

    def iteration(index: tf.Tensor) -> tuple[tf.Tensor]:
        body(index)
        return (index + 1,)

    tf.while_loop(lambda index: index < count, iteration, [tf.constant(0)], parallel_iterations=1)
