"""A run directory or pretrained weights in; the network with them, ready to be used, out."""

from __future__ import annotations

import dataclasses

from tensorflow import keras

from efficientnetv2.model.checkpoints.loading import Report
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.pretrained import load_pretrained
from efficientnetv2.train.checkpoint_files import latest_checkpoint
from efficientnetv2.train.learner import Learner
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import best_weights, has_average, load_weights
from hparams.errors import UserError
from hparams.resolve import Config
from hparams.weights import RANDOM, imagenet_classes


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network that has learnt something.

    Attributes:
      model: stock layers; normalised images float32 ``[B, H, W, C]`` to logits ``[B, K]``.
      config: how images are cropped, resized and normalised for it.
      class_names: K names, in the order of the logits.
      origin: where its weights come from, for people.
    """

    model: keras.Model
    config: Config
    class_names: list[str]
    origin: str


def open_trained(config: Config, run: RunDirectory | None) -> Trained:
    """Opens a run, or the pretrained weights that ``train.ft_init_ckpt`` names.

    Of a run the best weights on minival are taken if there are any, or else the newest.

    Of raw weights and moving average the one that was better on minival is taken; where minival
    was not measured, the moving average.

    Args:
      config: of the run.
      run: holds a checkpoint; None: pretrained weights.

    Raises:
      UserError: if there are none that can be read, or the classes' names do not fit the network.
    """
    if run is None:
        return _pretrained(config)
    class_names = run.class_names()
    if len(class_names) != config.model.num_classes:
        raise UserError(
            f"'{run.labels_file}' names {len(class_names)} classes, but the network has "
            f"{config.model.num_classes}"
        )
    best = best_weights(run)
    checkpoint = best.checkpoint if best else latest_checkpoint(run)
    average = best.is_average if best else has_average(checkpoint)
    model = build_model(config.model)
    load_weights(model, checkpoint, average=average)
    kind = "moving average" if average else "raw weights"
    return Trained(model, config, class_names, f"{kind} of '{checkpoint}'")


def _pretrained(config: Config) -> Trained:
    model = build_model(config.model)
    report = load_pretrained(model, config.model, config.train.ft_init_ckpt)
    names = imagenet_classes()
    if len(names) != config.model.num_classes:
        names = [f"class {number}" for number in range(config.model.num_classes)]
    return Trained(model, config, names, str(report))


def start_from_pretrained(config: Config, learner: Learner) -> Report | None:
    """Loads what ``train.ft_init_ckpt`` names into a training that has not begun.

    Where the weights are of other classes, the classifier is new. The moving average begins at the
    loaded weights.

    Returns:
      What was loaded; None: nothing was asked for, or the training goes on with its own weights.

    Raises:
      UserError: as ``load_pretrained``.
    """
    weights = config.train.ft_init_ckpt
    if weights in (None, RANDOM) or learner.step:
        return None
    report = load_pretrained(learner.model, config.model, weights, new_classifier=True)
    if learner.average is not None:
        learner.average.restart()
    return report
