"""A configuration in; an error where the devices or servers that it names are not there, out.

All of it can be known without TensorFlow.
"""

from __future__ import annotations

import socket

from efficientnetv2.train.cluster import (
    find_cluster,
    require_divisible,
    require_tpu_here,
    tpu_name,
)
from hparams.errors import UserError
from hparams.resolve import Config

_TIMEOUT_SECONDS = 3


def require_answer(key: str, address: str) -> None:
    """Checks that something listens at an address.

    Args:
      key: flag or setting that names it, for the message.
      address: ``host:port`` or ``grpc://host:port``.

    Raises:
      UserError: if nothing does.
    """
    host, _, port = address.removeprefix("grpc://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError, ValueError) as error:
        raise UserError(f"{key}: nothing answers at '{address}' ({error})") from None


def require_devices(config: Config, *, tpu: str | None, trains: bool) -> None:
    """Checks the TPU and the other machines that a configuration asks for.

    Args:
      config: the sections runtime and train.
      tpu: what --tpu says.
      trains: whether the batch is shared out among the workers.

    Raises:
      UserError: if they are not there, or the batch does not divide by them.
    """
    strategy = config.runtime.strategy
    if tpu and strategy != "tpu":
        raise UserError(f"--tpu={tpu} needs runtime.strategy=tpu, which is {strategy}")
    if strategy == "tpu":
        name = tpu_name(config.runtime.tpu)
        require_tpu_here(name)
        if name.startswith("grpc://"):
            require_answer("--tpu", name)
    workers = len(find_cluster(strategy).workers)
    if trains:
        require_divisible(config.train.batch_size, workers, what="workers of TF_CONFIG")
