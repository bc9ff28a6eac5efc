"""The work of each mode: a checked configuration and a run directory in; an exit code out."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from efficientnetv2.data.pipeline import build_evaluation_batches
from efficientnetv2.data.sources import Source, open_source
from efficientnetv2.evaluate import build_evaluator
from efficientnetv2.infer import predict
from efficientnetv2.model.factory import build_model
from efficientnetv2.report.plots import plot_curves
from efficientnetv2.report.progress import ProgressBar
from efficientnetv2.report.tables import table
from efficientnetv2.train.loop import Training
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import (
    BestCheckpoint,
    has_average,
    latest_checkpoint,
    load_weights,
)
from efficientnetv2.train.step import Learner
from hparams.errors import UserError
from hparams.resolve import Config

Metrics = dict[str, dict[str, float]]  # "raw" and "ema" -> images, loss, top1, top5


def train(
    config: Config,
    run: RunDirectory,
    *,
    validate: bool,
    archive_best: bool,
    eval_name: str | None,
) -> int:
    """Trains to the end and evaluates on the final split.

    Args:
      config: of the training.
      run: new, or holding an unfinished training of the same configuration.
      validate: also evaluate on the minival split after each epoch.
      archive_best: with ``validate``: keep the best of these in ``best/``.
      eval_name: as in ``evaluate``.

    Returns:
      0, or 128 + N when signal N stopped it.
    """
    source = _open(config)
    run.start(config, source.class_names)
    bar = ProgressBar(batch_size=config.train.batch_size, epochs=config.train.epochs)
    training = Training(config, source, run=run, observer=bar)
    _announce(config, run, source, training=training)
    evaluator = build_evaluator(training.learner.model)
    after_epoch = None
    if validate:
        best = BestCheckpoint(training.learner, run.best) if archive_best else None
        minival = build_evaluation_batches(config, source, split=config.data.minival_split)
        after_epoch = _validator(training.learner, evaluator, minival, best=best)
    stopped_by = training.run(after_epoch=after_epoch)
    _draw(config, run)
    if stopped_by is not None:
        total = config.train.epochs * training.steps_per_epoch
        print(
            f"stopped after step {training.learner.step} of {total}; saved in {run.path}; "
            "the same command goes on from there"
        )
        return 128 + stopped_by
    batches = build_evaluation_batches(config, source, split=config.data.eval_split)
    _report(config, run, _evaluate_learner(training.learner, evaluator, batches), eval_name)
    print(
        f"\nwritten to {run.path}: checkpoints/, {'best/, ' if archive_best else ''}config.yaml, "
        "labels.txt, metrics.jsonl, "
        f"{run.curves_file.name}, tensorboard/, {_eval_file(run, eval_name).name}"
    )
    return 0


def evaluate(config: Config, run: RunDirectory, *, eval_name: str | None) -> int:
    """Evaluates the newest checkpoint on the final split, raw and averaged weights.

    Args:
      config: of the run.
      run: holds a checkpoint.
      eval_name: results go to ``eval_<eval_name>.json``; None: ``eval.json``.
    """
    checkpoint = latest_checkpoint(run)
    source = _open(config)
    batches = build_evaluation_batches(config, source, split=config.data.eval_split)
    model = build_model(config.model)
    evaluator = build_evaluator(model)
    metrics: Metrics = {}
    for name in ("raw", "ema") if has_average(checkpoint) else ("raw",):
        load_weights(model, checkpoint, average=name == "ema")
        metrics[name] = evaluator(batches)
    _report(config, run, metrics, eval_name)
    print(f"\nwritten to {_eval_file(run, eval_name)}")
    return 0


def infer(config: Config, run: RunDirectory, images: Sequence[pathlib.Path], *, top_k: int) -> int:
    """Prints the most probable classes of images, by the averaged weights if there are any."""
    checkpoint = latest_checkpoint(run)
    model = build_model(config.model)
    load_weights(model, checkpoint, average=has_average(checkpoint))
    rows = []
    for prediction in predict(model, config, images, class_names=run.class_names(), top_k=top_k):
        best = [f"{name} {probability:.1%}" for name, probability in prediction.classes]
        rows.append([str(prediction.path), *best])
    places = [str(place) for place in range(1, len(rows[0]))]
    print(table(["image", *places], rows))
    return 0


def _open(config: Config) -> Source:
    source = open_source(config.data.tfds_name, data_dir=config.data.data_dir)
    if len(source.class_names) != config.model.num_classes:
        raise UserError(
            f"model.num_classes is {config.model.num_classes}, but {config.data.ds_name} has "
            f"{len(source.class_names)} classes"
        )
    return source


def _announce(config: Config, run: RunDirectory, source: Source, *, training: Training) -> None:
    parameters = training.learner.model.count_params()
    sizes = " -> ".join(f"{stage.image_size}" for stage in training.plan)
    images = source.num_images(config.data.train_split)
    print(
        f"{config.model.model_name} ({parameters:,} parameters) on {config.data.ds_name}: "
        f"{images:,} images, {config.train.epochs} epochs of {training.steps_per_epoch} steps, "
        f"batch {config.train.batch_size}, image size {sizes} px\nwriting to {run.path}",
        flush=True,
    )
    if training.learner.step:
        total = config.train.epochs * training.steps_per_epoch
        print(f"going on after step {training.learner.step} of {total}", flush=True)


def _evaluate_learner(
    learner: Learner,
    evaluator: Callable[[tf.data.Dataset], dict[str, float]],
    batches: tf.data.Dataset,
) -> Metrics:
    metrics = {"raw": evaluator(batches)}
    if learner.average is not None:
        with learner.average.swapped():
            metrics["ema"] = evaluator(batches)
    return metrics


def _validator(
    learner: Learner,
    evaluator: Callable[[tf.data.Dataset], dict[str, float]],
    batches: tf.data.Dataset,
    *,
    best: BestCheckpoint | None,
) -> Callable[[], dict[str, float]]:
    def after_epoch() -> dict[str, float]:
        metrics = _evaluate_learner(learner, evaluator, batches)
        line = {
            f"minival{'_ema' if name == 'ema' else ''}_{key}": values[key]
            for name, values in metrics.items()
            for key in ("loss", "top1", "top5")
        }
        if best is not None:
            best.offer({name: values["top1"] for name, values in metrics.items()})
        return line

    return after_epoch


def _draw(config: Config, run: RunDirectory) -> None:
    title = f"{config.model.model_name} on {config.data.ds_name}"
    plot_curves(run.metrics(), run.curves_file, title=title)


def _eval_file(run: RunDirectory, eval_name: str | None) -> pathlib.Path:
    return run.path / (f"eval_{eval_name}.json" if eval_name else "eval.json")


def _report(config: Config, run: RunDirectory, metrics: Metrics, eval_name: str | None) -> None:
    """Prints the metrics as a table and writes them as JSON."""
    split = config.data.eval_split
    result = {"data_set": config.data.ds_name, "split": split, **metrics}
    _eval_file(run, eval_name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    names = {"raw": "raw", "ema": "EMA"}
    rows = [
        [names[name], f"{m['top1']:.4f}", f"{m['top5']:.4f}", f"{m['loss']:.4f}"]
        for name, m in metrics.items()
    ]
    print(f"\n{config.data.ds_name}, split {split}, {metrics['raw']['images']:,} images")
    print(table(["weights", "top-1", "top-5", "loss"], rows))
