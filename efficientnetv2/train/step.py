"""The training step: a batch in; loss, gradients, update and moving average in one function.

Images float32 ``[B, S, S, 3]`` and targets float32 ``[B, K]``; one trace serves every S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import orbit
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.settings import SettingsSchedule, StepSettings
from efficientnetv2.model.normalization import own_statistics
from efficientnetv2.train.learner import Learner
from hparams.resolve import Config


class Trainer(orbit.AbstractTrainer):
    """Orbit's inner loop.

    Args:
      learner: what is trained.
      strategy: where.
      settings: batch size and dropout rate by step.
      after_step: called with the number of finished steps; may raise ``stopping.Stopped``.
      accumulate: parts that a batch comes in; their gradients are added before the update.
      xla: compile the replicas' part of a step, once for each image size.
      steps_per_loop: steps in one call of the traced function; ``after_step`` is called after each.

    Attributes:
      num_traces: how often the step has been traced.
    """

    def __init__(
        self,
        learner: Learner,
        strategy: tf.distribute.Strategy,
        *,
        settings: SettingsSchedule,
        after_step: Callable[[int], None],
        accumulate: int = 1,
        xla: bool = False,
        steps_per_loop: int = 1,
    ) -> None:
        self.num_traces = 0
        self._learner = learner
        self._strategy = strategy
        self._settings = settings
        self._after_step = after_step
        self._accumulate = accumulate
        self._steps_per_loop = steps_per_loop
        self._statistics = own_statistics(learner.model)
        self._batches: Iterator | None = None
        self._sums: list[tf.Variable] = []
        if accumulate > 1:
            with strategy.scope():
                self._sums = [_sum_like(variable) for variable in learner.variables]
        self._loop = tf.function(self._steps, autograph=False)
        # Not with the update, which meets the other replicas: a function of its own cannot.
        self._gradients = (
            tf.function(self._pass, autograph=False, jit_compile=True) if xla else self._pass
        )

    def set_input(self, batches: Iterable) -> None:
        """Trains from now on by ``batches``, as ``strategy.distribute_training`` gives them."""
        self._batches = iter(batches)

    def train(self, num_steps: tf.Tensor) -> dict[str, float]:
        """Runs ``num_steps`` steps and returns the epoch's means so far."""
        first, wanted, done = self._learner.step, int(num_steps), 0
        while done < wanted:
            count = min(self._steps_per_loop, wanted - done)
            self._loop(self._batches, tf.constant(count))
            done += count
            self._after_step(first + done)
        return self._learner.metrics.result()

    def _steps(self, batches: Iterator, count: tf.Tensor) -> None:
        self.num_traces += 1  # Python runs only while tracing
        if self._steps_per_loop == 1:
            self._one_step(batches)
        else:
            _repeat(count, lambda _: self._one_step(batches))

    def _one_step(self, batches: Iterator) -> None:
        settings = self._settings.at(self._learner.state.step)
        if self._accumulate == 1:
            images = self._one_pass(batches, tf.constant(0), settings)
            after = self._strategy.experimental_local_results(images)
        else:
            _repeat(self._accumulate, lambda part: self._one_pass(batches, part, settings))
            self._strategy.run(self._replica_apply)
            after = ()
        with tf.control_dependencies(after):
            if self._learner.average is not None:
                self._learner.average.update(self._learner.state.step)
            self._learner.state.step.assign(self._learner.state.step + 1)  # as a TPU wants it

    def _one_pass(self, batches: Iterator, part: tf.Tensor, settings: StepSettings) -> tf.Tensor:
        """Runs one batch, or one part of it, and returns its images."""
        state = self._learner.state
        images, targets = next(batches)
        # Where an image cannot be read, nothing of the step may have happened: no count goes on.
        with tf.control_dependencies(self._strategy.experimental_local_results(images)):
            state.dropout_rate.assign(settings.dropout_rate)
            state.draw.assign(state.step * self._accumulate + tf.cast(part, tf.int64))
            batch_size = tf.cast(settings.batch_size, tf.float32)
        self._strategy.run(self._replica_pass, args=(images, targets, batch_size))
        return images

    def _replica_pass(
        self, images: tf.Tensor, targets: tf.Tensor, global_batch_size: tf.Tensor
    ) -> None:
        with tf.control_dependencies([images]):
            gradients = self._gradients(images, targets, global_batch_size)
            if self._accumulate == 1:
                self._update(gradients)
            for total, gradient in zip(self._sums, gradients):
                total.assign_add(gradient)

    def _replica_apply(self) -> None:
        self._update(_values(self._sums))
        for total in self._sums:
            total.assign(tf.zeros_like(total))

    def _pass(
        self, images: tf.Tensor, targets: tf.Tensor, global_batch_size: tf.Tensor
    ) -> list[tf.Tensor]:
        """Gradients of the loss's share of these images, scaled where the optimizer wants it."""
        learner = self._learner
        with tf.GradientTape() as tape:
            logits = learner.model(images, training=True)
            cross_entropy = learner.objective.cross_entropy(
                logits, targets, global_batch_size=global_batch_size
            )
            penalty = learner.objective.penalty(learner.state.step)
            # All replicas' and parts' gradients are added: each brings its share of the L2 term.
            shares = self._strategy.num_replicas_in_sync * self._accumulate
            loss = learner.optimizer.scale_loss(cross_entropy + penalty / shares)
        images_here = tf.cast(tf.shape(images)[0], tf.float32)
        learner.metrics.update(
            loss_sum=cross_entropy * global_batch_size + penalty * images_here,
            logits=logits,
            targets=targets,
        )
        return tape.gradient(loss, [variable.value for variable in learner.variables])

    def _update(self, gradients: list[tf.Tensor]) -> None:
        learner = self._learner
        if self._strategy.num_replicas_in_sync > 1:
            context = tf.distribute.get_replica_context()
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            if self._statistics:
                own = _values(self._statistics)
                means = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
                for moving, mean in zip(self._statistics, means):
                    moving.assign(mean)
        norm = tf.linalg.global_norm(gradients) / learner.optimizer.scale_loss(1.0)
        learner.metrics.update_gradient(norm)
        learner.optimizer.apply(gradients, learner.variables)


def build_trainer(
    config: Config,
    learner: Learner,
    strategy: tf.distribute.Strategy,
    *,
    settings: SettingsSchedule,
    after_step: Callable[[int], None],
) -> Trainer:
    """Opens the configuration for the inner loop; other arguments as of ``Trainer``."""
    return Trainer(
        learner,
        strategy,
        settings=settings,
        after_step=after_step,
        accumulate=config.train.accumulate,
        xla=config.runtime.xla,
        steps_per_loop=config.runtime.steps_per_loop,
    )


def _values(variables: list[tf.Variable]) -> list[tf.Tensor]:
    return [tf.convert_to_tensor(variable) for variable in variables]


def _sum_like(variable: keras.Variable) -> tf.Variable:
    """A sum of gradients; each replica has its own."""
    return tf.Variable(
        tf.zeros(variable.shape),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def _repeat(count: tf.Tensor | int, body: Callable[[tf.Tensor], object]) -> None:
    """Calls ``body`` with 0, 1, ... inside the graph, one call after the other."""

    def once(index: tf.Tensor) -> tuple[tf.Tensor]:
        body(index)
        return (index + 1,)

    tf.while_loop(lambda index: index < count, once, [tf.constant(0)], parallel_iterations=1)
