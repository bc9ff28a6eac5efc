"""Model and data set names and overrides in; one locked, typed, checked configuration out.

Order of precedence: base < model row < data set row < overrides. All problems are reported in one
message, before TensorFlow is imported.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import yaml
from ml_collections import config_dict

from hparams import base
from hparams.combinations import impossible
from hparams.datasets import find_dataset
from hparams.models import MODELS
from hparams.overrides import ConfigError, Overrides, checked, read_overrides
from hparams.registry import UnknownNameError
from hparams.weights import NAMES, RANDOM, require_weights

Config = Any  # an immutable ml_collections.FrozenConfigDict, which has no types


def resolve(
    model_name: str,
    dataset_cfg: str = "digits",
    *overrides: Overrides,
) -> Config:
    """Merges base, model, data set and overrides into one configuration.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      dataset_cfg: a row of ``hparams.datasets.DATASETS``.
      *overrides: each ``"train.epochs=3,data.flip=false"``, the path of a ``.yaml`` file, a mapping
        from keys (``train.epochs`` or nested) to values, or None; later ones win.

    Returns:
      An immutable ``ConfigDict`` with the sections model, train, eval, data, search and runtime.

    Raises:
      ConfigError: names every unknown name or key (with the nearest known one), wrong type, value
        out of range and impossible combination.
    """
    values, problems = _rows(model_name, dataset_cfg)
    given, given_problems = _merge(overrides)
    problems += given_problems + _renamed(values, given)
    # After a problem the overrides are still checked, so that one message names everything.
    return _build(given if problems else {**values, **given}, problems)


def _rows(model_name: str, dataset_cfg: str) -> tuple[dict[str, Any], list[str]]:
    """Values of the model's and the data set's rows; unknown names are problems."""
    problems = []
    try:
        model = MODELS.canonical(model_name)
    except UnknownNameError as error:
        problems.append(str(error))
    try:
        dataset, row = find_dataset(dataset_cfg)
    except UnknownNameError as error:
        problems.append(str(error))
    if problems:
        return {}, problems
    return {
        **MODELS[model].overrides(),
        **row.overrides(model),
        "model.model_name": model,
        "data.ds_name": dataset,
    }, []


def resolve_model(model_name: str, overrides: Overrides = None) -> Config:
    """Returns the ``model`` section of a registered model, as published, without any data set.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      overrides: as in ``resolve``; keys may leave out ``model.``.

    Raises:
      ConfigError: as in ``resolve``.
    """
    given, problems = read_overrides(overrides, section="model")
    values: dict[str, Any] = {}
    try:
        values = {
            **MODELS[model_name].overrides(),
            "model.model_name": MODELS.canonical(model_name),
        }
    except UnknownNameError as error:
        problems.append(str(error))
    problems += [f"key '{key}' is not of a model" for key in given if not key.startswith("model.")]
    problems += _renamed(values, given)
    section: Config = _build({**values, **given}, problems).model
    return section


def save_config(config: Config, path: str | pathlib.Path) -> None:
    """Writes a configuration as YAML; ``load_config`` reads it back equal."""
    text = yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None)
    pathlib.Path(path).write_text(text, encoding="utf-8")


def load_config(path: str | pathlib.Path, *overrides: Overrides) -> Config:
    """Reads a file that ``save_config`` wrote, and applies overrides as ``resolve`` does.

    Raises:
      ConfigError: if the file is missing, is no YAML, or holds a bad key or value.
    """
    values, problems = read_overrides(str(path), is_path=True)
    given, given_problems = _merge(overrides)
    problems += given_problems + _renamed(values, given)
    return _build({**values, **given}, problems)


def _renamed(values: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    # The names are how a row was found; another name would not bring its row along.
    return [
        f"{key} is {values[key]}, chosen by --{flag}; it cannot be overridden with {given[key]!r}"
        for key, flag in (("model.model_name", "model_name"), ("data.ds_name", "dataset_cfg"))
        if key in given and key in values and given[key] != values[key]
    ]


def with_facts(config: Config, facts: Mapping[str, Any]) -> Config:
    """Returns a configuration with what only the opened data set could tell.

    Args:
      config: from ``resolve`` or ``load_config``.
      facts: key -> value, for keys that may be not set; those that are set stay as they are.

    Raises:
      ConfigError: if a fact does not fit its key.
    """
    values = flat(config)
    missing = {key: value for key, value in facts.items() if values[key] is None}
    return _build({**values, **missing}, [])


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Returns a configuration with other values of some keys.

    Args:
      config: from ``resolve`` or ``load_config``.
      overrides: ``section.key`` -> value.

    Raises:
      ConfigError: as in ``resolve``.
    """
    return _build({**flat(config), **overrides}, [])


def flat(config: Config) -> dict[str, Any]:
    """Returns a configuration as ``section.key`` -> value; lists are plain lists."""
    return {f"{s}.{k}": v for s, keys in _plain(config).items() for k, v in keys.items()}


def require_trainable(config: Config) -> None:
    """Checks what training needs beyond a well-formed configuration.

    Raises:
      ConfigError: if the batch is larger than the training split (where its size is known without
        opening it), or if the configuration asks for what its devices cannot do.
    """
    problems = []
    row = find_dataset(config.data.ds_name)[1]
    if row.train is not None and config.data.train_split == row.train.name:
        problems += _too_large_a_batch(config, images=row.train.num_images)
    train = config.train
    if train.ft_init_ckpt not in (None, RANDOM):
        require_weights(train.ft_init_ckpt, model_name=config.model.model_name)
    elif row.fine_tunes and train.ft_init_ckpt is None:
        problems.append(
            f"{config.data.ds_name} starts from pretrained weights: give --weights="
            f"{'|'.join(NAMES)}, or a path; --weights={RANDOM} for none"
        )
    if config.runtime.strategy == "tpu" and train.size_schedule == "random" and train.size_steps:
        problems.append(
            "a TPU compiles the network for each image size, so sizes cannot change within an "
            "epoch: give train.size_steps=0 (a size an epoch) with train.size_schedule=random"
        )
    if problems:
        raise ConfigError(problems)


def _too_large_a_batch(config: Config, *, images: int | None) -> list[str]:
    if images is None or config.train.batch_size <= images:
        return []
    return [
        f"train.batch_size is {config.train.batch_size}, more than the {images} images of "
        f"the training split of {config.data.ds_name}; give at most {images}"
    ]


def require_full_batch(config: Config, *, num_images: int) -> None:
    """Checks that the opened training split fills at least one batch.

    Raises:
      ConfigError: if it does not.
    """
    problems = _too_large_a_batch(config, images=num_images)
    if problems:
        raise ConfigError(problems)


def _merge(overrides: tuple[Overrides, ...]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    problems: list[str] = []
    for given in overrides:
        more, more_problems = read_overrides(given)
        values.update(more)
        problems += more_problems
    return values, problems


def _build(values: Mapping[str, Any], problems: list[str]) -> Config:
    config = base.base_config()
    for name, value in values.items():
        try:
            section, field = name.split(".")
            config[section][field] = checked(name, value)
        except ConfigError as error:
            problems.extend(error.problems)
    if not problems:
        problems.extend(impossible(config))
    if problems:
        raise ConfigError(problems)
    return config_dict.FrozenConfigDict(config)


def _plain(config: Config) -> dict[str, dict[str, Any]]:
    # A frozen ConfigDict holds tuples, which plain YAML does not have.
    return {
        section: {
            key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()
        }
        for section, keys in config.to_dict().items()
    }
