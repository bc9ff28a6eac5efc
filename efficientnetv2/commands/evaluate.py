"""Evaluates a trained run, or pretrained weights, on the final split: ``--mode=eval``."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.commands.config_from_flags import (
    config_from_flags,
    require_devices_from_flags,
    run_from_flags,
    takes_arrays,
    trained_run_from_flags,
)
from efficientnetv2.data.sources.image_files import find_images
from efficientnetv2.runtime.best_weights import best_weights
from efficientnetv2.runtime.calibration_file import read_temperature, read_threshold
from efficientnetv2.runtime.checkpoint_store import is_whole, step_of
from efficientnetv2.runtime.checkpoint_watcher import new_checkpoints, wait_for_config
from efficientnetv2.runtime.lock import lock_holder
from efficientnetv2.runtime.run_directory import RunDirectory, RunError
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.runtime.weights_run import whole_run
from hparams.channels import GREY, RGB
from hparams.config import Config
from hparams.errors import UserError
from hparams.label_kinds import LABEL_KINDS, NUMBERS, ONE, SEVERAL, label_kind
from hparams.weights import require_weights

if TYPE_CHECKING:
    from absl.flags import FlagValues

    from efficientnetv2.data.eval_input import EvaluationInput
    from efficientnetv2.data.sources import Source
    from efficientnetv2.evaluation.evaluator import (
        AnyPredictions,
        EvaluationResult,
        Metrics,
        MoreInputs,
    )
    from efficientnetv2.train.workers import Workers


@dataclasses.dataclass(frozen=True)
class Looks:
    """Options of an evaluation: the views of each image, and further images to evaluate on.

    Attributes:
      crops: crops of each image to average over, 1 or 5.
      flip: also average over the mirror image of each crop.
      unknown: files of images of none of the classes; None: there are none.
      corruptions: whether to evaluate on corrupted images, too.
    """

    crops: int = 1
    flip: bool = False
    unknown: Sequence[pathlib.Path] | None = None
    corruptions: bool = False


PLAIN = Looks()


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Evaluates the run or the weights that the flags name; the value is the metrics."""
    del stop
    looks = _looks(values)
    has_data = values["data_dir"].present or values["dataset_cfg"].present
    takes_all = not has_data and not values["model_dir"].present
    named = whole_run(values.weights) if takes_all else None
    if values.weights is not None and named is None:
        config = config_from_flags(values)
        require_weights(values.weights, model_name=config.model.model_name)
        require_devices_from_flags(values, config, trains=False)
        folder = values.model_dir or f"{run_from_flags(values).path}-pretrained"
        results = RunDirectory(folder)
        read_temperature(whole_run(values.weights), config)  # says now if it is damaged
        read_threshold(whole_run(values.weights), config)
        _require_fitting(looks, config)
        import_tensorflow()
        return Outcome(evaluate_weights(config, results, eval_name=values.eval_name, looks=looks))
    wait_for_config(named or run_from_flags(values))
    trained, config = trained_run_from_flags(values)
    assert trained is not None  # only --weights has no run
    require_devices_from_flags(values, config, trains=False)
    read_temperature(trained, config)
    read_threshold(trained, config)
    _require_fitting(looks, config)
    import_tensorflow()
    return Outcome(evaluate_run(config, trained, eval_name=values.eval_name, looks=looks))


def _looks(values: FlagValues) -> Looks:
    """Returns the options that the flags give."""
    paths = None
    if values.unknown is not None:
        try:
            paths = list(find_images(pathlib.Path(values.unknown), arrays=takes_arrays(values)))
        except UserError as error:
            raise UserError(str(error).replace("--image_path", "--unknown")) from None
    return Looks(int(values.crops), values.flip, paths, values.corruptions)


def _require_fitting(looks: Looks, config: Config) -> None:
    """Checks that a network can be evaluated so.

    Raises:
      UserError: if it predicts numbers, or its images cannot be stored as JPEG.
    """
    kind = label_kind(config)
    if looks.unknown is not None and kind == NUMBERS:
        raise UserError("--unknown is for networks that predict classes; this one predicts numbers")
    if looks.corruptions and kind != ONE:
        raise UserError(
            f"--corruptions is for networks that name one class; this one predicts "
            f"{LABEL_KINDS[kind].text} an image"
        )
    if looks.corruptions and config.model.channels not in (GREY, RGB):
        raise UserError(
            f"--corruptions is for grey and colour images, not for {config.model.channels} channels"
        )


