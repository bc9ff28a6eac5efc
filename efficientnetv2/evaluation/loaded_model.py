"""Loads a trained network from a run directory or from pretrained weights."""

from __future__ import annotations

import dataclasses

from tensorflow import keras

from efficientnetv2.checkpoints.pretrained_model import load_pretrained
from efficientnetv2.model.factory import build_model
from efficientnetv2.runtime.checkpoint_store import latest_checkpoint
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.train.checkpoint_manager import best_weights, has_average, load_weights
from hparams.config import Config
from hparams.errors import UserError
from hparams.weights import imagenet_classes


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A network with trained weights.

    Attributes:
      model: made of stock Keras layers; maps normalised images float32 ``[B, H, W, C]`` to logits
        ``[B, K]``.
      config: says how images are cropped, resized and normalised for it.
      class_names: K names, in the order of the logits.
      origin: where its weights come from, as text for messages.
    """

    model: keras.Model
    config: Config
    class_names: list[str]
    origin: str


def load_trained(config: Config, run: RunDirectory | None) -> LoadedModel:
    """Loads the network of a run, or the pretrained weights that ``train.ft_init_ckpt`` names.

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
    return LoadedModel(model, config, class_names, f"{kind} of '{checkpoint}'")


def _pretrained(config: Config) -> LoadedModel:
    model = build_model(config.model)
    assert config.train.ft_init_ckpt is not None  # --weights was given
    report = load_pretrained(model, config.model, config.train.ft_init_ckpt)
    names = imagenet_classes()
    if len(names) != config.model.num_classes:
        names = [f"class {number}" for number in range(config.model.num_classes)]
    return LoadedModel(model, config, names, str(report))
