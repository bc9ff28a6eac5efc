"""Builds the optimizer from the config; faster or exact variants where Keras's differ."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.learning_rate import KerasSchedule
from efficientnetv2.train.weight_decay import NO_DECAY, WeightDecay
from hparams.choices import OPTIMIZERS
from hparams.config import Config
from hparams.keys import value_of


class RMSPropTF1(keras.optimizers.RMSprop):
    """RMSProp as in TensorFlow 1, with which EfficientNets were trained.

    ``s = d s + (1 - d) g^2;  m = mu m + lr g / sqrt(s + epsilon);  w = w - m``

    Keras has the same update (epsilon inside the root), but starts ``s`` at 0 instead of 1, which
    makes its first steps many times longer. Here one kernel per variable does the whole update;
    Keras runs nine ops, each of which reads and writes all of the variable's memory.
    """

    def build(self, variables: list) -> None:
        """Creates the slots; the mean squares start at 1."""
        super().build(variables)
        for mean_square in self._velocities:
            mean_square.assign(tf.ones(mean_square.shape, mean_square.dtype))

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its two slots."""
        if not self.momentum:  # Keras then creates no momentum slot, but the kernel needs one
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._momentums[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            rho=tf.cast(self.rho, variable.dtype),
            momentum=tf.cast(self.momentum, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


class Adam(keras.optimizers.Adam):
    """Keras's Adam with one kernel per variable; the formula is the same, epsilon's place too."""

    def _backend_update_step(
        self, grads: list[tf.Tensor], trainable_variables: list, learning_rate: tf.Tensor
    ) -> None:
        # Computed once for all variables, as a large network has hundreds of them.
        step = tf.cast(self.iterations + 1, tf.float32)
        self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its two slots."""
        index = self._get_variable_index(variable)
        power_1, power_2 = self._powers
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.cast(power_1, variable.dtype),
            beta2_power=tf.cast(power_2, variable.dtype),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=tf.constant(self.beta_1, variable.dtype),
            beta2=tf.constant(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


def _class_and_arguments(config: Config) -> tuple[type, dict[str, float]]:
    """Returns the class of ``train.optimizer``, from this module or Keras, and its arguments."""
    row = OPTIMIZERS[config.train.optimizer]
    cls = globals().get(row.cls) or getattr(keras.optimizers, row.cls)
    return cls, {
        name: float(value_of(config, value)) if isinstance(value, str) else value
        for name, value in row.arguments.items()
    }


def decouples_decay(config: Config) -> bool:
    """Returns whether ``train.optimizer`` applies weight decay beside its update."""
    return OPTIMIZERS[config.train.optimizer].decouples_decay


def build_optimizer(
    config: Config,
    schedule: KerasSchedule,
    *,
    factors: Sequence[float] = (),
    weight_decay: WeightDecay = NO_DECAY,
) -> keras.optimizers.Optimizer:
    """Builds the optimizer from the config; call its ``build`` to create the slots.

    It expects gradients that are already summed over the replicas, and clips these. With float16
    it expects the gradients of a loss that was scaled by its ``scale_loss``, and skips a step that
    overflows.

    Args:
      config: its section ``train`` is read.
      schedule: the learning rate.
      factors: factor on the learning rate for each variable that the optimizer will be built for;
        empty: 1 for all.
      weight_decay: applied before each update, ``w <- w - learning_rate * factor * w``.
    """
    train = config.train
    cls, arguments = _class_and_arguments(config)
    if weight_decay.factor:
        cls = _with_decay(cls, weight_decay)
    if factors:
        cls = _with_own_rates(cls, factors)
    limit = "clipnorm" if train.gclip_per_variable else "global_clipnorm"
    optimizer = cls(schedule, **arguments, **({limit: train.gclip} if train.gclip else {}))
    # The gradients are summed before they get here: left to Keras, each replica would clip its own
    # gradients, and the sum would be taken afterwards.
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    if train.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def _with_own_rates(cls: type, factors: Sequence[float]) -> type:
    """Returns a subclass of an optimizer class that scales each variable's learning rate."""

    class WithOwnRates(cls):
        def update_step(
            self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
        ) -> None:
            factor = factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    return WithOwnRates


def _with_decay(cls: type, weight_decay: WeightDecay) -> type:
    """Returns a subclass of an optimizer class that shrinks the decayed variables before updates.

    Keras's own ``weight_decay`` would evaluate the learning rate's schedule for each variable, and
    ignore the factors on it.
    """

    class WithDecay(cls):
        def build(self, variables: list) -> None:
            super().build(variables)
            decayed = {id(variable) for variable in weight_decay.variables}
            self._decays = [id(variable) in decayed for variable in variables]

        def _backend_update_step(
            self, grads: list[tf.Tensor], trainable_variables: list, learning_rate: tf.Tensor
        ) -> None:
            self._decay_factor = weight_decay.at(self.iterations.value)
            super()._backend_update_step(grads, trainable_variables, learning_rate)

        def update_step(
            self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
        ) -> None:
            if self._decays[self._get_variable_index(variable)]:
                tf.raw_ops.ResourceApplyGradientDescent(
                    var=variable.handle,
                    alpha=tf.cast(learning_rate * self._decay_factor, variable.dtype),
                    delta=tf.convert_to_tensor(variable),
                )
            super().update_step(gradient, variable, learning_rate)

    return WithDecay
