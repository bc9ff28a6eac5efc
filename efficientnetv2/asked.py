"""Flags in; the configuration and the run directory that they ask for, checked, out.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

import pathlib
import re
from typing import TYPE_CHECKING, Any

from efficientnetv2.data.sources.listing import scan_folder
from efficientnetv2.data.sources.shards import find_shards
from efficientnetv2.flags import TPU_FLAGS
from efficientnetv2.preflight import require_answer
from efficientnetv2.train.checkpoint_files import require_usable
from efficientnetv2.train.run_directory import RunDirectory
from hparams.datasets import find_dataset
from hparams.errors import UserError
from hparams.models import MODELS
from hparams.overrides import Overrides
from hparams.resolve import Config, resolve
from hparams.weights import NAMES, RANDOM, find_release, require_weights

if TYPE_CHECKING:
    from absl.flags import FlagValues


def dataset_name(values: FlagValues) -> str:
    """Returns the name of the data set that is asked for."""
    # A folder with nothing else said is a folder of the user's own images.
    default = "folder" if values.data_dir is not None else "digits"
    return str(values.dataset_cfg or default)


def resolved(values: FlagValues) -> Config:
    """Returns the configuration of a new training; what it reads is there.

    Raises:
      UserError: on any wrong setting, folder or address.
    """
    config = resolve(values.model_name, dataset_name(values), *overrides(values))
    # A wrong folder or address is answered at once.
    if config.data.source == "folder":
        scan_folder(pathlib.Path(config.data.data_dir))
    elif config.data.source == "tfrecord":
        find_shards(pathlib.Path(config.data.data_dir))
    if config.data.service is not None:
        require_answer("data.service", config.data.service)
    return config


def overrides(values: FlagValues) -> list[Overrides]:
    """Returns what flags say over the rows of model and data set; later ones win."""
    flags: dict[str, Any] = {}
    if values.weights is not None:
        flags["train.ft_init_ckpt"] = values.weights
        if values.weights in NAMES:
            release = find_release(values.model_name, values.weights)
            flags["model.preprocess"] = release.preprocess
    if values.mode == "export":  # LiteRT knows no other order, and the weights are the same
        flags["model.data_format"] = "channels_last"
    if values.data_dir is not None:
        flags["data.data_dir"] = values.data_dir
    if values.use_tpu or values.tpu:
        flags["runtime.strategy"] = "tpu"
    flags.update({key: values[flag].value for flag, key in TPU_FLAGS.items() if values[flag].value})
    return [flags, values.hparam_str, values.sweeps]


def run_directory(values: FlagValues) -> RunDirectory:
    """Returns ``--model_dir``, or the one that is named after model and data set."""
    model = MODELS.canonical(values.model_name)
    dataset, row = find_dataset(dataset_name(values))
    if row.source == "folder" and values.data_dir is not None:
        folder = pathlib.Path(values.data_dir).resolve().name
        dataset = folder if dataset == "folder" else f"{folder}-{dataset}"
    name = f"{model}-{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset)}"
    return RunDirectory(values.model_dir or pathlib.Path("runs") / name)


def trained(values: FlagValues) -> tuple[RunDirectory | None, Config]:
    """Returns the run to read, None for pretrained weights, and the configuration."""
    if values.weights is not None:
        return None, _pretrained(values)
    run = run_directory(values)
    config = run.config(*overrides(values))
    for flag, asked, is_name in (
        ("model_name", MODELS.canonical(values.model_name), config.model.model_name),
        ("dataset_cfg", find_dataset(dataset_name(values))[0], config.data.ds_name),
    ):
        if values[flag].present and asked != is_name:
            raise UserError(f"--{flag}={asked}, but '{run.path}' holds a training of {is_name}")
    require_usable(run)
    return run, config


def _pretrained(values: FlagValues) -> Config:
    if values["model_dir"].present and values.mode in ("infer", "export"):
        raise UserError("--weights and --model_dir both name weights; give one of them")
    classes: dict[str, Any] = {}
    if values.weights in NAMES:
        classes["model.num_classes"] = find_release(values.model_name, values.weights).num_classes
    dataset = values.dataset_cfg or "imagenet2012"
    config = resolve(values.model_name, dataset, classes, *overrides(values))
    if config.train.ft_init_ckpt == RANDOM:
        raise UserError("--weights=random names no weights")
    require_weights(config.train.ft_init_ckpt, model_name=config.model.model_name)
    return config
