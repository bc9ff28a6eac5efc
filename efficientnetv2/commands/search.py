"""Looks for the best network or settings for your data: ``--mode=search``."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import (
    config_from_flags,
    overrides_from_flags,
    require_devices_from_flags,
    run_from_flags,
)
from efficientnetv2.runtime.atomic_write import resumable
from efficientnetv2.runtime.cluster import find_cluster
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.search.storage import require_startable
from hparams.errors import UserError
from hparams.overrides import read_overrides
from hparams.resolve import require_searchable, require_trainable

if TYPE_CHECKING:
    from absl.flags import FlagValues


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Searches as the flags say; the value is the rows of trials.csv, the best first."""
    config = config_from_flags(values)
    require_trainable(config)
    _require_no_other_length(values)
    if config.search.space:
        _require_effect(values)
        require_searchable(config)
    require_devices_from_flags(values, config, trains=True)
    if len(find_cluster(config.runtime.strategy).workers) > 1:
        raise UserError("--mode=search takes no TF_CONFIG; give all machines one search.storage")
    suffix = "settings" if config.search.space else "search"
    folder = pathlib.Path(values.model_dir or f"{run_from_flags(values).path}-{suffix}")
    require_startable(config, folder)
    import_tensorflow()
    from efficientnetv2.search.engine import search

    with resumable():
        return Outcome(search(config, folder, stop))


# Keys of a training -> what a trial has instead.
_OF_TRIALS = {
    "train.epochs": "search.epochs",
    **dict.fromkeys(("train.isize", "data.ibase", "eval.isize"), "search.isize"),
}


def _require_no_other_length(values: FlagValues) -> None:
    """Checks that no length and image size is given that the trials do not have."""
    given = {key for item in overrides_from_flags(values) for key in read_overrides(item)[0]}
    for key, instead in _OF_TRIALS.items():
        if key in given:
            raise UserError(f"{key} has no effect with --mode=search: give {instead}")


# Keys of the section search without effect on a search for settings: they are about networks and
# the time of a step.
_OF_NETWORKS = (
    *("backbone", "feature_size", "operations", "kernels", "expansions", "layers"),
    *("w", "v", "timed_steps", "max_spread"),
)


def _require_effect(values: FlagValues) -> None:
    """Checks that nothing is given that only a search for networks uses."""
    given = {key for item in overrides_from_flags(values) for key in read_overrides(item)[0]}
    for name in _OF_NETWORKS:
        if f"search.{name}" in given:
            raise UserError(
                f"search.{name} has no effect with search.space, which keeps the network and does "
                "not time it; leave one of them out"
            )
