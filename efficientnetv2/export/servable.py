"""Builds the network to export, with preprocessing and softmax included and BatchNorm folded."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow import keras

from efficientnetv2.data.decode import describe_resize
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.evaluation.loaded_model import LoadedModel
from efficientnetv2.export.answers import ANSWERS, Answers
from efficientnetv2.int8.rounded_network import RoundedNetwork
from efficientnetv2.model.factory import build_model
from efficientnetv2.model.fold_batchnorm import fold
from efficientnetv2.runtime.calibration_file import unknown_metadata
from efficientnetv2.train.quantised_network import quantised_layer
from efficientnetv2.train.target_scale import TargetScale, target_scale
from hparams.channels import RGB, measured_normalisation
from hparams.choices import LOSSES, NORMALISATIONS, Normalisation
from hparams.errors import UserError
from hparams.label_kinds import NUMBERS, ONE, SEVERAL, label_kind
from hparams.quantisation import is_quantised

_LARGEST_HALF = 2.0**15  # well within float16
_AFTER_CLASSIFIER = (keras.layers.Activation, keras.layers.Softmax, keras.layers.Rescaling)
PIXELS = (0.0, 255.0)  # smallest and largest
_NUMBERS_OF_RANGES = {"0..255": [0, 255], "0..1": [0, 1]}


@dataclasses.dataclass(frozen=True)
class Servable:
    """A network that is ready to be exported.

    Attributes:
      model: stock Keras layers, BatchNormalization included; maps images ``[B, H, W, C]`` to
        ``[B, K]``.
      folded: the same function, with BatchNormalization folded into the convolutions.
      class_names: K names, of the classes or numbers, in the order of the outputs.
      image_size: S, the image size in evaluation, pixels.
      preprocessing: the inputs are pixels of 0..255; otherwise normalised images.
      output_name: ``logits``, ``probabilities`` or ``numbers``.
      model_name: its name in ``hparams.models.MODELS``.
      preprocess: how images are normalised, a row of ``hparams.choices.NORMALISATIONS``.
      resize: how an image becomes a square in evaluation, a row of ``hparams.choices.RESIZES``.
      crop_pct: as ``eval.crop_pct``.
      origin: where the weights come from, as text for messages.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      levels: as in ``Answers``; None: an image has one class.
      measured: how images are normalised, if not by the row of ``preprocess``.
      temperature: by which the network divides its logits; None: it does not.
      limits: smallest and largest input, with ``preprocessing``; None: not known.
      is_own: the network is a user's Keras model.
      rounded: the 8-bit network of a run with ``train.quantise``, which ``model`` and ``folded``
        compute, too; None: the network is float.
      threshold: an image whose best probability is below it is unknown; None: none is.
      precision: what a file computes in, as entries of its metadata, if its format does not say it.
      scale: the unit of numbers, which the last layers of ``model`` and ``folded`` give them; None:
        there is none.
    """

    model: keras.Model
    folded: keras.Model
    class_names: list[str]
    image_size: int
    preprocessing: bool
    output_name: str
    model_name: str
    preprocess: str
    resize: str
    origin: str
    kind: str = ONE
    levels: np.ndarray | None = None
    temperature: float | None = None
    measured: Normalisation | None = None
    limits: tuple[float, float] | None = PIXELS
    is_own: bool = False
    rounded: RoundedNetwork | None = None
    crop_pct: float | None = None
    threshold: float | None = None
    precision: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scale: TargetScale | None = None

    @property
    def normalisation(self) -> Normalisation:
        """How images are normalised."""
        return self.measured or NORMALISATIONS[self.preprocess]

    @property
    def answers(self) -> Answers:
        """Compares and scores outputs."""
        return ANSWERS[self.kind](np.zeros(0) if self.levels is None else self.levels)

    @property
    def description(self) -> str:
        """A short description of the network."""
        if self.kind == NUMBERS:
            return f"predicts {', '.join(self.class_names)} of an image"
        several = " (an image may have several)" if self.kind == SEVERAL else ""
        return f"image classifier, {len(self.class_names)} classes{several}"

    @property
    def channels(self) -> int:
        """The number of channels C of the images."""
        return int(self.folded.inputs[0].shape[-1])

    @property
    def resize_steps(self) -> str:
        """How a program must resize an image of another size, in words."""
        return describe_resize(
            self.resize,
            image_size=self.image_size,
            preprocess=self.preprocess,
            crop_pct=self.crop_pct,
            channels=self.channels,
        )

    @property
    def input_range(self) -> str:
        """The unit of the inputs, in words."""
        if not self.preprocessing:
            return "normalised"
        if self.limits is None:
            return "that of the images that the model was trained on"
        if self.limits != PIXELS:
            return "{:g}..{:g}".format(*self.limits)
        if self.channels == RGB:
            return "0..255"
        return "0..255 (16 bits divided by 257; floats as in the training files)"

    @functools.cached_property
    def standardised(self) -> keras.Model:
        """``folded`` without its last layers, which give numbers their unit."""
        if self.scale is None:
            return self.folded
        return keras.Model(self.folded.input, self.folded.get_layer("predictions").output)

    @property
    def features(self) -> keras.KerasTensor | None:
        """The classifier's input, a tensor of ``folded``; None: the last layer is not a Dense."""
        operation = self.folded.outputs[0]._keras_history.operation
        while isinstance(operation, _AFTER_CLASSIFIER):
            operation = operation.input._keras_history.operation
        return operation.input if isinstance(operation, keras.layers.Dense) else None

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels of 0..255 as the network takes them: as they are, or normalised."""
        if not self.preprocessing:
            return normalise(tf.constant(pixels), self.normalisation).numpy()
        return pixels / np.float32(255) if self.limits == (0.0, 1.0) else pixels

    def metadata(self) -> dict[str, Any]:
        """Returns what an app must know to use the network, apart from the class names."""
        row = self.normalisation
        several = {}
        if self.kind == SEVERAL and self.levels is not None:
            several = {"thresholds": self.levels.tolist()}
        calibrated = {} if self.temperature is None else {"temperature": self.temperature}
        unknown = {} if self.threshold is None else {"unknown": unknown_metadata(self.threshold)}
        return {
            "model_name": self.model_name,
            "image_size": self.image_size,
            "resize": self.resize,
            "resize_steps": self.resize_steps,
            **({} if self.crop_pct is None else {"crop_pct": self.crop_pct}),
            "preprocess": self.preprocess,
            "channels": self.channels,
            "classes": len(self.class_names),
            "output": self.output_name,
            **several,
            **calibrated,
            **unknown,
            "input_range": _NUMBERS_OF_RANGES.get(self.input_range, self.input_range),
            "mean": list(row.mean),
            "deviation": list(row.deviation),
            "weights": self.origin,
            **self.precision,
        }


def build_servable(
    loaded: LoadedModel,
    *,
    preprocessing: bool,
    logits: bool,
    temperature: float | None = None,
    threshold: float | None = None,
) -> Servable:
    """Adds normalisation before a network and the loss's activation (softmax or sigmoid) after it.

    Args:
      loaded: the network; its weights are float32, whatever the training's precision. Where it
        predicts numbers, a last layer gives them in the user's unit.
      preprocessing: add the normalisation, so that the inputs are pixels of 0..255.
      logits: add no activation, so that the outputs are logits.
      temperature: the classifier's weights are divided by it, so that no operation is added and the
        probabilities are calibrated. So are logits: their softmax is what the network would say
        with its activation. None: they stay as they are.
      threshold: as in ``Servable``.

    Raises:
      UserError: if logits are wanted of a network that predicts numbers.
    """
    config = loaded.config
    kind, scale = label_kind(config), target_scale(config.model)
    if logits and scale is not None:
        raise UserError("--logits is for networks that predict classes; this one predicts numbers")
    activation = None if logits else LOSSES[config.train.loss_type].activation
    model = build_model(
        config.model, include_preprocessing=preprocessing, classifier_activation=activation
    )
    rounded = None
    if is_quantised(config):
        rounded = quantised_layer(loaded.model).rounded(fold(model), divisor=temperature or 1.0)
        model = keras.Model(model.input, keras.layers.Lambda(rounded)(model.input))
    else:
        model.set_weights(loaded.model.get_weights())
        if temperature is not None:
            classifier = model.get_layer("predictions")
            classifier.set_weights([weights / temperature for weights in classifier.get_weights()])
        if scale is not None:
            model = _in_unit(model, scale)
    output_name = "logits" if logits else "probabilities"
    levels = _thresholds(loaded, logits=logits) if kind == SEVERAL else None
    if scale is not None:
        output_name, levels = "numbers", np.array(scale.deviation)
    return Servable(
        model=model,
        folded=fold(model) if rounded is None else model,
        class_names=loaded.class_names,
        image_size=config.eval.isize,
        preprocessing=preprocessing,
        output_name=output_name,
        model_name=config.model.model_name,
        preprocess=config.model.preprocess,
        resize=config.data.resize,
        crop_pct=config.eval.crop_pct,
        origin=loaded.origin,
        kind=kind,
        levels=levels,
        measured=measured_normalisation(config.model),
        temperature=temperature,
        rounded=rounded,
        threshold=threshold,
        scale=scale,
    )


def _in_unit(model: keras.Model, scale: TargetScale) -> keras.Model:
    """Returns the network that predicts numbers in the user's unit.

    Layers of their own do it: of a year, 2000 +- 5, or of a price and a number of rooms, 256 steps
    would leave nothing, so files of integers compute them in floats. Files of 16-bit floats have 11
    binary digits and no number above 65,504: a mean is added in two parts, and what is larger is
    computed in a larger unit first.
    """
    mean, deviation = np.array(scale.mean), np.array(scale.deviation)
    largest = np.maximum(np.abs(mean), deviation)
    unit = 2.0 ** np.maximum(0, np.ceil(np.log2(largest / _LARGEST_HALF)))
    first = np.float64(np.float16(mean / unit))
    steps = [(deviation / unit, first), (np.ones_like(unit), mean / unit - first)]
    steps.append((unit, np.zeros_like(unit)))
    outputs = model.output
    for number, (factor, offset) in enumerate(steps):
        if number == 0 or np.any(factor != 1) or np.any(offset != 0):
            layer = keras.layers.Rescaling(
                np.float32(factor).tolist(), np.float32(offset).tolist(), name=f"in_unit_{number}"
            )
            outputs = layer(outputs)
    return keras.Model(model.input, outputs, name=model.name)


def _thresholds(loaded: LoadedModel, *, logits: bool) -> np.ndarray:
    """Returns the thresholds of the classes, in the unit of the outputs, float64 ``[K]``."""
    assert loaded.thresholds is not None  # an image may have several classes
    values = np.float64(loaded.thresholds)
    if not logits:
        return values
    inside = np.clip(values, 1e-7, 1 - 1e-7)
    return np.log(inside / (1 - inside))
