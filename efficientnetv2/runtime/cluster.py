"""Reads TF_CONFIG and checks workers, TPUs and batch sizes, all without importing TensorFlow."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from hparams.config import Config
from hparams.errors import UserError

_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_JOBS = ("chief", "worker")  # in this order they are numbered as workers


class ClusterError(UserError):
    """The workers cannot train together; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train together, and which of them this process is.

    Attributes:
      workers: their addresses, ``host:port``; the first is the chief, the only one that writes to
        the run directory and prints.
      index: position of this process in ``workers``.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief."""
        return self.index == 0


ALONE = Cluster(("localhost:0",), 0)


def find_cluster(strategy: str, environment: Mapping[str, str] = os.environ) -> Cluster:
    """Returns the workers that ``runtime.strategy`` selects; ``ALONE`` for a single process.

    Args:
      strategy: ``multi_worker`` requires a cluster in TF_CONFIG; ``auto`` uses it if it lists
        several workers; all other strategies ignore TF_CONFIG.
      environment: the environment variables.

    Raises:
      ClusterError: if TF_CONFIG is required but missing, or is invalid.
    """
    if strategy not in ("auto", "multi_worker"):
        return ALONE
    text = environment.get("TF_CONFIG", "")
    is_required = strategy == "multi_worker"
    if not text.strip():
        if is_required:
            raise ClusterError(
                f"runtime.strategy=multi_worker needs TF_CONFIG on every worker, as in '{_EXAMPLE}'"
            )
        return ALONE
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ClusterError(
            f"TF_CONFIG is not valid JSON ({error}); it should look like '{_EXAMPLE}'"
        ) from None
    if isinstance(config, dict) and not config.get("cluster") and not is_required:
        return ALONE  # some clouds set TF_CONFIG on single machines, too
    cluster = _parse(config)
    return cluster if is_required or len(cluster.workers) > 1 else ALONE


def _parse(config: Any) -> Cluster:
    """Returns the workers of a decoded TF_CONFIG, checked as far as possible without a network."""
    if not isinstance(config, dict) or not isinstance(config.get("cluster"), dict):
        raise ClusterError(f"TF_CONFIG has no 'cluster'; it should look like '{_EXAMPLE}'")
    jobs: dict[str, Any] = config["cluster"]
    task = config.get("task")
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise ClusterError(
            f"TF_CONFIG has no 'task' with a type and an index; it should look like '{_EXAMPLE}'"
        )
    unknown = sorted({str(task["type"]), *jobs} - set(_JOBS))
    if unknown:
        raise ClusterError(
            f"TF_CONFIG contains a job '{unknown[0]}'; training supports only {' and '.join(_JOBS)}"
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
        raise ClusterError(f"TF_CONFIG lists an address twice: {', '.join(workers)}")
    return Cluster(tuple(workers), index)


def _addresses(job: str, addresses: Any) -> list[str]:
    if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
        raise ClusterError(f"TF_CONFIG: '{job}' must be a list of host:port, got {addresses!r}")
    for address in addresses:
        if re.fullmatch(r"(\[[^\]/]+\]|[^:/\s]+):\d+", address) is None:
            raise ClusterError(f"TF_CONFIG: '{address}' is not of the form host:port")
    if job == "chief" and len(addresses) > 1:
        raise ClusterError(f"TF_CONFIG: there can be only one chief, got {', '.join(addresses)}")
    return addresses


def _index(index: Any, *, job: str, count: int) -> int:
    if isinstance(index, bool) or not re.fullmatch(r"\d+", str(index)) or int(index) >= count:
        valid = f"0 to {count - 1} are valid" if count else f"the cluster lists no '{job}'"
        raise ClusterError(f"TF_CONFIG: index {index!r} of '{job}' is out of range; {valid}")
    return int(index)


def require_tpu_here(tpu: str, root: pathlib.Path = pathlib.Path("/")) -> None:
    """Checks that this machine has TPU device files, if its own TPU is to be used.

    Args:
      tpu: from ``tpu_name``; only ``local`` is checked, not the name or address of a remote TPU.
      root: of the file system.

    Raises:
      UserError: if there is no device file of a TPU.
    """
    if tpu != "local":
        return
    # libtpu opens one of these: the device files are named accel or, since v5, vfio.
    devices = [*root.glob("dev/accel*"), *root.glob("dev/vfio/[0-9]*")]
    if not devices:
        raise UserError(
            "runtime.strategy=tpu, but this machine has no TPU (no /dev/accel* or /dev/vfio/N); "
            "name a TPU with --tpu, or use runtime.strategy=auto (--nouse_tpu)"
        )


def tpu_name(tpu: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the TPU to use: ``runtime.tpu``, else TPU_NAME, else this machine's, ``local``."""
    return tpu or environment.get("TPU_NAME") or "local"


def require_divisible(batch_size: int, count: int, *, what: str) -> None:
    """Checks that a global batch can be split evenly.

    Args:
      batch_size: images in the global batch.
      count: number of parts.
      what: what gets the parts, in plural, for the message.

    Raises:
      UserError: if ``batch_size`` is not a multiple of ``count``.
    """
    if batch_size % count:
        lower = batch_size - batch_size % count
        nearest = f"{lower} or {lower + count}" if lower else f"{count}"
        raise UserError(
            f"train.batch_size is {batch_size}, which is not divisible by the {count} {what}; "
            f"use {nearest}"
        )


def require_for_replicas(config: Config, replicas: int) -> None:
    """Checks the settings that depend on the number of devices that train together.

    Raises:
      UserError: if the batch cannot be split evenly, or if synchronised BatchNorm is combined with
        XLA, which cannot compile the exchange between devices.
    """
    train = config.train
    what = "devices" if train.accumulate == 1 else "devices x train.accumulate"
    require_divisible(train.batch_size, replicas * train.accumulate, what=what)
    if replicas > 1 and config.model.bn_type == "sync" and config.runtime.xla:
        raise UserError(
            f"model.bn_type=sync exchanges moments between the {replicas} devices, which "
            "runtime.xla=true cannot compile; turn one of the two off"
        )
