"""A configuration in; its data set, splits and evaluator, opened, out."""

from __future__ import annotations

import zlib

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.broken import SkippedLog
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.data.sources import Source, build_source
from efficientnetv2.evaluate import Evaluator, build_evaluator
from efficientnetv2.train.run_directory import RunDirectory
from hparams.errors import UserError
from hparams.resolve import Config, with_facts

# What belongs to one machine: the others need not know it.
_OWN_RUNTIME_KEYS = (
    "worker_timeout_seconds",
    "tpu",
    "tpu_zone",
    "gcp_project",
    "tpu_job_name",
)


def open_data(config: Config, run: RunDirectory, *, is_chief: bool = True) -> tuple[Config, Source]:
    """Opens the data set, and completes the configuration with what only the data set tells.

    Args:
      config: the section data, and the number of classes.
      run: the split of a folder's images is read or written there.
      is_chief: it may be written; only one process may.

    Raises:
      UserError: if there is no such data, or the number of classes is another one.
    """
    if config.data.source == "folder" and is_chief:
        run.create()  # the split of the images is written there
    may_write = is_chief or run.split_file.exists()
    source = build_source(config, listing_file=run.split_file if may_write else None)
    train_split, minival_split, eval_split = source.default_splits
    config = with_facts(
        config,
        {
            "model.num_classes": source.num_classes,
            "data.train_split": train_split,
            "data.minival_split": minival_split,
            "data.eval_split": eval_split,
        },
    )
    if source.num_classes != config.model.num_classes:
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but {config.data.ds_name} has "
            f"{source.num_classes} classes"
        )
    return config, source


def open_split(config: Config, source: Source, run: RunDirectory, *, split: str) -> EvaluationInput:
    """Returns the images of one split."""
    return EvaluationInput(config, source, split=split, skipped=SkippedLog(run.bad_images_file))


def open_evaluator(
    config: Config, model: keras.Model, *, strategy: tf.distribute.Strategy
) -> Evaluator:
    """Returns the evaluator of a model that stands under a strategy."""
    return build_evaluator(
        model,
        loss_type=config.train.loss_type,
        multi_label=config.data.multi_label,
        strategy=strategy,
    )


def settings_sum(config: Config) -> dict[str, int]:
    """A number for all settings that must be the same on every worker."""
    settings = config.to_dict()
    for key in _OWN_RUNTIME_KEYS:
        del settings["runtime"][key]
    for key in ("data_dir", "service", "cache_mib"):
        del settings["data"][key]
    return {"configuration (a check sum)": zlib.crc32(repr(settings).encode())}
