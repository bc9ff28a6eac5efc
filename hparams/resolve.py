"""Builds a validated, immutable config from a model name, a data set name and overrides.

Precedence, from low to high: default of the key, model row, data set row, recipe, overrides. All
problems are reported in one message, before TensorFlow is imported.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import yaml
from ml_collections import config_dict

from hparams import keys
from hparams.channels import settings_of_channels
from hparams.choices import NO_PRESET
from hparams.config import Config, ModelSection
from hparams.constraints import find_conflicts, find_training_conflicts, find_unused_changes
from hparams.datasets import find_dataset
from hparams.errors import shortened, shown
from hparams.factors import FACTORS
from hparams.limits import MOST_STEPS
from hparams.models import MODELS
from hparams.overrides import (
    ConfigError,
    Overrides,
    checked,
    merge_overrides,
    read_overrides,
)
from hparams.quantisation import quantisation_problems, settings_of_quantisation
from hparams.recipes import RECIPES, Recipe
from hparams.registry import UnknownNameError
from hparams.search_space import ends, read_space, trial_settings
from hparams.weights import NAMES, RANDOM, require_weights


def resolve(
    model_name: str,
    dataset_cfg: str = "digits",
    *overrides: Overrides,
    preset_follows: bool = False,
) -> Config:
    """Merges defaults, model, data set and overrides into one config.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      dataset_cfg: a row of ``hparams.datasets.DATASETS``.
      *overrides: each ``"train.epochs=3,data.flip=false"``, the path of a ``.yaml`` file, a mapping
        from keys (``train.epochs``, or nested) to values, or None; later ones win, but no single
        one may give a key twice.
      preset_follows: ``train.preset``, if there is one, is still to choose image sizes, batch and
        learning rate, so that nothing is compared with those before it.

    Returns:
      An immutable config with the sections model, train, eval, data, search and runtime.

    Raises:
      ConfigError: if anything is wrong. The message lists every unknown name or key (with the
        nearest known one), wrong type, value out of range and impossible combination.
    """
    changes, override_problems = merge_overrides(overrides)
    recipe = RECIPES.get(str(changes.get("train.recipe")))  # a wrong name becomes a problem below
    values, problems = _row_values(model_name, dataset_cfg, recipe)
    problems += override_problems + _name_conflicts(values, changes)
    values.update(settings_of_channels(changes))
    values.update(settings_of_quantisation(changes))
    values.update(_weaker_firsts(values, changes))
    # The overrides are checked even after a problem, so that one message lists everything.
    return _build(
        changes if problems else {**values, **changes},
        problems,
        before=values,
        preset_follows=preset_follows,
    )


def _weaker_firsts(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns first values of the stages that are not above last ones that the user has chosen.

    Regularisation never gets weaker while the images grow (paper, Algorithm 1): without dropout in
    the last stage, there is none in the first. Who wants something else gives both values.
    """
    weaker = {}
    for name, factor in FACTORS.items():
        first, last = factor.first, factor.last
        is_open = first not in changes and values.get(first) is not None
        if name != "image_size" and last in changes and is_open:
            with contextlib.suppress(ConfigError):  # reported with all others
                weaker[first] = min(values[first], checked(last, changes[last]))
    return weaker


def _row_values(
    model_name: str, dataset_cfg: str, recipe: Recipe | None
) -> tuple[dict[str, Any], list[str]]:
    """Returns what the model, the data set and the recipe set; unknown names are problems."""
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
        **row.overrides(model, recipe),
        "model.model_name": model,
        "data.ds_name": dataset,
    }, []


def resolve_model(model_name: str, overrides: Overrides = None) -> ModelSection:
    """Returns the ``model`` section of a registered model, as published and without a data set.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      overrides: as in ``resolve``; keys may leave out ``model.``.

    Raises:
      ConfigError: as in ``resolve``.
    """
    changes, problems = read_overrides(overrides, section="model")
    values: dict[str, Any] = {}
    try:
        values = {
            **MODELS[model_name].overrides(),
            **settings_of_channels(changes),
            "model.model_name": MODELS.canonical(model_name),
        }
    except UnknownNameError as error:
        problems.append(str(error))
    problems += [f"'{key}' is not a model key" for key in changes if not key.startswith("model.")]
    problems += _name_conflicts(values, changes)
    return _build({**values, **changes}, problems).model


