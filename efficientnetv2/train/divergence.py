"""The running sums of a training in; an error that names the first bad step, and why, out."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.train.learner import Learner, named_weights
from hparams.errors import UserError

_STEPS = 100  # between readings, which wait for the device


class DivergedError(UserError):
    """The loss or a weight is not finite; the message is one line."""


class LossWatch:
    """Sees that the loss stays finite, without waiting for the device after each step.

    The sum of the losses of an epoch is not finite from the first bad step on. It is noted after
    each step where it lies, and read once in 100 steps.

    Args:
      learner: what is trained; its metrics hold a variable "loss".
      explain: says of a step (from 1) why its loss may not be finite, and what to do.
    """

    def __init__(self, learner: Learner, explain: Callable[[int], str]) -> None:
        self._learner = learner
        self._explain = explain
        sums = [v for v in learner.metrics.variables if v.name.startswith("loss")]
        # The part of each replica here: to add them up would make the replicas wait for each other.
        self._sums = [part for v in sums for part in getattr(v, "values", (v,))]
        self._noted: list[tuple[int, list[tf.Tensor]]] = []

    def note(self, step: int) -> None:
        """Call it after each step, with the number of finished steps.

        Raises:
          DivergedError: as ``check``.
        """
        self._noted.append((step, [variable.read_value() for variable in self._sums]))
        if len(self._noted) >= _STEPS:
            self.check()

    def check(self) -> None:
        """Reads what was noted.

        Raises:
          DivergedError: if the loss of a step was not finite.
        """
        noted, self._noted = self._noted, []
        for step, sums in noted:
            for value in sums:
                if not math.isfinite(float(value)):
                    self._raise(f"the loss of step {step} is {float(value)}", step)

    def check_weights(self) -> None:
        """Looks at the network itself, which a finite loss says nothing of.

        Raises:
          DivergedError: if the loss of a step, or a weight, is not finite.
        """
        self.check()
        step = self._learner.step
        for name, variable in named_weights(self._learner.model).items():
            value = tf.convert_to_tensor(variable)
            if not bool(tf.reduce_all(tf.math.is_finite(value))):
                self._raise(f"after step {step}, '{name}' holds values that are not finite", step)

    def _raise(self, what: str, step: int) -> None:
        raise DivergedError(f"{what}: {self._explain(step)}")


def likely_cause(model: keras.Model, batches: tf.data.Dataset, *, rate: float) -> str:
    """Says why the loss of a step may not be finite, and what can be done about it.

    Args:
      model: that is trained.
      batches: images and targets; the first one is that step's.
      rate: learning rate of that step.
    """
    try:
        batch = next(iter(batches))
        for name, values in zip(("images", "targets"), batch):
            if not bool(tf.reduce_all(tf.math.is_finite(values))):
                return f"its {name} hold values that are not finite; mend the data"
    except tf.errors.OpError:  # not even readable, which is another error's matter
        pass
    if any(layer.compute_dtype == "float16" for layer in model.layers):
        return "float16 ends at 65504 and has probably overflowed; train in bfloat16 or float32"
    return (
        f"the learning rate, {rate:.3g}, is probably too high; lower train.lr_base or lengthen "
        "train.lr_warmup_epoch, in another --model_dir"
    )
