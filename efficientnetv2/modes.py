"""The work of each mode: a checked configuration and a run directory in; an exit code out."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.broken import SkippedLog
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.data.sources import Source, build_source
from efficientnetv2.evaluate import Evaluator, build_evaluator
from efficientnetv2.following import new_checkpoints
from efficientnetv2.infer import predict
from efficientnetv2.model.factory import build_model
from efficientnetv2.preview import preview_rows
from efficientnetv2.report.pictures import draw_preview, draw_schedule
from efficientnetv2.report.plots import plot_curves
from efficientnetv2.report.progress import ProgressBar
from efficientnetv2.report.results import (
    Metrics,
    data_name,
    keep_result,
    report_result,
    result_file,
)
from efficientnetv2.report.tables import table
from efficientnetv2.train.checkpoint_files import is_whole, latest_checkpoint
from efficientnetv2.train.learner import Learner
from efficientnetv2.train.lock import holder
from efficientnetv2.train.loop import Training
from efficientnetv2.train.run_directory import RunDirectory, RunError
from efficientnetv2.train.saving import BestCheckpoint, has_average, load_weights
from efficientnetv2.train.stages import build_stages
from efficientnetv2.train.stopping import StopRequest
from hparams.errors import UserError
from hparams.resolve import Config, require_full_batch, with_facts

_PREVIEW_COLUMNS = 8


def train(
    config: Config,
    run: RunDirectory,
    *,
    validate: bool,
    archive_best: bool,
    eval_name: str | None,
    stop: StopRequest,
) -> int:
    """Trains to the end and evaluates on the final split.

    Args:
      config: of the training.
      run: new, or holding an unfinished training of the same configuration.
      validate: also evaluate on the minival split after each epoch.
      archive_best: with ``validate``: keep the best of these in ``best/``.
      eval_name: as in ``evaluate``.
      stop: the signals that stop it.

    Returns:
      0, or 128 + N when signal N stopped it.

    Raises:
      Stopped: if a signal came before the first step or after the last; all is saved.
    """
    config, source = _open(config, run)
    run.require_same(config)
    require_full_batch(config, num_images=source.num_images(config.data.train_split))
    run.start(config, source.class_names)
    bar = ProgressBar()
    training = Training(config, source, run=run, observer=bar, stop=stop)
    _announce(config, run, source, training=training)
    evaluator = _evaluator(config, training.learner.model, strategy=training.strategy)
    after_epoch = None
    if validate:
        best = BestCheckpoint(training.learner, run) if archive_best else None
        minival = _input(config, source, run, split=config.data.minival_split)
        after_epoch = _validator(training.learner, evaluator, minival, best=best, stop=stop)
    stopped_by = training.run(after_epoch=after_epoch)
    _draw(config, run)
    done = f"after step {training.learner.step} of {training.plan[-1].end_step}"
    if stopped_by is not None:
        print(f"stopped {done}; saved in {run.path}; the same command goes on from there")
        return 128 + stopped_by
    if training.learner.step < training.plan[-1].end_step:
        print(f"ended {done}: no better minival top-1 in {config.train.patience} epochs")
    images = _input(config, source, run, split=config.data.eval_split)
    metrics = _evaluate_learner(training.learner, evaluator, images)
    report_result(config, run, metrics, eval_name=eval_name)
    print(
        f"\nwritten to {run.path}: checkpoints/, {'best/, ' if archive_best else ''}config.yaml, "
        "labels.txt, metrics.jsonl, "
        f"{run.curves_file.name}, tensorboard/, {result_file(run, eval_name).name}"
    )
    return 0


def evaluate(config: Config, run: RunDirectory, *, eval_name: str | None) -> int:
    """Evaluates the newest checkpoint on the final split, raw and averaged weights.

    While a training runs there, each checkpoint that it saves is evaluated, one line each goes to
    eval.jsonl, and the last one counts.

    Args:
      config: of the run.
      run: holds a checkpoint, or a training.
      eval_name: results go to ``eval_<eval_name>.json``; None: ``eval.json``.
    """
    follows = holder(run.lock_file) is not None
    checkpoints = new_checkpoints(run)
    checkpoint: str | None = next(checkpoints)
    config, source = _open(config, run)
    images = _input(config, source, run, split=config.data.eval_split)
    model = build_model(config.model)
    evaluator = _evaluator(config, model)
    metrics: Metrics = {}
    while checkpoint is not None:
        try:
            metrics = _evaluate_checkpoint(checkpoint, model, evaluator, images)
        except RunError:
            # The training keeps but a few checkpoints; this one may be gone by now.
            if not follows or is_whole(checkpoint):
                raise
        else:
            if follows:
                keep_result(config, run, metrics, eval_name=eval_name, checkpoint=checkpoint)
        checkpoint = next(checkpoints, None)
    if not metrics:
        raise RunError(f"no checkpoint of '{run.checkpoints}' stayed long enough to be evaluated")
    report_result(config, run, metrics, eval_name=eval_name)
    print(f"\nwritten to {result_file(run, eval_name)}")
    return 0


def _evaluate_checkpoint(
    checkpoint: str, model: keras.Model, evaluator: Evaluator, images: EvaluationInput
) -> Metrics:
    # All is read before the long work: a training may remove the checkpoint meanwhile.
    weights = {}
    for name in ("raw", "ema") if has_average(checkpoint) else ("raw",):
        load_weights(model, checkpoint, average=name == "ema")
        weights[name] = model.get_weights()
    metrics = {}
    for name, values in weights.items():
        model.set_weights(values)
        metrics[name] = _measure(evaluator, images)
    return metrics


def infer(config: Config, run: RunDirectory, images: Sequence[pathlib.Path], *, top_k: int) -> int:
    """Prints the most probable classes of images, by the averaged weights if there are any."""
    checkpoint, class_names = latest_checkpoint(run), run.class_names()
    if len(class_names) != config.model.num_classes:
        raise UserError(
            f"'{run.labels_file}' names {len(class_names)} classes, but the network has "
            f"{config.model.num_classes}"
        )
    model = build_model(config.model)
    load_weights(model, checkpoint, average=has_average(checkpoint))
    rows = []
    for prediction in predict(model, config, images, class_names=class_names, top_k=top_k):
        best = [f"{name} {probability:.1%}" for name, probability in prediction.classes]
        rows.append([str(prediction.path), *best])
    places = [str(place) for place in range(1, len(rows[0]))]
    print(table(["image", *places], rows))
    return 0


def preview(config: Config, run: RunDirectory) -> int:
    """Draws ``preview.png`` and ``schedule.png``: what the network will see, and when."""
    config, source = _open(config, run)
    run.create()
    num_images = source.num_images(config.data.train_split)
    require_full_batch(config, num_images=num_images)
    plan = build_stages(config, num_images=num_images)
    title = f"{config.model.model_name} on {data_name(config)}"
    rows = preview_rows(config, source, plan, columns=min(_PREVIEW_COLUMNS, num_images))
    draw_preview(rows, run.path / "preview.png", title=f"{title}: what the network sees")
    written = ["preview.png"]
    if config.train.size_schedule != "random":  # the other schedules are one line over the epochs
        draw_schedule(plan, run.path / "schedule.png", title=f"{title}: schedule")
        written.append("schedule.png")
    for row in rows:
        print(f"{row.title}: {', '.join(row.strengths)}")
    print(f"\nwritten to {run.path}: {', '.join(written)}")
    return 0


def _open(config: Config, run: RunDirectory) -> tuple[Config, Source]:
    """Opens the data set, and completes the configuration with what only the data set tells."""
    if config.data.source == "folder":
        run.create()  # the split of the images is written there
    source = build_source(config, listing_file=run.split_file)
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


def _input(config: Config, source: Source, run: RunDirectory, *, split: str) -> EvaluationInput:
    return EvaluationInput(config, source, split=split, skipped=SkippedLog(run.bad_images_file))


def _evaluator(
    config: Config, model: keras.Model, *, strategy: tf.distribute.Strategy | None = None
) -> Evaluator:
    return build_evaluator(
        model,
        loss_type=config.train.loss_type,
        multi_label=config.data.multi_label,
        strategy=strategy,
    )


def _measure(
    evaluator: Evaluator, images: EvaluationInput, stop: StopRequest | None = None
) -> dict[str, float]:
    with stop.at_once() if stop else contextlib.nullcontext():
        try:
            return evaluator(images.batches())
        except tf.errors.OpError as error:
            images.raise_bad_image(error)


def _announce(config: Config, run: RunDirectory, source: Source, *, training: Training) -> None:
    parameters = training.learner.model.count_params()
    last = training.plan[-1]
    sizes = " -> ".join(f"{stage.image_size}" for stage in training.plan)
    if config.train.size_schedule == "random":
        sizes = f"{config.data.ibase} to {last.image_size}, at random"
    images = source.num_images(config.data.train_split)
    print(
        f"{config.model.model_name} ({parameters:,} parameters) on {data_name(config)}: "
        f"{images:,} images of {source.num_classes} classes, {last.end_epoch} epochs of "
        f"{last.steps_per_epoch} steps, batch {config.train.batch_size}, image size {sizes} px\n"
        f"writing to {run.path}",
        flush=True,
    )
    if training.learner.step:
        print(f"going on after step {training.learner.step} of {last.end_step}", flush=True)


def _evaluate_learner(
    learner: Learner,
    evaluator: Evaluator,
    images: EvaluationInput,
    stop: StopRequest | None = None,
) -> Metrics:
    metrics = {"raw": _measure(evaluator, images, stop)}
    if learner.average is not None:
        with learner.average.swapped():  # never stopped half way
            metrics["ema"] = _measure(evaluator, images, stop)
    return metrics


def _validator(
    learner: Learner,
    evaluator: Evaluator,
    images: EvaluationInput,
    *,
    best: BestCheckpoint | None,
    stop: StopRequest,
) -> Callable[[], dict[str, float]]:
    def after_epoch() -> dict[str, float]:
        metrics = _evaluate_learner(learner, evaluator, images, stop)
        line = {
            f"minival{'_ema' if name == 'ema' else ''}_{key}": values[key]
            for name, values in metrics.items()
            for key in values
            if key != "images"
        }
        if best is not None:
            best.offer({name: values["top1"] for name, values in metrics.items()})
        return line

    return after_epoch


def _draw(config: Config, run: RunDirectory) -> None:
    title = f"{config.model.model_name} on {data_name(config)}"
    plot_curves(run.metrics(), run.curves_file, title=title)
