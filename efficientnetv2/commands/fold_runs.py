"""Trains every fold of a cross-validation that no other process has: ``--folds``."""

from __future__ import annotations

import contextlib
import gc
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.auto_batch import is_auto
from efficientnetv2.commands.config_from_flags import dataset_from_flags, run_from_flags
from efficientnetv2.commands.cross_validation import CrossValidation, fold_directory
from efficientnetv2.commands.flag_values import give
from efficientnetv2.commands.train import checked_config, train
from efficientnetv2.data.quality.same_files import leak_notice
from efficientnetv2.data.sources.image_splits import HELD_OUT
from efficientnetv2.data.sources.own_images import divide_folds
from efficientnetv2.data.sources.split_file import save_splits
from efficientnetv2.runtime.atomic_write import resumable
from efficientnetv2.runtime.checkpoint_store import require_usable
from efficientnetv2.runtime.cluster import find_cluster
from efficientnetv2.runtime.lock import LockedError, exclusive_lock, training_lock
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import Stopped, StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.config import Config
from hparams.datasets import find_dataset
from hparams.errors import UserError
from hparams.folds import Fold, parse_count
from hparams.resolve import with_overrides

if TYPE_CHECKING:
    from absl.flags import FlagValues

_PAUSE_SECONDS = 2.0
_SCORES = "held_out.npz"  # in the run directory of a fold that is finished


def run_folds(values: FlagValues, stop: StopRequest) -> Outcome:
    """Trains all folds together with other processes; the value is the ``CrossValidation``."""
    folds, folder, config = _setup(values)
    runs = {fold: fold_directory(folder, fold.number) for fold in folds}
    with resumable():
        _begin(config, folds, folder)
        import_tensorflow()
        with _said_how_to_go_on(folder):
            code = _train_all(values, config, runs, stop)
        if code:
            return Outcome(None, code)
        _report(config, list(runs.values()), folder)
    return Outcome(CrossValidation(folder, eval_name=values.eval_name))


@contextlib.contextmanager
def _said_how_to_go_on(folder: pathlib.Path) -> Iterator[None]:
    """Says, if a signal ends the context, that the same command goes on."""
    try:
        yield
    except Stopped:
        print(f"the folds so far are saved in {folder}; the same command goes on from there")
        raise


def _train_all(
    values: FlagValues, config: Config, runs: Mapping[Fold, RunDirectory], stop: StopRequest
) -> int:
    """Trains until all folds are finished, also those of others; returns as ``_train_fold``."""
    is_waiting = False
    while not all(_is_finished(run) for run in runs.values()):
        stop.check()
        taken, code = _train_free(values, config, runs, stop)
        if code:
            return code
        if taken:
            if not is_waiting:
                print("waiting for folds of other processes", flush=True)
            is_waiting = True
            time.sleep(_PAUSE_SECONDS)
    return 0


def _setup(values: FlagValues) -> tuple[list[Fold], pathlib.Path, Config]:
    """Returns the folds, their folder, and the config of the first, all checked."""
    count = parse_count(values.folds)
    name, row = find_dataset(dataset_from_flags(values))
    if row.source != "folder":
        raise UserError(
            f"--folds is for your own images, a folder or table (--data=photos), not for {name}"
        )
    for flag in ("extend", "write_table"):
        if values[flag].present and values[flag].value:
            raise UserError(f"--{flag} is for a single training; leave it or --folds out")
    if is_auto(values):
        raise UserError(
            "--batch_size=auto is for a single training, as all folds have one batch size; give "
            "the number that it chooses"
        )
    folder = pathlib.Path(values.model_dir or f"{run_from_flags(values).path}-folds")
    directory = RunDirectory(folder)
    directory.require_folds(count)
    folds = [Fold(number, count) for number in range(1, count + 1)]
    give(values, "model_dir", str(fold_directory(folder, 1).path))
    config = checked_config(values, validate=values.mode == "traineval")
    if config.data.fold != str(folds[0]):
        raise UserError(
            f"--folds trains every fold, but data.fold={config.data.fold} names one; give one of "
            "them"
        )
    if len(find_cluster(config.runtime.strategy).workers) > 1:
        raise UserError(
            "--folds takes no TF_CONFIG; give all machines the same --model_dir, and each takes a "
            "fold that no other has"
        )
    directory.require_same_folds(config)
    return folds, folder, config


def _begin(config: Config, folds: list[Fold], folder: pathlib.Path) -> None:
    """Divides the images for all folds, once: photos that come later change no fold."""
    directory = RunDirectory(folder)
    directory.create()
    with _lock(folder):
        directory.require_same_folds(config)  # another process may have begun meanwhile
        if directory.folds_config() is None:
            divided = divide_folds(config, folds)
            parts = {str(fold): part.images[HELD_OUT] for fold, part in zip(folds, divided)}
            parts["test"] = divided[0].images["test"]
            leaks = leak_notice(divided[0].root, parts, what="folds, or in a fold and in test")
            for line in (*divided[0].notices, *leaks):
                print(line, file=sys.stderr)
            for fold, splits in zip(folds, divided):
                save_splits(splits, fold_directory(folder, fold.number).split_file)
            directory.write_folds_config(config)


def _lock(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    return exclusive_lock(folder / "folds.lock")


def _is_finished(run: RunDirectory) -> bool:
    return (run.path / _SCORES).exists()


def _train_free(
    values: FlagValues, config: Config, runs: Mapping[Fold, RunDirectory], stop: StopRequest
) -> tuple[int, int]:
    """Trains each fold that is not finished and that no process has.

    Returns:
      How many folds others have, and 0, or 128 + N if signal N stopped the training.
    """
    taken = 0
    for fold, run in runs.items():
        if _is_finished(run):
            continue
        try:
            with training_lock(run.lock_file):
                if not _is_finished(run):  # another process may have finished it meanwhile
                    own = with_overrides(config, {"data.fold": str(fold)})
                    code = _train_fold(values, own, run, stop)
                    if code:
                        return taken, code
        except LockedError:
            taken += 1
    return taken, 0


def _train_fold(values: FlagValues, config: Config, run: RunDirectory, stop: StopRequest) -> int:
    """Trains a fold to its end and evaluates it; returns 0, or 128 + N after signal N."""
    from efficientnetv2.evaluation.fold_evaluation import evaluate_fold

    run.require_same(config)
    require_usable(run)
    print(f"\nfold {config.data.fold}", flush=True)
    code = train(
        config,
        run,
        validate=values.mode == "traineval",
        keep_best=values.archive_ckpt,
        eval_name=values.eval_name,
        stop=stop,
    )
    if code == 0:
        evaluate_fold(config, run).save(run.path / _SCORES)
        gc.collect()  # networks are in reference cycles, and the next fold needs their memory
    return code


def _report(config: Config, runs: list[RunDirectory], folder: pathlib.Path) -> None:
    """Writes the summary; of several processes, one after the other writes the same."""
    from efficientnetv2.evaluation.held_out_scores import load_scores
    from efficientnetv2.reporting.fold_report import report_folds

    scores = [load_scores(run.path / _SCORES) for run in runs]
    with _lock(folder):
        report_folds(config, scores, runs[0].class_names(), folder)