def evaluate_run(
    config: Config, run: RunDirectory, *, eval_name: str | None, looks: Looks = PLAIN
) -> Metrics:
    """Evaluates the newest checkpoint on the final split, with raw and averaged weights.

    The weights in best/, which prediction and export use, are evaluated, too. While a training runs
    in the directory, each checkpoint that it saves is evaluated and adds a line to eval.jsonl; the
    last one is reported.

    Args:
      config: of the run.
      run: holds a checkpoint, or a training that will save one.
      eval_name: results go to ``eval_<eval_name>.json``; None: ``eval.json``.
      looks: the views of each image, and what else to evaluate on.

    Raises:
      UserError: if the run, its data or its checkpoints cannot be used.
    """
    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.evaluation.evaluator import (
        EvaluationResult,
        add_best,
        evaluate_checkpoint,
        evaluate_with_predictions,
        open_evaluator,
    )
    from efficientnetv2.reporting.results import append_result
    from efficientnetv2.train.quantised_network import build_trained_network
    from efficientnetv2.train.workers import build_workers, settings_checksum

    follows = lock_holder(run.lock_file) is not None
    checkpoints = new_checkpoints(run)
    first = next(checkpoints)
    workers = build_workers(config)
    with workers.report_worker_loss():
        with workers.chief_first():
            config, source = open_data(config, run, is_chief=workers.is_chief)
        workers.require_same(settings_checksum(config))
        images, more = _open_inputs(config, source, run, looks, trained=run)
        with workers.strategy.scope():
            model = build_trained_network(config)
        value, strategy = _same_temperature(config, run, workers), workers.strategy
        evaluator = open_evaluator(config, model, strategy=strategy, temperature=value)
        evaluate = functools.partial(
            evaluate_with_predictions, evaluator, images, workers=workers, more=more
        )

        def evaluate_both(checkpoint: str) -> tuple[Metrics, dict[str, AnyPredictions]]:
            found = evaluate_checkpoint(checkpoint, model, evaluate)
            if follows:
                append_result(config, run, found[0], eval_name=eval_name, checkpoint=checkpoint)
            return found

        # Several processes would see a new checkpoint at different times.
        following = itertools.chain([first], checkpoints if workers.is_alone else [])
        step, metrics, predictions = _newest(following, evaluate_both, run, follows=follows)
        best = best_weights(run) if workers.is_alone else None  # as at the end of a training
        add_best(best, model, metrics, predictions, step=step, evaluate=evaluate)
    if workers.is_chief:
        result = EvaluationResult(images, source.class_names, metrics, predictions)
        metrics = _report(config, run, result, eval_name=eval_name)
    return metrics


def _newest(
    checkpoints: Iterable[str],
    evaluate: Callable[[str], tuple[Metrics, dict[str, AnyPredictions]]],
    run: RunDirectory,
    *,
    follows: bool,
) -> tuple[int, Metrics, dict[str, AnyPredictions]]:
    """Evaluates checkpoints in turn; returns the step of the last one, and what was found.

    Args:
      checkpoints: path prefixes.
      evaluate: evaluates one.
      run: the run that they belong to.
      follows: whether a training is running, which keeps only a few and may have removed some.

    Raises:
      RunError: if one cannot be read, or all were removed.
    """
    last: tuple[int, Metrics, dict[str, AnyPredictions]] | None = None
    for checkpoint in checkpoints:
        try:
            last = (step_of(checkpoint), *evaluate(checkpoint))
        except RunError:
            if not follows or is_whole(checkpoint):
                raise
    if last is None:
        raise RunError(f"the checkpoints in '{run.checkpoints}' were removed before evaluation")
    return last


def _open_inputs(
    config: Config,
    source: Source,
    run: RunDirectory,
    looks: Looks,
    *,
    trained: RunDirectory | None,
) -> tuple[EvaluationInput, MoreInputs]:
    """Opens the images of the split, and what else is asked for.

    Args:
      config: of the evaluation.
      source: its data set.
      run: logs images that cannot be read.
      looks: what is asked for.
      trained: has the threshold of unknown images; None: there is none.
    """
    from efficientnetv2.data.corruptions import CORRUPTIONS
    from efficientnetv2.data.open_data import open_split
    from efficientnetv2.data.views import Views
    from efficientnetv2.evaluation.evaluator import MoreInputs
    from efficientnetv2.evaluation.unknown_images import open_unknown

    views, split = Views(crops=looks.crops, flip=looks.flip), config.data.eval_split
    corrupted = {
        name: open_split(config, source, run, split=split, views=views, corruption=name)
        for name in (CORRUPTIONS if looks.corruptions else ())
    }
    unknown = open_unknown(config, source, looks.unknown, views=views)
    more = MoreInputs(unknown, read_threshold(trained, config), corrupted)
    return open_split(config, source, run, split=split, views=views), more