def save_config(config: Config, path: str | pathlib.Path) -> None:
    """Writes a config as a YAML file, which ``load_config`` reads back to an equal config."""
    text = yaml.safe_dump(_to_plain(config), sort_keys=False, default_flow_style=None)
    pathlib.Path(path).write_text(text, encoding="utf-8")


def load_config(path: str | pathlib.Path, *overrides: Overrides) -> Config:
    """Reads a file that ``save_config`` wrote, and applies overrides as ``resolve`` does.

    Raises:
      ConfigError: if the file is missing, is not YAML, names no registered model, or holds a wrong
        key or value; the message names the file.
    """
    values, problems = read_overrides(str(path), is_path=True)
    if not problems:
        problems = _file_problems(values, f"config file '{shortened(str(path), limit=120)}'")
    changes, override_problems = merge_overrides(overrides)
    problems += override_problems + _name_conflicts(values, changes)
    return _build(changes if problems else {**values, **changes}, problems, before=values)


def _file_problems(values: Mapping[str, Any], file: str) -> list[str]:
    """Returns what is wrong with the values of a config file, before anything overrides them."""
    if not values:
        return [f"{file} is empty; restore it, or start over in another --model_dir"]
    problems = []
    for key, require_known in (
        ("model.model_name", MODELS.canonical),
        ("data.ds_name", find_dataset),
    ):
        try:
            if key not in values:
                problems.append(f"{file} does not say {key}")
            elif isinstance(values[key], str):
                require_known(values[key])
        except UnknownNameError as error:
            problems.append(f"{file}: {error}")
    try:
        if not problems:
            _build(values, [])
    except ConfigError as error:
        problems += [f"{file}: {problem}" for problem in error.problems]
    return problems


def _name_conflicts(values: Mapping[str, Any], changes: Mapping[str, Any]) -> list[str]:
    # The names have selected the rows already: overriding a name would not bring its row along.
    return [
        f"{key} is {values[key]}, chosen by --{flag}; it cannot be overridden with "
        f"{shown(changes[key])}"
        for key, flag in (("model.model_name", "model_name"), ("data.ds_name", "dataset_cfg"))
        if key in changes and key in values and changes[key] != values[key]
    ]


