"""A strategy and its processes in; what these agree on out, in one line where one is gone."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.share import Share
from efficientnetv2.train.cluster import Cluster, ClusterError, find_cluster
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.strategy import build_strategy, short
from hparams.resolve import Config

_STEPS_BETWEEN_QUESTIONS = 10  # whether a worker was asked to stop: a message each


class Workers:
    """The process at hand and the others that train with it; often there is no other.

    Args:
      strategy: over the devices of all of them.
      cluster: their addresses.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
        self.strategy = strategy
        self.cluster = cluster
        self._asked_at = 0
        # A function, or each call would be traced anew.
        self._gather = tf.function(lambda rows: strategy.gather(rows, axis=0))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes to the run directory and prints."""
        return self.cluster.is_chief

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return len(self.cluster.workers) == 1

    @property
    def share(self) -> Share:
        """The rows of each batch that this process decodes."""
        return Share(self.cluster.index, len(self.cluster.workers))

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """The chief runs through the context before the others enter it."""
        if not self.is_chief:
            self._gathered([0])
        yield
        if self.is_chief:
            self._gathered([0])

    def require_same(self, facts: Mapping[str, int]) -> None:
        """Checks that all processes know the same.

        Args:
          facts: what it is called -> the number that this process has, int64.

        Raises:
          ClusterError: names the first worker that differs from the chief, and in what.
        """
        if self.alone:
            return
        rows = self._gathered(list(facts.values()))
        for index, row in enumerate(rows):
            for name, chiefs, own in zip(facts, rows[0], row):
                if chiefs != own:
                    worker = self.cluster.workers[index * len(self.cluster.workers) // len(rows)]
                    raise ClusterError(
                        f"worker {worker} has another {name} than the chief: {own}, not {chiefs}"
                    )

    def stop_signal(self, own: int | None, *, step: int | None = None) -> int | None:
        """Returns the signal by which any process was asked to stop; all get the same answer.

        Args:
          own: the signal that this process got.
          step: finished steps; where there are several processes, they ask each other at every
            tenth. None: now.
        """
        if self.alone:
            return own
        if step is not None:
            if step - self._asked_at < _STEPS_BETWEEN_QUESTIONS:
                return None
            self._asked_at = step
        return int(self._gathered([own or 0]).max()) or None

    @contextlib.contextmanager
    def run_directory(self, run: RunDirectory) -> Iterator[RunDirectory]:
        """Gives the chief the run directory, and others one that is gone afterwards.

        TensorFlow wants every process to take part in a save: their sums are added up in it.
        """
        if self.is_chief:
            yield run
            return
        with tempfile.TemporaryDirectory(prefix="efficientnetv2-worker-") as folder:
            own = RunDirectory(pathlib.Path(folder))
            if run.metrics_file.exists():  # train.patience counts in the records of earlier starts
                shutil.copyfile(run.metrics_file, own.metrics_file)
            yield own

    @contextlib.contextmanager
    def one_line(self) -> Iterator[None]:
        """Makes one line of what TensorFlow raises where another process is gone."""
        try:
            yield
        except tf.errors.OpError as error:
            if not self.lost(error):
                raise
            others = [w for i, w in enumerate(self.cluster.workers) if i != self.cluster.index]
            raise ClusterError(
                f"lost another worker ({', '.join(others)}): {short(error)}; start all of them "
                "again: they go on from the last checkpoint"
            ) from None

    def lost(self, error: tf.errors.OpError) -> bool:
        """Whether an error says that another process is gone."""
        return not self.alone and isinstance(error, _LOST)

    def _gathered(self, row: Sequence[int]) -> np.ndarray:
        """The row of every replica, in the order of the workers: int64 ``[replicas, n]``."""
        if self.alone:
            return np.array([row])
        own = self.strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant([row], tf.int64)
        )
        return self._gather(own).numpy()


_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


def build_workers(config: Config) -> Workers:
    """Opens the section ``runtime``; call it before anything else of TensorFlow runs.

    Raises:
      UserError: as ``build_strategy`` and ``find_cluster``.
    """
    cluster = find_cluster(config.runtime.strategy)
    return Workers(build_strategy(config), cluster)
