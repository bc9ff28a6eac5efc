"""Maintains an exponential moving average (EMA) of a network's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import tensorflow as tf


class MovingAverage:
    """Moving averages of a network's weights AND its BatchNorm statistics.

    ``average <- d average + (1 - d) value`` with ``d = min(decay, (1 + n) / (10 + n))`` after n
    finished updates, so that the average soon leaves the initial values behind.

    Args:
      variables: name -> variable.
      decay: in [0, 1); with 0 the average is always the last value.
    """

    def __init__(self, variables: Mapping[str, tf.Variable], *, decay: float) -> None:
        self._variables = dict(variables)
        self._decay = decay
        self.averages = {
            name: tf.Variable(
                tf.convert_to_tensor(variable),
                trainable=False,
                # All replicas have the same values, so saving those of the first is enough.
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for name, variable in self._variables.items()
        }

    def update(self, num_updates: tf.Tensor) -> None:
        """Moves the averages one step towards the variables' values.

        Args:
          num_updates: n, integer scalar: number of updates finished before this one.
        """
        count = tf.cast(num_updates, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + count) / (10.0 + count))

        def move(average: tf.Variable, value: tf.Variable) -> None:
            # average -= (1 - decay) * (average - value), without a temporary for the product.
            tf.raw_ops.ResourceApplyGradientDescent(
                var=average.handle, alpha=1.0 - decay, delta=average - value
            )

        strategy = tf.distribute.get_strategy()
        if isinstance(strategy, tf.distribute.TPUStrategy):  # it computes only inside replicas
            strategy.run(self.update_in_replica, args=(decay,))
            return
        for name, average in self.averages.items():
            strategy.extended.update(average, move, args=(self._variables[name],), group=False)

    def update_in_replica(self, decay: tf.Tensor) -> None:
        """Does the same update inside a replica, on its own copies of the variables."""
        for name, average in self.averages.items():
            average.assign_sub((1.0 - decay) * (average - self._variables[name]))

    def restart(self) -> None:
        """Sets the averages to the variables' values, for example after weights were loaded."""
        for name, average in self.averages.items():
            average.assign(tf.convert_to_tensor(self._variables[name]))

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Exchanges the values of network and averages within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, average in self.averages.items():
            variable = self._variables[name]
            value = tf.identity(tf.convert_to_tensor(variable))
            variable.assign(tf.convert_to_tensor(average))
            average.assign(value)