def evaluate_weights(
    config: Config, run: RunDirectory, *, eval_name: str | None, looks: Looks = PLAIN
) -> Metrics:
    """Evaluates the weights that ``train.ft_init_ckpt`` names.

    Args:
      config: of the network of the weights, and of the data.
      run: folder for the results. If it holds a training on the same data, its split is used.
      eval_name: as in ``evaluate_run``, as the next.
      looks: as there.
    """
    import numpy as np

    from efficientnetv2.data.open_data import open_data
    from efficientnetv2.evaluation.evaluator import (
        EvaluationResult,
        evaluate_with_predictions,
        open_evaluator,
    )
    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.train.workers import build_workers

    workers = build_workers(config)
    with workers.report_worker_loss():
        with workers.chief_first():
            splits = _run_with_split(config, run)
            if workers.is_chief:
                splits.create()  # for the list of images that cannot be read
            config, source = open_data(config, splits, is_chief=workers.is_chief)
        trained = _trained_on(source.class_names, config)
        images, more = _open_inputs(config, source, splits, looks, trained=trained)
        with workers.strategy.scope():
            loaded = load_trained(config, trained)
        evaluator = open_evaluator(
            config,
            loaded.model,
            strategy=workers.strategy,
            temperature=read_temperature(trained, config),
        )
        raw, raw_predictions = evaluate_with_predictions(
            evaluator, images, workers=workers, more=more
        )
    metrics = {"raw": raw}
    if workers.is_chief:
        print(loaded.origin)
        run.create()
        predictions = {} if raw_predictions is None else {"raw": raw_predictions}
        cuts = None if loaded.thresholds is None else np.float64(loaded.thresholds)
        result = EvaluationResult(images, source.class_names, metrics, predictions, cuts)
        metrics = _report(config, run, result, eval_name=eval_name)
    return metrics


def _same_temperature(config: Config, run: RunDirectory, workers: Workers) -> float | None:
    """Returns the temperature of a run; None: it has none. All processes must read the same."""
    value = read_temperature(run, config)
    workers.require_same(
        {"temperature in calibration.json (millionths)": round(1e6 * (value or 0))}
    )
    return value


def _report(
    config: Config, run: RunDirectory, result: EvaluationResult, *, eval_name: str | None
) -> Metrics:
    """Reports an evaluation; returns its metrics, with those that need the thresholds.

    Args:
      config: of the evaluation.
      run: gets the files; it has the thresholds, unless the result has.
      result: what to report.
      eval_name: as in ``report_evaluation``.
    """
    import numpy as np

    from efficientnetv2.evaluation.label_scores import with_label_metrics
    from efficientnetv2.reporting.evaluation_report import report_evaluation
    from efficientnetv2.reporting.run_page import write_run_page

    thresholds = result.thresholds
    if thresholds is None and label_kind(config) == SEVERAL:
        thresholds = np.array(run.thresholds(result.names))
    if thresholds is not None:
        metrics = with_label_metrics(result.metrics, result.predictions, thresholds)
        result = dataclasses.replace(result, metrics=metrics, thresholds=thresholds)
    report_evaluation(config, run, result, eval_name=eval_name)
    page = write_run_page(config, run, result, eval_name=eval_name)
    print(f"to look at in a browser: {page}")
    return result.metrics


def _run_with_split(config: Config, run: RunDirectory) -> RunDirectory:
    """Returns where the split of the images is kept: beside a training on others, in a folder."""
    if not run.config_file.exists():
        return run
    trained = run.config()
    is_same = (trained.data.ds_name, trained.data.data_dir) == (
        config.data.ds_name,
        config.data.data_dir,
    )
    return run if is_same else RunDirectory(run.path / "pretrained")


def _trained_on(class_names: list[str], config: Config) -> RunDirectory | None:
    """Returns the run that ``train.ft_init_ckpt`` names, if it does, and checks its classes.

    Raises:
      UserError: if they are not those of the data, in the same order.
    """
    run = whole_run(config.train.ft_init_ckpt)
    if run is None:
        return None
    for number, names in enumerate(zip(run.class_names(), class_names)):
        if names[0] != names[1]:
            raise UserError(
                f"class {number} is '{names[0]}' in '{run.labels_file}', but '{names[1]}' in the "
                "data; evaluate on data of the same classes"
            )
    return run
