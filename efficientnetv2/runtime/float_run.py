"""Finds the float run that ``train.quantise`` starts from, and tells 8-bit runs from float ones."""

from __future__ import annotations

import pathlib

from efficientnetv2.runtime.checkpoint_store import steps
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.weights_run import run_of_weights, whole_run
from hparams.errors import UserError, shown
from hparams.overrides import ConfigError
from hparams.quantisation import is_quantised


def find_float_run(weights: str | pathlib.Path | None) -> RunDirectory:
    """Returns the run directory that ``--weights`` names, for an 8-bit training.

    Raises:
      UserError: if it names something else, or a run that is not trained or computes in 8 bits.
    """
    run = whole_run(weights)
    if run is None:
        given = "" if weights is None else f", not {shown(str(weights))}"
        raise UserError(
            f"train.quantise fine-tunes a network that is trained already: give --weights=RUN, its "
            f"run directory{given}"
        )
    require_float_weights(weights)
    if not (steps(run.best) or steps(run.checkpoints)):
        raise UserError(f"'{run.path}' holds no checkpoint; train it before train.quantise")
    return run


def require_float_weights(weights: str | pathlib.Path | None) -> None:
    """Checks that weights are not those of an 8-bit run, which fit no other network.

    Raises:
      UserError: if they are.
    """
    run = run_of_weights(weights)
    if run is None:
        return
    try:
        config = run.config()
    except ConfigError:  # the weights of another version's run are read all the same
        return
    if is_quantised(config):
        raise UserError(
            f"the weights of '{run.path}' are for its 8-bit network (train.quantise="
            f"{config.train.quantise}) alone; give those of its float run, "
            f"{shown(str(config.train.ft_init_ckpt))}"
        )
