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
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import NUMBERS, label_kind
from hparams.overrides import merge_overrides
from hparams.resolve import require_searchable, require_trainable, with_overrides
from hparams.search_space import NOT_OF_TRIALS

if TYPE_CHECKING:
    from absl.flags import FlagValues


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Searches as the flags say; the value is the rows of trials.csv, the best first."""
    config = _with_short_warm_up(config_from_flags(values), values)
    require_trainable(config)
    if label_kind(config) == NUMBERS:
        raise UserError("--mode=search compares accuracies; it is not for images with numbers")
    _require_effect(values, chooses_settings=bool(config.search.space))
    if config.search.space:
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


def _with_short_warm_up(config: Config, values: FlagValues) -> Config:
    """Limits the warm-up of trials to a tenth of their epochs, unless it is given or searched.

    That of a long recipe would be all of a trial: the rate that wins would be one that is too high
    for the rest.
    """
    key = "train.lr_warmup_epoch"
    given = merge_overrides(overrides_from_flags(values))[0]
    if key in given or any(item.startswith(f"{key}:") for item in config.search.space):
        return config
    short = max(1.0, 0.1 * config.search.epochs)
    return with_overrides(config, {key: min(config.train.lr_warmup_epoch, short)})


# Keys of the section search without effect on a search for settings: they are about networks and
# the time of a step.
_OF_NETWORKS = (
    *("backbone", "feature_size", "operations", "kernels", "expansions", "layers"),
    *("w", "v", "timed_steps", "max_spread"),
)


def _require_effect(values: FlagValues, *, chooses_settings: bool) -> None:
    """Checks that nothing is given that the trials do not use."""
    given = merge_overrides(overrides_from_flags(values))[0]
    for key, reason in NOT_OF_TRIALS.items():
        if key in given:
            raise UserError(f"{key} cannot be set with --mode=search: it {reason}")
    for name in _OF_NETWORKS if chooses_settings else ():
        if f"search.{name}" in given:
            raise UserError(
                f"search.{name} has no effect with search.space, which keeps the network and does "
                "not time it; leave one of them out"
            )
