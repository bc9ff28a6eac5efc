"""Checks that the devices and servers that a config names exist, before TensorFlow is imported."""

from __future__ import annotations

import socket

from efficientnetv2.runtime.cluster import (
    find_cluster,
    require_divisible,
    require_tpu_here,
    tpu_name,
)
from hparams.config import Config
from hparams.errors import UserError

_TIMEOUT_SECONDS = 3


def require_server(key: str, address: str) -> None:
    """Checks that something listens at an address.

    Args:
      key: flag or config key that the address comes from, for the message.
      address: ``host:port`` or ``grpc://host:port``.

    Raises:
      UserError: if no connection is possible.
    """
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise UserError(f"{key}: nothing answers at '{address}' ({error})") from None


def require_devices(config: Config, *, tpu: str | None, trains: bool) -> None:
    """Checks the TPU and the cluster of workers that a config asks for.

    Args:
      config: its sections ``runtime`` and ``train`` are read.
      tpu: value of the flag --tpu.
      trains: whether the command trains, so that the batch is split among the workers.

    Raises:
      UserError: if they do not exist, or the batch cannot be split evenly among the workers.
    """
    strategy = config.runtime.strategy
    if tpu and strategy != "tpu":
        raise UserError(f"--tpu={tpu} needs runtime.strategy=tpu, but it is {strategy}")
    if strategy == "tpu":
        name = tpu_name(config.runtime.tpu)
        require_tpu_here(name)
        if name.startswith("grpc://"):
            require_server("--tpu", name)
    workers = len(find_cluster(strategy).workers)
    if trains:
        require_divisible(config.train.batch_size, workers, what="workers of TF_CONFIG")
