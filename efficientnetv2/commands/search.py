"""Looks for the best network for your data and device: ``--mode=search``."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import (
    config_from_flags,
    require_devices_from_flags,
    run_from_flags,
)
from efficientnetv2.runtime.atomic_write import resumable
from efficientnetv2.runtime.cluster import find_cluster
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.search.storage import require_startable
from hparams.errors import UserError
from hparams.resolve import require_trainable

if TYPE_CHECKING:
    from absl.flags import FlagValues


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Searches as the flags say; the value is the rows of trials.csv, the best first."""
    config = config_from_flags(values)
    require_trainable(config)
    require_devices_from_flags(values, config, trains=True)
    if len(find_cluster(config.runtime.strategy).workers) > 1:
        raise UserError("--mode=search takes no TF_CONFIG; give all machines one search.storage")
    folder = pathlib.Path(values.model_dir or f"{run_from_flags(values).path}-search")
    require_startable(config, folder)
    import_tensorflow()
    from efficientnetv2.search.engine import search

    with resumable():
        return Outcome(search(config, folder, stop))
