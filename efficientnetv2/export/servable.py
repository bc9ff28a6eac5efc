"""Builds the network to export, with preprocessing and softmax included and BatchNorm folded."""

from __future__ import annotations

import dataclasses
from typing import Any

from tensorflow import keras

from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import fold
from hparams.choices import LOSSES, NORMALISATIONS


@dataclasses.dataclass(frozen=True)
class Servable:
    """A network that is ready to be exported.

    Attributes:
      model: stock Keras layers, BatchNormalization included; maps images ``[B, H, W, C]`` to
        ``[B, K]``.
      folded: the same function, with BatchNormalization folded into the convolutions.
      class_names: K names, in the order of the outputs.
      image_size: S, the image size in evaluation, pixels.
      preprocessing: the inputs are pixels of 0..255; otherwise normalised images.
      output_name: ``logits`` or ``probabilities``.
      model_name: its name in ``hparams.models.MODELS``.
      preprocess: how images are normalised, a row of ``hparams.choices.NORMALISATIONS``.
      origin: where the weights come from, as text for messages.
    """

    model: keras.Model
    folded: keras.Model
    class_names: list[str]
    image_size: int
    preprocessing: bool
    output_name: str
    model_name: str
    preprocess: str
    origin: str

    @property
    def channels(self) -> int:
        """The number of channels C of the images."""
        return int(self.model.input.shape[-1])

    def metadata(self) -> dict[str, Any]:
        """Returns what an app must know to use the network, apart from the class names."""
        row = NORMALISATIONS[self.preprocess]
        return {
            "model_name": self.model_name,
            "image_size": self.image_size,
            "channels": self.channels,
            "classes": len(self.class_names),
            "output": self.output_name,
            "input_range": [0, 255] if self.preprocessing else "normalised",
            "mean": list(row.mean),
            "deviation": list(row.deviation),
            "weights": self.origin,
        }


def build_servable(loaded: LoadedModel, *, preprocessing: bool, logits: bool) -> Servable:
    """Adds normalisation before a network and the loss's activation (softmax or sigmoid) after it.

    Args:
      loaded: the network; its weights are float32, whatever the training's precision.
      preprocessing: add the normalisation, so that the inputs are pixels of 0..255.
      logits: add no activation, so that the outputs are logits.
    """
    config = loaded.config
    activation = None if logits else LOSSES[config.train.loss_type].activation
    model = build_model(
        config.model, include_preprocessing=preprocessing, classifier_activation=activation
    )
    model.set_weights(loaded.model.get_weights())
    return Servable(
        model=model,
        folded=fold(model),
        class_names=loaded.class_names,
        image_size=config.eval.isize,
        preprocessing=preprocessing,
        output_name="logits" if logits else "probabilities",
        model_name=config.model.model_name,
        preprocess=config.model.preprocess,
        origin=loaded.origin,
    )
