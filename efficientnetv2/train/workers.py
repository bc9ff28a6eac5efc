"""Coordinates the workers of a training run: barriers, config agreement and stop signals."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from efficientnetv2.data.shard import Shard
from efficientnetv2.runtime.cluster import Cluster, ClusterError, find_cluster
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.strategy import build_strategy
from hparams.config import Config
from hparams.errors import tensorflow_message
from hparams.resolve import flat

_STEPS_BETWEEN_STOP_CHECKS = 10  # each check costs an exchange between the workers
_MAX_REASON_LENGTH = 200  # characters of TensorFlow's text in an error message


class Workers:
    """The processes that train together, seen from this one; often there is only one.

    Args:
      strategy: covers the devices of all workers.
      cluster: addresses of all workers.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
        self.strategy = strategy
        self.cluster = cluster
        self._last_stop_check = 0  # finished steps
        # Built once, as each new function would be traced again.
        self._gather = tf.function(lambda rows: strategy.gather(rows, axis=0))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes to the run directory and prints."""
        return self.cluster.is_chief

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return len(self.cluster.workers) == 1

    @property
    def shard(self) -> Shard:
        """The rows of each batch that this process decodes."""
        return Shard(self.cluster.index, len(self.cluster.workers))

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Lets the chief run through the context before the others enter it."""
        if not self.is_chief:
            self._gather_rows([0])
        yield
        if self.is_chief:
            self._gather_rows([0])

    def require_same(self, facts: Mapping[str, int]) -> None:
        """Checks that all processes have the same values.

        Args:
          facts: name, for the message -> value in this process, int64.

        Raises:
          ClusterError: if a worker differs from the chief; the message names the worker and value.
        """
        if self.is_alone:
            return
        rows = self._gather_rows(list(facts.values()))
        for index, row in enumerate(rows):
            for name, expected, value in zip(facts, rows[0], row):
                if value != expected:
                    worker = self.cluster.workers[index * len(self.cluster.workers) // len(rows)]
                    raise ClusterError(
                        f"worker {worker} has another {name} than the chief: {value} instead of "
                        f"{expected}"
                    )

    def stop_signal(self, own_signal: int | None, *, step: int | None = None) -> int | None:
        """Returns the signal that asked any process to stop, or None; the same in all processes.

        Args:
          own_signal: the signal that this process received; None: no signal.
          step: number of finished steps; several processes exchange their signals only at every
            tenth step, and get None at the others. None: exchange them now.
        """
        if self.is_alone:
            return own_signal
        if step is not None:
            if step - self._last_stop_check < _STEPS_BETWEEN_STOP_CHECKS:
                return None
            self._last_stop_check = step
        return int(self._gather_rows([own_signal or 0]).max()) or None

    @contextlib.contextmanager
    def run_directory(self, run: RunDirectory) -> Iterator[RunDirectory]:
        """Yields the run directory to the chief, and a temporary one to each other process.

        Every process must take part when a checkpoint is saved, as saving adds up the sums of all
        processes; so each needs a place to write to.
        """
        if self.is_chief:
            yield run
            return
        with tempfile.TemporaryDirectory(prefix="efficientnetv2-worker-") as folder:
            own_run = RunDirectory(pathlib.Path(folder))
            if run.metrics_file.exists():  # train.patience counts the epochs of earlier starts, too
                shutil.copyfile(run.metrics_file, own_run.metrics_file)
            yield own_run

    @contextlib.contextmanager
    def report_worker_loss(self) -> Iterator[None]:
        """Turns TensorFlow's error for a lost worker into a ``ClusterError`` of one line."""
        try:
            yield
        except tf.errors.OpError as error:
            if not self.is_worker_loss(error):
                raise
            others = [w for i, w in enumerate(self.cluster.workers) if i != self.cluster.index]
            reason = tensorflow_message(str(error), limit=_MAX_REASON_LENGTH)
            raise ClusterError(
                f"lost another worker ({', '.join(others)}): {reason}; start all workers again, "
                "and they resume from the newest checkpoint"
            ) from None

    def is_worker_loss(self, error: tf.errors.OpError) -> bool:
        """Returns whether an error means that another worker has died or cannot be reached."""
        return not self.is_alone and isinstance(error, _WORKER_LOSS_ERRORS)

    def _gather_rows(self, row: Sequence[int]) -> np.ndarray:
        """Returns the rows of all replicas, in the order of the workers: int64 ``[replicas, n]``.

        It also serves as a barrier: it returns once all workers have called it.
        """
        if self.is_alone:
            return np.array([row])
        own_rows = self.strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant([row], tf.int64)
        )
        return self._gather(own_rows).numpy()


_WORKER_LOSS_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


def build_workers(config: Config) -> Workers:
    """Builds the workers from the config; call it before TensorFlow runs anything else.

    Raises:
      UserError: as in ``build_strategy`` and ``find_cluster``.
    """
    cluster = find_cluster(config.runtime.strategy)
    return Workers(build_strategy(config), cluster)


# Settings that may be different on each machine.
_LOCAL_KEYS = (
    "runtime.worker_timeout_seconds",
    "runtime.tpu",
    "runtime.tpu_zone",
    "runtime.gcp_project",
    "runtime.tpu_job_name",
    "data.data_dir",
    "data.service",
    "data.cache_mib",
)


def settings_checksum(config: Config) -> dict[str, int]:
    """Returns name -> checksum of all settings that must be the same on every worker."""
    settings = {key: value for key, value in flat(config).items() if key not in _LOCAL_KEYS}
    return {"config checksum": zlib.crc32(repr(settings).encode())}
