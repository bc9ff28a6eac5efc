"""Loads a trained network from a run directory or from pretrained weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from tensorflow import keras

from efficientnetv2.checkpoints.loader import load_weights as load_weights_of_file
from efficientnetv2.checkpoints.pretrained_model import stored_weights
from efficientnetv2.checkpoints.reader import StoredWeights
from efficientnetv2.evaluation.image_prediction import numbered_class_names
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime.best_weights import best_weights
from efficientnetv2.runtime.checkpoint_store import latest_checkpoint
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.weights_run import run_of_weights
from efficientnetv2.train.checkpoint_manager import has_average, load_weights
from efficientnetv2.train.quantised_network import build_trained_network
from hparams.config import Config
from hparams.errors import WeightsError
from hparams.label_kinds import DEFAULT_THRESHOLD, SEVERAL, label_kind
from hparams.resolve import with_facts
from hparams.weights import imagenet_classes


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A network with trained weights.

    Attributes:
      model: made of stock Keras layers, or of a run with ``train.quantise`` the network that
        computes as its 8-bit file; maps normalised images float32 ``[B, H, W, C]`` to logits
        ``[B, K]``.
      config: says how images are cropped, resized and normalised for it.
      class_names: K names, in the order of the logits.
      origin: where its weights come from, as text for messages.
      thresholds: float32 ``[K]``, from which probability on an image has a class, where it may have
        several; None: it has one, or numbers.
      is_average: the weights are the moving average of a training.
    """

    model: keras.Model
    config: Config
    class_names: list[str]
    origin: str
    thresholds: np.ndarray | None = None
    is_average: bool = False


def load_trained(config: Config, run: RunDirectory | None) -> LoadedModel:
    """Loads the network of a run, or the pretrained weights that ``train.ft_init_ckpt`` names.

    Where ``model.num_classes`` is not set, pretrained weights have as many classes as their file.
    From a run it takes the checkpoint that was best on minival, or else the newest one. Of its raw
    weights and its moving average it takes what was better on minival, or else the moving average.

    Args:
      config: the config of the run.
      run: holds a checkpoint; None: load pretrained weights.

    Raises:
      UserError: if no weights can be read, or the class names do not fit the network.
    """
    if run is None:
        return _pretrained(config)
    class_names = run.require_labels(config.model.num_classes)
    best = best_weights(run)
    checkpoint = best.checkpoint if best else latest_checkpoint(run)
    average = best.is_average if best else has_average(checkpoint)
    model = build_trained_network(config)
    load_weights(model, checkpoint, average=average)
    kind = "moving average" if average else "raw weights"
    thresholds = run.thresholds(class_names) if label_kind(config) == SEVERAL else None
    origin = f"{kind} of '{checkpoint}'"
    return LoadedModel(model, config, class_names, origin, _as_array(thresholds), average)


def _pretrained(config: Config) -> LoadedModel:
    weights = config.train.ft_init_ckpt
    assert weights is not None  # --weights was given
    stored = stored_weights(config.model, weights)
    if config.model.num_classes is None:  # as many as the file has
        config = with_facts(config, {"model.num_classes": _num_classes(stored)})
    model = build_model(config.model)
    report = load_weights_of_file(model, stored)
    names = _class_names(weights, config.model.num_classes)
    is_several = label_kind(config) == SEVERAL
    thresholds = [DEFAULT_THRESHOLD] * len(names) if is_several else None
    return LoadedModel(model, config, names, str(report), _as_array(thresholds))


def _as_array(thresholds: Sequence[float] | None) -> np.ndarray | None:
    return None if thresholds is None else np.array(thresholds, np.float32)


def _num_classes(stored: StoredWeights) -> int:
    if "predictions/bias" not in stored.values:
        reason = f" that this network can have: {stored.note}" if stored.note else ""
        raise WeightsError(
            f"'{stored.path}' ({stored.kind}) has no classifier{reason}; train one with "
            "--mode=train --weights, or give the file that has it"
        )
    return len(stored.values["predictions/bias"])


def _class_names(weights: str, num_classes: int) -> list[str]:
    """Returns the names that a run gave to its classes, or ImageNet's, or numbers."""
    run = run_of_weights(weights)
    for names in (run.class_names() if run else [], imagenet_classes()):
        if len(names) == num_classes:
            return names
    return numbered_class_names(num_classes)
