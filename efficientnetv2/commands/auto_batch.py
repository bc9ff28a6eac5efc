"""Reads ``--batch_size=auto``, whose number is known once TensorFlow and the data are open."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hparams.errors import UserError

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from hparams.config import Config
    from hparams.overrides import Overrides

_AUTO = "auto"
_MODES = ("train", "traineval")
_USUAL = 64  # images, before the number is known


def is_auto(values: FlagValues) -> bool:
    """Returns whether the flags ask for the batch that fits."""
    return bool(values["batch_size"].value == _AUTO)


def require_auto_used(values: FlagValues) -> None:
    """Checks that the mode can choose its batch.

    Raises:
      UserError: if it cannot.
    """
    if values.mode not in _MODES:
        raise UserError(
            f"--batch_size=auto belongs to --mode={' or '.join(_MODES)}, whose steps need the "
            f"memory; with --mode={values.mode} give a number"
        )


def require_memory_known(config: Config) -> None:
    """Checks that the memory of a step can be found: a float network's, on this machine.

    Raises:
      UserError: if other machines or a TPU train, or the network is trained in 8 bits.
    """
    from efficientnetv2.runtime.cluster import find_cluster
    from hparams.quantisation import is_quantised

    if is_quantised(config):
        raise UserError(
            "--batch_size=auto knows the memory of float networks only; give a number for "
            f"train.quantise={config.train.quantise}"
        )
    strategy = config.runtime.strategy
    if strategy == "tpu" or len(find_cluster(strategy).workers) > 1:
        raise UserError(
            "--batch_size=auto is for the GPUs or the CPU of one machine; give a number for "
            f"runtime.strategy={strategy}"
        )


def provisional_batch(longhand: Mapping[str, Overrides]) -> int:
    """Returns a batch for the checks before the number is known: one that goes with the rest.

    Args:
      longhand: where else keys may be given, by its name in messages -> what it gives.

    Raises:
      UserError: if that gives a batch too.
    """
    from hparams.overrides import ConfigError, checked, read_overrides

    settings = {"train.accumulate": 1, "data.repeats": 1}
    for place, overrides in longhand.items():
        given = read_overrides(overrides)[0]
        if "train.batch_size" in given:
            raise UserError(
                f"--batch_size=auto contradicts train.batch_size={given['train.batch_size']} of "
                f"{place}; give one of them"
            )
        for key in settings:
            with contextlib.suppress(ConfigError):  # the config will say what is wrong
                settings[key] = checked(key, given.get(key, settings[key]))
    accumulate, repeats = settings.values()
    return accumulate * max(1 if repeats == 1 else repeats + 1, _USUAL // accumulate)
