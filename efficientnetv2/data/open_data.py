"""Opens the data set of a config, and the images of one of its splits."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

from efficientnetv2.data.bad_images import SkippedLog
from efficientnetv2.data.channel_statistics import channel_statistics
from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.sources import Source, build_source
from efficientnetv2.data.views import ONE_VIEW, Views
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.channels import is_measured_later
from hparams.class_weights import given_weights
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import NUMBERS
from hparams.resolve import with_facts


def open_data(
    config: Config, run: RunDirectory | None, *, is_chief: bool = True
) -> tuple[Config, Source]:
    """Opens the data set and fills in what only it knows, such as the number of classes.

    Says on stderr what a person should know of the data, for example which files are left out.

    Args:
      config: its section data and ``model.num_classes`` are read.
      run: run directory; the split of a folder of images is read from it or written to it. None:
        the folder is divided by the names of its files, and nothing is written.
      is_chief: whether this process may write the split; only one process may.

    Returns:
      The completed config, and the data set.

    Raises:
      UserError: if the data set cannot be opened, or ``model.num_classes`` is not its number of
        classes.
    """
    split_file = None
    if run is not None:
        if config.data.source == "folder" and is_chief:
            run.create()  # the split of the images is written there
        may_write = is_chief or run.split_file.exists()
        split_file = run.split_file if may_write else None
    source = build_source(config, split_file=split_file)
    if is_chief:
        for line in source.notices:
            _say_once(line)
    train_split, minival_split, eval_split = source.default_splits
    facts = {
        "model.num_classes": source.num_classes,
        "data.train_split": train_split,
        "data.minival_split": minival_split,
        "data.eval_split": eval_split,
    }
    if source.label_kind == NUMBERS:
        facts["model.target_mean"], facts["model.target_deviation"] = source.target_statistics()
    if is_measured_later(config.model):
        split = config.data.train_split or train_split
        facts.update(_normalisation(config, source, run, split=split))
    if given_weights(config) or config.train.logit_adjustment:
        facts["train.class_counts"] = source.class_counts()
    config = with_facts(config, facts)
    if source.num_classes != config.model.num_classes:
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but {config.data.ds_name} has "
            f"{source.num_classes} classes"
        )
    return config, source


def _normalisation(
    config: Config, source: Source, run: RunDirectory | None, *, split: str
) -> dict[str, Sequence[float]]:
    """Returns means and deviations of the channels of the training images, as config keys.

    A training that goes on keeps those of its start.
    """
    kept = None if run is None else run.trained_config()
    if kept is not None and kept.model.channels == config.model.channels:
        mean, deviation = list(kept.model.pixel_mean), list(kept.model.pixel_deviation)
        return {"model.pixel_mean": mean, "model.pixel_deviation": deviation}
    found = channel_statistics(config, source, split=split)
    for line in found.notices:
        _say_once(line)
    return {"model.pixel_mean": found.mean, "model.pixel_deviation": found.deviation}


@functools.cache
def _say_once(line: str) -> None:
    """Prints a line on stderr, but not for every trial of a search again."""
    print(line, file=sys.stderr, flush=True)


def open_split(
    config: Config,
    source: Source,
    run: RunDirectory,
    *,
    split: str,
    views: Views = ONE_VIEW,
    corruption: str | None = None,
) -> EvaluationInput:
    """Opens one split for evaluation; the run directory logs images that cannot be read.

    Args: as ``EvaluationInput``.
    """
    log = SkippedLog(run.bad_images_file)
    return EvaluationInput(
        config, source, split=split, skipped=log, views=views, corruption=corruption
    )
