"""Trains, then evaluates on the final split: ``--mode=train`` and ``traineval``."""

from __future__ import annotations

import contextlib
import pathlib
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.auto_batch import is_auto, require_memory_known
from efficientnetv2.commands.config_from_flags import (
    config_from_flags,
    require_devices_from_flags,
    run_from_flags,
)
from efficientnetv2.commands.extension import asks_for_more, extend
from efficientnetv2.commands.flag_values import give
from efficientnetv2.commands.trained_run import Run
from efficientnetv2.data.sources.own_images import images_of_run
from efficientnetv2.data.sources.table_writer import write_table
from efficientnetv2.runtime.atomic_write import resumable
from efficientnetv2.runtime.best_weights import best_weights
from efficientnetv2.runtime.checkpoint_store import require_usable
from efficientnetv2.runtime.cluster import find_cluster
from efficientnetv2.runtime.lock import training_lock
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import best_metric
from hparams.resolve import require_trainable

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.evaluation.training_session import TrainingSession


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Trains as the flags say; the value is the ``Run``, or the ``CrossValidation``."""
    if values.folds is not None:
        from efficientnetv2.commands.fold_runs import run_folds

        return run_folds(values, stop)
    validate = values.mode == "traineval"
    config = checked_config(values, validate=validate)
    run_directory = run_from_flags(values)
    run_directory.require_no_folds()
    if values.write_table is not None:
        return _write_table(config, run_directory, pathlib.Path(values.write_table))
    cluster = find_cluster(config.runtime.strategy)
    is_chief = cluster.is_chief
    if values.extend and len(cluster.workers) > 1:
        raise UserError("--extend is for one machine; several go on in a new --model_dir")
    lock = training_lock(run_directory.lock_file) if is_chief else contextlib.nullcontext()
    with resumable(), lock:
        config = _with_batch(values, config, run_directory, stop)
        extends = asks_for_more(values, config, run_directory)
        if not extends:
            run_directory.require_same(config)
        require_usable(run_directory)
        best_weights(run_directory)  # says now if they are damaged
        import_tensorflow()
        if extends and is_chief:
            extend(values, config, run_directory)
        code = train(
            config,
            run_directory,
            validate=validate,
            keep_best=values.archive_ckpt,
            eval_name=values.eval_name,
            stop=stop,
        )
    return Outcome(Run(run_directory.path, eval_name=values.eval_name), code)


def _write_table(config: Config, run: RunDirectory, path: pathlib.Path) -> Outcome:
    """Writes the images as a table; a run that has begun has divided them already."""
    if config.data.source != "folder":
        raise UserError(f"--write_table is for your own images, not for {config.data.ds_name}")
    if config.data.fold is not None:
        raise UserError("--write_table writes the splits of the images; leave data.fold out")
    if config.data.leave_out:
        raise UserError("--write_table writes the images of all classes; leave data.leave_out out")
    images = images_of_run(config, run)
    count, flags = write_table(images, path)
    print(f"{count:,} images written to {path}; train on them with --data={path}{flags}")
    return Outcome(None)


def checked_config(values: FlagValues, *, validate: bool) -> Config:
    """Returns the config of the training that the flags describe, as ``config_from_flags``."""
    config = config_from_flags(values)
    require_trainable(config)
    if config.train.patience and not validate:
        raise UserError("train.patience needs the minival results of --mode=traineval")
    require_devices_from_flags(values, config, trains=True)
    if is_auto(values):
        require_memory_known(config)
    return config


def _with_batch(values: FlagValues, config: Config, run: RunDirectory, stop: StopRequest) -> Config:
    """Returns the config with the batch that ``--batch_size=auto`` chooses, if it was given.

    A training that goes on keeps its batch: it may have been chosen on another machine.
    """
    if not is_auto(values):
        return config
    kept = run.trained_config()
    if kept is not None:
        batch_size = kept.train.batch_size
    else:
        import_tensorflow()
        from efficientnetv2.evaluation.batch_size import choose_batch_size

        choice = choose_batch_size(config, run, stop=stop)
        batch_size = choice.batch_size
        print(f"batch size {batch_size}: {choice.reason}", flush=True)
    give(values, "batch_size", str(batch_size))
    return checked_config(values, validate=values.mode == "traineval")


def train(
    config: Config,
    run: RunDirectory,
    *,
    validate: bool,
    keep_best: bool,
    eval_name: str | None,
    stop: StopRequest,
) -> int:
    """Trains to the end and evaluates on the final split.

    Args:
      config: of the training.
      run: new, or holding an unfinished training of the same config.
      validate: also evaluate on the minival split after each epoch.
      keep_best: with ``validate``: keep the checkpoint with the best minival accuracy in ``best/``.
      eval_name: results go to ``eval_<eval_name>.json``; None: ``eval.json``.
      stop: the signals that stop the training.

    Returns:
      0, or 128 + N if signal N stopped it.

    Raises:
      Stopped: if a signal came before the first step or after the last; the training is saved.
    """
    from efficientnetv2.evaluation.training_session import open_training
    from efficientnetv2.reporting.curves import plot_curves
    from efficientnetv2.reporting.progress_bar import BadImageReporter, ProgressBar
    from efficientnetv2.reporting.results import run_title, show_training_end, show_training_start

    def callback(is_chief: bool) -> BadImageReporter:
        return ProgressBar(metric=best_metric(config)) if is_chief else BadImageReporter()

    with open_training(config, run, stop=stop, callback=callback) as session:
        is_chief = session.workers.is_chief
        if is_chief:
            show_training_start(session, run)
        stopped_by = session.train(validate=validate, keep_best=keep_best)
        if is_chief:
            title = run_title(session.config)
            records, path = session.run.metrics(), session.run.curves_file
            plot_curves(records, path, title=title, metric=best_metric(config))
            show_training_end(session, stopped=stopped_by is not None)
        if stopped_by is not None:
            return 128 + stopped_by
        _evaluate(session, eval_name=eval_name)
    return 0


def _evaluate(session: TrainingSession, *, eval_name: str | None) -> None:
    from efficientnetv2.reporting.results import report_result
    from efficientnetv2.reporting.run_page import write_run_page

    result = session.evaluate()
    if not session.workers.is_chief:
        return
    run = session.run
    report_result(session.config, run, result.metrics, eval_name=eval_name)
    if result.calibration:
        print(result.calibration)
    page = write_run_page(session.config, run, result, eval_name=eval_name)
    best = "best/, " if run.best.is_dir() else ""
    print(
        f"\nwritten to {run.path}: checkpoints/, {best}config.yaml, labels.txt, "
        f"metrics.jsonl, {run.curves_file.name}, tensorboard/, {run.result_file(eval_name).name}, "
        f"{page.name}"
    )
