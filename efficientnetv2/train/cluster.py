"""TF_CONFIG and the machine's files in; which workers train together out. No TensorFlow here."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from hparams.errors import UserError
from hparams.resolve import Config

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")  # in the order of their places among the workers


class ClusterError(UserError):
    """Workers that cannot train together; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one training, and which of them this process is.

    Attributes:
      workers: their addresses, ``host:port``; the first one is the chief, which alone writes to the
        run directory and prints.
      index: of this process.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief."""
        return self.index == 0


ALONE = Cluster(("localhost:0",), 0)


def find_cluster(strategy: str, environment: Mapping[str, str] = os.environ) -> Cluster:
    """Returns the workers that ``runtime.strategy`` means; ``ALONE`` where it means one process.

    Args:
      strategy: ``multi_worker`` wants a cluster in TF_CONFIG; ``auto`` takes it if it names several
        workers; the others do not look.
      environment: where TF_CONFIG is looked up.

    Raises:
      ClusterError: if TF_CONFIG is missing where it is wanted, or makes no sense.
    """
    if strategy not in ("auto", "multi_worker"):
        return ALONE
    text = environment.get("TF_CONFIG", "")
    wanted = strategy == "multi_worker"
    if not text.strip():
        if wanted:
            raise ClusterError(
                f"runtime.strategy=multi_worker needs TF_CONFIG on every worker, as in '{_EXAMPLE}'"
            )
        return ALONE
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ClusterError(f"TF_CONFIG is no JSON ({error}); it looks like '{_EXAMPLE}'") from None
    if isinstance(config, dict) and not config.get("cluster") and not wanted:
        return ALONE  # some clouds set it for single machines
    cluster = _parse(config)
    return cluster if wanted or len(cluster.workers) > 1 else ALONE


def _parse(config: Any) -> Cluster:
    """The workers of a decoded TF_CONFIG; every check that needs no network."""
    if not isinstance(config, dict) or not isinstance(config.get("cluster"), dict):
        raise ClusterError(f"TF_CONFIG has no 'cluster'; it looks like '{_EXAMPLE}'")
    jobs: dict[str, Any] = config["cluster"]
    task = config.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise ClusterError(
            f"TF_CONFIG has no 'task' with a type and an index; it looks like '{_EXAMPLE}'"
        )
    unknown = sorted({str(task["type"]), *jobs} - set(_JOBS))
    if unknown:
        raise ClusterError(
            f"TF_CONFIG names a job '{unknown[0]}'; training takes only {' and '.join(_JOBS)}"
        )
    workers: list[str] = []
    index = None
    for job in _JOBS:
        addresses = _addresses(job, jobs.get(job, []))
        if job == task["type"]:
            index = len(workers) + _index(task["index"], job=job, count=len(addresses))
        workers += addresses
    assert index is not None
    if len(set(workers)) < len(workers):
        raise ClusterError(f"TF_CONFIG names an address twice: {', '.join(workers)}")
    return Cluster(tuple(workers), index)


def _addresses(job: str, addresses: Any) -> list[str]:
    if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
        raise ClusterError(f"TF_CONFIG: '{job}' must be a list of host:port, got {addresses!r}")
    for address in addresses:
        if re.fullmatch(r"(\[[^\]/]+\]|[^:/\s]+):\d+", address) is None:
            raise ClusterError(f"TF_CONFIG: '{address}' is no host:port")
    if job == "chief" and len(addresses) > 1:
        raise ClusterError(f"TF_CONFIG: there is one chief, got {', '.join(addresses)}")
    return addresses


def _index(index: Any, *, job: str, count: int) -> int:
    if isinstance(index, bool) or not re.fullmatch(r"\d+", str(index)) or int(index) >= count:
        last = f"0 to {count - 1}" if count else "none, for it lists no such task"
        raise ClusterError(f"TF_CONFIG: index {index!r} of '{job}' is out of range: {last}")
    return int(index)


def require_tpu_here(tpu: str, root: pathlib.Path = pathlib.Path("/")) -> None:
    """Checks that this machine could have a TPU, where its own is asked for.

    Args:
      tpu: as ``runtime.tpu``; a name or an address elsewhere is not looked at.
      root: of the file system.

    Raises:
      UserError: if nothing of the machine looks like a TPU.
    """
    if tpu != "local":
        return
    # One of these is what libtpu opens; the device files are named accel or, since v5, vfio.
    signs = [*root.glob("dev/accel*"), *root.glob("dev/vfio/[0-9]*")]
    if not signs:
        raise UserError(
            "runtime.strategy=tpu, but this machine has no TPU (no /dev/accel* or /dev/vfio/N); "
            "name one with --tpu, or give runtime.strategy=auto (--nouse_tpu)"
        )


def tpu_name(tpu: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Returns which TPU ``runtime.tpu`` means; not set: that of TPU_NAME, or this machine's."""
    return tpu or environment.get("TPU_NAME") or "local"


def require_divisible(batch_size: int, parts: int, *, what: str) -> None:
    """Checks that each of ``parts`` gets as many images of a global batch as any other.

    Raises:
      UserError: if the batch does not divide.
    """
    if batch_size % parts:
        lower = batch_size - batch_size % parts
        near = f"{lower} or {lower + parts}" if lower else f"{parts}"
        raise UserError(
            f"train.batch_size is {batch_size}, which does not divide by the {parts} {what}; "
            f"give {near}"
        )


def require_for_replicas(config: Config, replicas: int) -> None:
    """Opens the configuration for what depends on the number of devices that train together.

    Raises:
      UserError: if the batch does not divide by them, or they would exchange moments inside what
        XLA compiles.
    """
    train = config.train
    what = "devices" if train.accumulate == 1 else "devices x train.accumulate"
    require_divisible(train.batch_size, replicas * train.accumulate, what=what)
    if replicas > 1 and config.model.bn_type == "sync" and config.runtime.xla:
        raise UserError(
            f"model.bn_type=sync exchanges moments of the {replicas} devices, which runtime.xla "
            "cannot compile; give one of them up"
        )