def with_facts(config: Config, facts: Mapping[str, Any]) -> Config:
    """Returns a config with the values that are known only once the data set is opened.

    Args:
      config: from ``resolve`` or ``load_config``.
      facts: key -> value; a key that is already set keeps its value.

    Raises:
      ConfigError: if a fact does not fit its key.
    """
    values = flat(config)
    missing = {key: value for key, value in facts.items() if values[key] in keys.NOT_SET}
    return _build({**values, **missing}, [])


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Returns a config with some values replaced.

    Args:
      config: from ``resolve`` or ``load_config``.
      overrides: ``section.key`` -> value.

    Raises:
      ConfigError: as in ``resolve``.
    """
    return _build({**flat(config), **overrides}, [])


def flat(config: Config) -> dict[str, Any]:
    """Returns a config as ``section.key`` -> value, with tuples turned into lists."""
    return {f"{s}.{k}": v for s, keys in _to_plain(config).items() for k, v in keys.items()}


def require_trainable(config: Config) -> None:
    """Checks that a valid config can also be used for training.

    Raises:
      ConfigError: if the batch is larger than the training split (if its size is known without
        opening it), the images are too small for the network, the data set needs pretrained weights
        that are not given, or a TPU would have to change the image size within an epoch.
      UserError: if there are no such weights.
    """
    problems = find_training_conflicts(config) + quantisation_problems(config)
    row = find_dataset(config.data.ds_name)[1]
    if row.train is not None and config.data.train_split == row.train.name:
        problems += _batch_problems(config, images=row.train.num_images)
        problems += _draw_problems(config, images=row.train.num_images)
    train = config.train
    if train.ft_init_ckpt not in (None, RANDOM):
        require_weights(train.ft_init_ckpt, model_name=config.model.model_name)
    elif row.fine_tunes and train.ft_init_ckpt is None:
        problems.append(
            f"{config.data.ds_name} starts from pretrained weights: give --weights="
            f"{'|'.join(NAMES)}, or a path; or --weights={RANDOM} to train from scratch"
        )
    recipe = RECIPES.get(train.recipe)
    if recipe is not None and recipe.needs_weights and train.ft_init_ckpt in (None, RANDOM):
        problems.append(
            f"train.recipe={train.recipe} trains the last layers of a network that is trained "
            "already: give --weights=RUN (its run directory), or the name or path of other weights"
        )
    if config.runtime.strategy == "tpu" and train.size_schedule == "random" and train.size_steps:
        problems.append(
            "a TPU compiles the network for each image size, so sizes cannot change within an "
            "epoch: give train.size_steps=0 (one size per epoch) with train.size_schedule=random"
        )
    if problems:
        raise ConfigError(problems)


def require_searchable(config: Config) -> None:
    """Checks that a valid config with ``search.space`` can be searched: the ends of each range.

    Raises:
      ConfigError: if a value of the space, with the other settings as they are, or
        ``search.isize`` cannot be used in a training.
      UserError: as ``require_trainable``.
    """
    common = trial_settings(config.search)
    require_trainable(with_overrides(config, common))
    for key, values in read_space(config.search.space).items():
        for value in ends(values):
            try:
                require_trainable(with_overrides(config, {**common, key: value}))
            except ConfigError as error:
                raise ConfigError([f"search.space: {text}" for text in error.problems]) from None


def _batch_problems(config: Config, *, images: int | None) -> list[str]:
    if images is None or config.train.batch_size <= images:
        return []
    data = config.data
    name = f"'{data.data_dir}'" if data.source == "folder" else data.ds_name
    return [
        f"train.batch_size is {config.train.batch_size}, more than the {images} images of "
        f"the training split of {name}; give at most {images}"
    ]


def _draw_problems(config: Config, *, images: int | None) -> list[str]:
    train = config.train
    if images is None or train.size_schedule != "random" or not train.size_steps:
        return []
    draws = images // train.batch_size * train.epochs // train.size_steps
    if draws <= MOST_STEPS:
        return []
    return [
        f"train.size_steps={train.size_steps} draws {draws} image sizes, of which at most "
        f"{MOST_STEPS} fit into memory; give a larger train.size_steps, or 0 for one size per epoch"
    ]


def require_full_batch(config: Config, *, num_images: int) -> None:
    """Checks that the training split, once opened, fills at least one batch.

    Raises:
      ConfigError: if it holds fewer images than a batch.
    """
    problems = _batch_problems(config, images=num_images)
    if problems:
        raise ConfigError(problems)


def _build(
    values: Mapping[str, Any],
    problems: list[str],
    *,
    before: Mapping[str, Any] | None = None,
    preset_follows: bool = False,
) -> Config:
    """Checks values and returns them as a config.

    Args:
      values: ``section.key`` -> value.
      problems: those found so far.
      before: the values without the user's, if these are to be refused where they have no effect.
      preset_follows: as in ``resolve``.
    """
    config = keys.default_config()
    for name, value in values.items():
        try:
            section, field = name.split(".")
            config[section][field] = checked(name, value)
        except ConfigError as error:
            problems.extend(error.problems)
    if not problems:
        is_open = preset_follows and config.train.preset != NO_PRESET
        problems.extend(find_conflicts(config, with_sizes=not is_open))
        if before is not None:
            problems.extend(find_unused_changes(config, before))
    if problems:
        raise ConfigError(problems)
    return cast(Config, config_dict.FrozenConfigDict(config))


def _to_plain(config: Config) -> dict[str, dict[str, Any]]:
    # A frozen ConfigDict holds tuples, which plain YAML cannot express.
    return {
        section: {
            key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()
        }
        for section, keys in config.to_dict().items()
    }
