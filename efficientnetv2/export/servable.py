"""Trained weights in; the network as it is asked outside of training, pixels in, classes out."""

from __future__ import annotations

import dataclasses
from typing import Any

from tensorflow import keras

from efficientnetv2.model.factory import build_model
from efficientnetv2.model.folding import fold
from efficientnetv2.trained import Trained
from hparams.preprocess import NORMALISATIONS


@dataclasses.dataclass(frozen=True)
class Servable:
    """A network that is about to be written.

    Attributes:
      model: stock layers, BatchNormalization included; images ``[B, H, W, C]`` to ``[B, K]``.
      folded: the same function, folded.
      class_names: K names.
      image_size: S, the side of the images in evaluation, pixels.
      preprocessing: images are pixels of 0..255; otherwise they are normalised already.
      output_name: ``logits`` or ``probabilities``.
      model_name: of the registry.
      preprocess: row of ``hparams.preprocess``.
      origin: where the weights come from, for people.
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
        """C of the images."""
        return int(self.model.input.shape[-1])

    def metadata(self) -> dict[str, Any]:
        """What an app must know, beside the names of the classes."""
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


def build_servable(trained: Trained, *, preprocessing: bool, logits: bool) -> Servable:
    """Puts normalisation below a network and softmax (of multi-label: sigmoid) above it.

    Args:
      trained: the network; float32 weights, whatever it was trained in.
      preprocessing: take pixels of 0..255.
      logits: leave the classifier's outputs as they are.
    """
    config = trained.config
    activation = None if logits else _ACTIVATIONS[config.train.loss_type]
    model = build_model(
        config.model, include_preprocessing=preprocessing, classifier_activation=activation
    )
    model.set_weights(trained.model.get_weights())
    return Servable(
        model=model,
        folded=fold(model),
        class_names=trained.class_names,
        image_size=config.eval.isize,
        preprocessing=preprocessing,
        output_name="logits" if logits else "probabilities",
        model_name=config.model.model_name,
        preprocess=config.model.preprocess,
        origin=trained.origin,
    )


_ACTIVATIONS = {"softmax": "softmax", "sigmoid": "sigmoid"}
