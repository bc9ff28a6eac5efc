"""A configuration and a learning rate in; a Keras optimizer out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.schedules import KerasSchedule
from hparams.errors import UserError
from hparams.resolve import Config


class RMSPropTF1(keras.optimizers.RMSprop):
    """RMSProp as TensorFlow 1 had it, which EfficientNets were trained with.

    ``s = d s + (1 - d) g^2;  m = mu m + lr g / sqrt(s + epsilon);  w = w - m``

    Keras has the same update (epsilon inside the root) but starts ``s`` at 0 instead of 1, which
    makes its first steps many times longer. One kernel a variable does the whole update, where
    Keras runs nine ops that each read and write all of its memory.
    """

    def build(self, variables: list) -> None:
        """Creates the slots, with mean squares of 1."""
        super().build(variables)
        for mean_square in self._velocities:
            mean_square.assign(tf.ones(mean_square.shape, mean_square.dtype))

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its two slots."""
        if not self.momentum:  # Keras then makes no slot for it, which the kernel wants
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
    """Keras's Adam in one kernel a variable; the formula, epsilon's place included, is the same."""

    def _backend_update_step(
        self, grads: list[tf.Tensor], trainable_variables: list, learning_rate: tf.Tensor
    ) -> None:
        # Once for all variables, as the graph of a large network has hundreds of them.
        step = tf.cast(self.iterations + 1, tf.float32)
        self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _apply_weight_decay(self, variables: list) -> None:
        # Keras would evaluate the learning-rate schedule anew for each variable; see update_step.
        del variables

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its two slots."""
        index = self._get_variable_index(variable)
        power_1, power_2 = self._powers
        if self.weight_decay is not None and self._use_weight_decay(variable):
            variable.assign_sub(
                variable * tf.cast(self.weight_decay * learning_rate, variable.dtype)
            )
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


class AdamW(Adam, keras.optimizers.AdamW):
    """Keras's AdamW, with ``Adam``'s kernel."""


_RMSPROP_EPSILON = 1e-3  # of the EfficientNet papers' code


def _rmsprop(config: Config) -> dict[str, float]:
    return {
        "rho": config.train.rmsprop_decay,
        "momentum": config.train.momentum,
        "epsilon": _RMSPROP_EPSILON,
    }


def _nothing(config: Config) -> dict[str, float]:
    del config
    return {}


# Class, and its arguments. Weight decay is the L2 term of the loss for every optimizer; AdamW's own
# is its default 0.004.
OPTIMIZERS: dict[str, tuple[type, Callable[[Config], dict[str, float]]]] = {
    "rmsprop": (RMSPropTF1, _rmsprop),
    "rmsprop_keras": (keras.optimizers.RMSprop, _rmsprop),
    "sgd": (keras.optimizers.SGD, _nothing),
    "momentum": (keras.optimizers.SGD, lambda config: {"momentum": config.train.momentum}),
    "adam": (Adam, _nothing),
    "adamw": (AdamW, _nothing),
    "lamb": (keras.optimizers.Lamb, _nothing),
}


def build_optimizer(
    config: Config, schedule: KerasSchedule, *, factors: Sequence[float] = ()
) -> keras.optimizers.Optimizer:
    """Opens the configuration for the optimizer; its slots are made when it is built.

    It takes gradients that have been added over the replicas, and clips these. With float16 it
    takes those of a loss that its ``scale_loss`` made larger, and leaves out a step that overflows.

    Args:
      config: the section train.
      schedule: of the learning rate.
      factors: on it, one for each variable that it will be built for; none: 1.
    """
    train = config.train
    cls, arguments = OPTIMIZERS[train.optimizer]
    if factors:
        cls = _with_own_rates(cls, factors)
    limit = "clipnorm" if train.gclip_per_variable else "global_clipnorm"
    optimizer = cls(schedule, **arguments(config), **({limit: train.gclip} if train.gclip else {}))
    # Keras would clip each replica's gradients by their own norm, and add them up afterwards.
    optimizer._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    if train.precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer


def rate_factors(variables: Sequence[keras.Variable], scales: Sequence[str]) -> list[float]:
    """Returns each variable's factor on the learning rate: 1 where no expression is found.

    Without expressions there are no factors.

    Args:
      variables: those that are trained.
      scales: regular expressions of ``layer/variable`` with their factors, ``block1:0.1``; the
        first that is found in a variable's name counts.

    Raises:
      UserError: if one is in no name.
    """
    if not scales:
        return []
    pairs = [text.rpartition(":")[::2] for text in scales]
    for expression, _ in pairs:
        if not any(re.search(expression, variable.path) for variable in variables):
            raise UserError(
                f"train.lr_scales: '{expression}' is in no trained variable's name, such as "
                f"'{variables[0].path}'"
            )
    return [
        next((float(factor) for text, factor in pairs if re.search(text, variable.path)), 1.0)
        for variable in variables
    ]


def _with_own_rates(cls: type, factors: Sequence[float]) -> type:
    """A class like ``cls`` that updates each variable by its own share of the learning rate."""

    class WithOwnRates(cls):
        def update_step(
            self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
        ) -> None:
            factor = factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    return WithOwnRates
