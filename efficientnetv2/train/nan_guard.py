"""Stops training when the loss or a weight is no longer finite, and names the likely cause."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.train_state import TrainState, named_weights
from hparams.errors import UserError

_STEPS_BETWEEN_CHECKS = 100  # each check waits for the device


class DivergedError(UserError):
    """The loss or a weight is not finite; the message is one line."""


class NanGuard:
    """Checks that the loss stays finite, without waiting for the device after each step.

    From the first bad step on, the sum of an epoch's losses is not finite. After each step the sum
    is copied on the device; the copies are read once in 100 steps.

    Args:
      train_state: what is trained; its metrics have a variable "loss".
      describe_cause: called with a step (from 1); returns why its loss may not be finite, and what
        to do about it.
    """

    def __init__(self, train_state: TrainState, describe_cause: Callable[[int], str]) -> None:
        self._train_state = train_state
        self._describe_cause = describe_cause
        sums = [v for v in train_state.metrics.variables if v.name.startswith("loss")]
        # One sum for each local replica: adding them up would make replicas wait for each other.
        self._sums = [local for v in sums for local in getattr(v, "values", (v,))]
        self._pending: list[tuple[int, list[tf.Tensor]]] = []

    def record(self, step: int) -> None:
        """Copies the loss; call it after each step, with the number of finished steps.

        Raises:
          DivergedError: as ``check``.
        """
        self._pending.append((step, [variable.read_value() for variable in self._sums]))
        if len(self._pending) >= _STEPS_BETWEEN_CHECKS:
            self.check()

    def check(self) -> None:
        """Checks the losses recorded since the last check.

        Raises:
          DivergedError: if the loss of a step was not finite.
        """
        pending, self._pending = self._pending, []
        for step, sums in pending:
            for value in sums:
                if not math.isfinite(float(value)):
                    self._raise(f"the loss of step {step} is {float(value)}", step)

    def check_weights(self) -> None:
        """Checks the losses and also all weights, which may be bad although the loss is finite.

        Raises:
          DivergedError: if the loss of a step, or a weight, is not finite.
        """
        self.check()
        step = self._train_state.step
        for name, variable in named_weights(self._train_state.model).items():
            value = tf.convert_to_tensor(variable)
            if not bool(tf.reduce_all(tf.math.is_finite(value))):
                self._raise(f"after step {step}, '{name}' holds values that are not finite", step)

    def _raise(self, problem: str, step: int) -> None:
        raise DivergedError(f"{problem}: {self._describe_cause(step)}")


def likely_cause(model: keras.Model, batches: tf.data.Dataset, *, rate: float) -> str:
    """Returns why the loss of a step may not be finite, and what can be done about it.

    Args:
      model: the network that is trained.
      batches: images, targets and weights, if there are any, beginning with the batch of that step.
      rate: learning rate of that step.
    """
    try:
        batch = next(iter(batches))
        for name, values in zip(("images", "targets", "weights"), batch):
            if not bool(tf.reduce_all(tf.math.is_finite(values))):
                return f"its {name} hold values that are not finite; correct the data"
    except tf.errors.OpError:  # an unreadable image is reported elsewhere
        pass
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        return (
            "a value has probably exceeded 65504, the largest number of float16; train in bfloat16 "
            "or float32"
        )
    return (
        f"the learning rate, {rate:.3g}, is probably too high; lower train.lr_base or lengthen "
        "train.lr_warmup_epoch, in another --model_dir"
    )
