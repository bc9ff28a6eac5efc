"""A configuration and a run or pretrained weights in; what they are worth, reported, out."""

from __future__ import annotations

from tensorflow import keras

from efficientnetv2.answering import report_answers
from efficientnetv2.answers import Answers, calibration_error
from efficientnetv2.data.evaluation import EvaluationInput
from efficientnetv2.evaluate import Evaluator
from efficientnetv2.following import new_checkpoints
from efficientnetv2.model.factory import build_model
from efficientnetv2.opening import open_data, open_evaluator, open_split, settings_sum
from efficientnetv2.report.results import Metrics, keep_result, report_result, result_file
from efficientnetv2.train.checkpoint_files import is_whole
from efficientnetv2.train.lock import holder
from efficientnetv2.train.run_directory import RunDirectory, RunError
from efficientnetv2.train.saving import has_average, load_weights
from efficientnetv2.train.workers import Workers, build_workers
from efficientnetv2.trained import open_trained
from efficientnetv2.validate import measure
from hparams.resolve import Config


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
    workers = build_workers(config)
    with workers.one_line():
        with workers.chief_first():
            config, source = open_data(config, run, is_chief=workers.is_chief)
        workers.require_same(settings_sum(config))
        images = open_split(config, source, run, split=config.data.eval_split)
        with workers.strategy.scope():
            model = build_model(config.model)
        evaluator = open_evaluator(config, model, strategy=workers.strategy)
        metrics: Metrics = {}
        answers: dict[str, Answers] = {}
        while checkpoint is not None:
            try:
                metrics, answers = _evaluate_checkpoint(
                    checkpoint, model, evaluator, images, workers
                )
            except RunError:
                # The training keeps but a few checkpoints; this one may be gone by now.
                if not follows or is_whole(checkpoint):
                    raise
            else:
                if follows:
                    keep_result(config, run, metrics, eval_name=eval_name, checkpoint=checkpoint)
            # Several processes would see new ones at different times.
            checkpoint = next(checkpoints, None) if workers.alone else None
    if not metrics:
        raise RunError(f"no checkpoint of '{run.checkpoints}' stayed long enough to be evaluated")
    if workers.is_chief:
        _report(config, run, images, metrics, answers, source.class_names, eval_name=eval_name)
    return 0


def _report(
    config: Config,
    run: RunDirectory,
    images: EvaluationInput,
    metrics: Metrics,
    answers: dict[str, Answers],
    names: list[str],
    *,
    eval_name: str | None,
) -> None:
    """Reports the metrics, and of the averaged weights, or else the raw ones, each class."""
    report_result(config, run, metrics, eval_name=eval_name)
    files = [result_file(run, eval_name).name]
    if not config.data.multi_label and answers:
        last = list(answers)[-1]
        kind = {"ema": "moving average"}.get(last, "raw weights")
        files += report_answers(
            config, run, images, answers[last], names, weights=kind, eval_name=eval_name
        )
    print(f"\nwritten to {run.path}: {', '.join(files)}")


def _measured(
    evaluator: Evaluator, images: EvaluationInput, workers: Workers
) -> tuple[dict[str, float], Answers | None]:
    """Returns the metrics, and what the network said; None: there are no images."""
    said: list[Answers] = []
    metrics = measure(evaluator, images, workers=workers, answers=said)
    if not said:
        return metrics, None
    return {**metrics, "ece": calibration_error(said[0])}, said[0]


def _evaluate_checkpoint(
    checkpoint: str,
    model: keras.Model,
    evaluator: Evaluator,
    images: EvaluationInput,
    workers: Workers,
) -> tuple[Metrics, dict[str, Answers]]:
    # All is read before the long work: a training may remove the checkpoint meanwhile.
    weights = {}
    for name in ("raw", "ema") if has_average(checkpoint) else ("raw",):
        load_weights(model, checkpoint, average=name == "ema")
        weights[name] = model.get_weights()
    metrics, answers = {}, {}
    for name, values in weights.items():
        model.set_weights(values)
        metrics[name], said = _measured(evaluator, images, workers)
        if said is not None:
            answers[name] = said
    return metrics, answers


def evaluate_pretrained(config: Config, run: RunDirectory, *, eval_name: str | None) -> int:
    """Evaluates the weights that ``train.ft_init_ckpt`` names; other arguments as ``evaluate``."""
    workers = build_workers(config)
    with workers.one_line():
        with workers.chief_first():
            config, source = open_data(config, run, is_chief=workers.is_chief)
        images = open_split(config, source, run, split=config.data.eval_split)
        with workers.strategy.scope():
            trained = open_trained(config, None)
        evaluator = open_evaluator(config, trained.model, strategy=workers.strategy)
        metrics, said = _measured(evaluator, images, workers)
    if workers.is_chief:
        print(trained.origin)
        run.create()
        answers = {} if said is None else {"raw": said}
        names = source.class_names
        _report(config, run, images, {"raw": metrics}, answers, names, eval_name=eval_name)
    return 0
