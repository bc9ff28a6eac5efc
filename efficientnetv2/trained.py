"""A run directory in; its network with the weights that its user wants, ready to be used, out."""

from __future__ import annotations

import dataclasses

from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.train.checkpoint_files import latest_checkpoint
from efficientnetv2.train.run_directory import RunDirectory
from efficientnetv2.train.saving import best_weights, has_average, load_weights
from hparams.errors import UserError
from hparams.resolve import Config


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


def open_trained(config: Config, run: RunDirectory) -> Trained:
    """Opens a run: the best weights on minival if there are any, or else the newest.

    Of raw weights and moving average the one that was better on minival is taken; where minival
    was not measured, the moving average.

    Args:
      config: of the run.
      run: holds a checkpoint.

    Raises:
      UserError: if there is none that can be read, or the classes' names do not fit the network.
    """
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
