"""Averages the weights of several trainings into a new run directory: ``--mode=average``."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from efficientnetv2.commands import Outcome
from efficientnetv2.runtime.atomic_write import replace_text
from efficientnetv2.runtime.checkpoint_store import require_usable
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from efficientnetv2.runtime.weights_run import whole_run
from hparams.config import Config
from hparams.errors import UserError, shown
from hparams.label_kinds import METRICS, best_metric
from hparams.quantisation import is_quantised
from hparams.resolve import flat

if TYPE_CHECKING:
    import numpy as np
    from absl.flags import FlagValues
    from tensorflow import keras

    from efficientnetv2.data.sources import Source
    from efficientnetv2.evaluation.weight_average import BatchNormEstimator, Ingredient

RECORD = "average.json"
# Settings of the network that only its training uses.
_OF_TRAINING = (
    *("model.bn_momentum", "model.bn_type", "model.bn_mode", "model.survival_prob"),
    *("model.dropout_rate", "model.dropout_base"),
)
# What must agree besides the network: how it sees images, and which ones it was not trained on.
_OF_DATA = (
    *("eval.isize", "data.resize", "data.multi_label", "train.loss_type", "data.ds_name"),
    *("data.train_split", "data.minival_split", "data.eval_split", "data.fold"),
)
_MOST_IMAGES = 1024  # to estimate BatchNorm's statistics on, of up to 224 px
_PIXELS = _MOST_IMAGES * 224 * 224


def run(values: FlagValues, stop: StopRequest) -> Outcome:
    """Averages the trainings that the flags name; the value is the path of the new run."""
    del stop
    runs = [_run(name) for name in values.runs]
    if len(runs) < 2:
        raise UserError(
            "--mode=average needs at least two trainings: average runs/a runs/b --model_dir=runs/c"
        )
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"'{path}' is named {paths.count(path)} times; name each training once")
    if values.model_dir is None:
        raise UserError("--model_dir is missing; give a new folder for the average")
    target = RunDirectory(values.model_dir)
    if target.path.exists() and any(target.path.iterdir()):
        raise UserError(f"--model_dir='{target.path}' is not empty; give a new folder")
    configs = [run.config() for run in runs]
    for run, config in zip(runs, configs):
        if is_quantised(config):
            raise UserError(
                f"'{run.path}' was trained in 8 bits (train.quantise={config.train.quantise}) and "
                "cannot be averaged; average float runs"
            )
    for other, config in zip(runs[1:], configs[1:]):
        _require_alike(runs[0], configs[0], other, config)
    import_tensorflow()
    ingredients, step = average(
        configs[0], runs, target, soup=values.soup, estimates=values.batchnorm == "estimated"
    )
    _report(ingredients, configs[0], target, soup=values.soup, step=step)
    return Outcome(target.path)


def _run(name: str) -> RunDirectory:
    run = whole_run(name.strip())
    if run is None:
        raise UserError(f"{shown(name)} is no run directory: it has no config.yaml")
    require_usable(run)
    return run


def _require_alike(
    first: RunDirectory, config: Config, other: RunDirectory, other_config: Config
) -> None:
    """Checks that two trainings have the same network, classes and split of the images."""
    values, others = flat(config), flat(other_config)
    for key, value in values.items():
        is_network = key.startswith("model.") and key not in _OF_TRAINING
        if (is_network or key in _OF_DATA) and others[key] != value:
            raise UserError(
                f"only trainings of one network on the same data can be averaged: {key} is "
                f"{shown(value)} in '{first.path}', but {shown(others[key])} in '{other.path}'"
            )
    names, other_names = first.class_names(), other.class_names()
    if names != other_names:
        pairs = enumerate(zip(names, other_names))
        number = next((i for i, (a, b) in pairs if a != b), min(len(names), len(other_names)))
        raise UserError(
            f"the classes of '{first.path}' and '{other.path}' differ, from class {number} on"
        )
    if _split(first) != _split(other):
        raise UserError(
            f"'{first.path}' and '{other.path}' divide the images differently (split.csv), so that "
            "one has been trained on what the other is tested on; put split.csv of one into the "
            "run directory of the other before its training"
        )


def _split(run: RunDirectory) -> bytes | None:
    return run.split_file.read_bytes() if run.split_file.exists() else None


def average(
    config: Config,
    runs: Sequence[RunDirectory],
    target: RunDirectory,
    *,
    soup: str,
    estimates: bool,
) -> tuple[list[Ingredient], int]:
    """Averages trainings, and writes the network into a new run directory.

    Of each training, the weights are those that prediction and export use.

    Args:
      config: of the first training; the others have the same network, data and classes.
      runs: the trainings.
      target: a new run directory.
      soup: ``greedy`` or ``uniform``.
      estimates: BatchNorm statistics are estimated on training images; otherwise averaged.

    Returns:
      The trainings in the order in which they were tried, and the step of the new checkpoint.
    """
    import tensorflow as tf

    from efficientnetv2.evaluation.loaded_model import load_trained
    from efficientnetv2.evaluation.weight_average import (
        Ingredient,
        greedy_soup,
        mean_weights,
        uniform_soup,
    )
    from efficientnetv2.runtime import checkpoint_store
    from efficientnetv2.train.train_state import named_weights

    minival = _open_minival(config, runs[0], estimates=estimates)
    ingredients = []
    for run in runs:
        loaded = load_trained(run.config(), run)
        weights = loaded.model.get_weights()
        score = minival.score(weights, as_average=False)
        ingredients.append(Ingredient(str(run.path), weights, loaded.origin, score))
    make = greedy_soup if soup == "greedy" else uniform_soup
    ingredients = make(ingredients, minival.score)
    used = [one.weights for one in ingredients if one.is_used]
    minival.set_weights(mean_weights(used), as_average=len(used) > 1)
    folders = [folder for run in runs for folder in (run.checkpoints, run.best)]
    step = max(number for folder in folders for number in checkpoint_store.steps(folder))
    target.start(minival.config, minival.class_names)
    if runs[0].split_file.exists():
        shutil.copyfile(runs[0].split_file, target.split_file)
    checkpoint = tf.train.Checkpoint(weights=named_weights(minival.model))
    checkpoint_store.write(target.checkpoints, step, checkpoint.write)
    return ingredients, step


@dataclasses.dataclass(frozen=True)
class _Minival:
    """A network, and how it is evaluated on the minival split.

    Attributes:
      config: complete.
      class_names: those of the data.
      model: gets the weights.
      evaluate: returns the metric of the model.
      estimate: replaces its BatchNorm statistics; None: they are averaged as the weights are.
    """

    config: Config
    class_names: list[str]
    model: keras.Model
    evaluate: Callable[[], float]
    estimate: BatchNormEstimator | None

    def set_weights(self, weights: list[np.ndarray], *, as_average: bool = True) -> None:
        self.model.set_weights(weights)
        if as_average and self.estimate is not None:
            self.estimate()

    def score(self, weights: list[np.ndarray], *, as_average: bool = True) -> float:
        self.set_weights(weights, as_average=as_average)
        return self.evaluate()


def _open_minival(config: Config, run: RunDirectory, *, estimates: bool) -> _Minival:
    from efficientnetv2.data.open_data import open_data, open_split
    from efficientnetv2.evaluation.evaluator import evaluate_split, open_evaluator
    from efficientnetv2.evaluation.weight_average import BatchNormEstimator
    from efficientnetv2.model.factory import build_model
    from efficientnetv2.train.workers import build_workers

    workers, metric = build_workers(config), best_metric(config)
    config, source = open_data(config, run)
    images = open_split(config, source, run, split=config.data.minival_split)
    with workers.strategy.scope():
        model = build_model(config.model)
    evaluator = open_evaluator(config, model, strategy=workers.strategy)

    def evaluate() -> float:
        return float(evaluate_split(evaluator, images, workers=workers)[metric])

    estimate = None
    if estimates:
        batch = config.eval.batch_size
        estimate = BatchNormEstimator(model, _training_images(config, source), batch_size=batch)
    return _Minival(config, list(source.class_names), model, evaluate, estimate)


def _training_images(config: Config, source: Source) -> np.ndarray:
    """Returns normalised images of the training split, not augmented, in random order."""
    import numpy as np

    from efficientnetv2.data.preprocess import normalise
    from efficientnetv2.data.sample_images import split_images
    from hparams.channels import normalisation_of

    limit = max(64, min(_MOST_IMAGES, _PIXELS // config.eval.isize**2))
    images = split_images(config, source, split=config.data.train_split, limit=limit)
    order = np.random.default_rng(0).permutation(len(images.pixels))
    normalised: np.ndarray = normalise(images.pixels[order], normalisation_of(config.model)).numpy()
    return normalised


def _report(
    ingredients: Sequence[Ingredient],
    config: Config,
    target: RunDirectory,
    *,
    soup: str,
    step: int,
) -> None:
    from efficientnetv2.reporting.tables import table

    title = METRICS[best_metric(config)].title
    rows = [
        [
            one.name,
            f"{one.score:.4f}",
            "" if one.together is None else f"{one.together:.4f}",
            "yes" if one.is_used else "no",
        ]
        for one in ingredients
    ]
    print(f"{table(['training', f'minival {title}', 'average with it', 'part of it'], rows)}\n")
    record = {
        "soup": soup,
        "metric": best_metric(config),
        "step": step,
        "trainings": [
            {
                "run": one.name,
                "weights": one.origin,
                "minival": one.score,
                "average_with_it": one.together,
                "is_used": one.is_used,
            }
            for one in ingredients
        ],
    }
    replace_text(target.path / RECORD, json.dumps(record, indent=2) + "\n")
    count = sum(one.is_used for one in ingredients)
    if count == 1:
        print("no other training improved the best one; the average is that one alone")
    print(f"average of {count} trainings written to {pathlib.Path(target.path)}", flush=True)
