"""Prepares a Keras model that a user made for export: its input, its output, its flat form."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow import keras

from efficientnetv2.checkpoints.keras_config import ImageModel, image_model
from efficientnetv2.evaluation.image_prediction import numbered_class_names
from efficientnetv2.export.servable import PIXELS, Servable
from efficientnetv2.model.flat_model import flatten
from efficientnetv2.model.fold_batchnorm import fold
from efficientnetv2.model.network import normalise_input
from efficientnetv2.model.traced_function import outputs_of
from hparams.channels import normalisation_of
from hparams.choices import Normalisation
from hparams.config import Config
from hparams.errors import UserError, WeightsError, shown
from hparams.label_kinds import NUMBERS, ONE, SEVERAL
from hparams.weights import imagenet_classes

# A normalised image spans about this much, so that its scale tells what is normalised: of -1 to 1
# a span of 2, of ImageNet's mean and deviation 4.4.
_SPANS = (0.25, 60.0)


@dataclasses.dataclass(frozen=True)
class OwnModel:
    """A Keras model of a user, as it is to be exported.

    Attributes:
      model: maps images to ``[B, K]``; functional or sequential.
      facts: what its config says.
      name: of the exported files, without an ending.
      origin: where it comes from, as text for messages.
    """

    model: keras.Model
    facts: ImageModel
    name: str
    origin: str


def open_own_model(path: pathlib.Path, facts: ImageModel) -> OwnModel:
    """Opens a ``.keras`` file whose config has been checked.

    Raises:
      WeightsError: if Keras cannot open it.
    """
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # a damaged file, or one of a newer Keras, can cause any error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(f"Keras {keras.__version__} cannot open '{path}': {reason[0]}") from None
    return OwnModel(model, facts, path.stem, f"'{path}'")


def own_model(model: Any) -> OwnModel:
    """Checks a model in memory.

    Raises:
      UserError: if it is no Keras model, or one that cannot be exported.
    """
    if not isinstance(model, keras.Model):
        raise UserError(f"model must be a Keras model or the name of a network, got {shown(model)}")
    what = f"the model '{model.name}'"
    if isinstance(model, keras.Sequential) and not model.built:
        raise UserError(
            f"{what} has not been built, so the shape of its images is unknown; call it on images "
            "once, or begin it with keras.Input"
        )
    try:
        content = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError):
        content = None  # a subclass that has no config
    return OwnModel(model, image_model(content, what=what), model.name, what)


def build_own_servable(
    own: OwnModel,
    config: Config,
    *,
    preprocessing: bool,
    normalises: bool,
    class_names: Sequence[str] | None,
    has_files: bool,
) -> Servable:
    """Finds a model's input range and kind of output, and makes its flat form.

    Args:
      own: the model.
      config: ``eval.isize`` and ``model.channels`` are those of the model.
      preprocessing: with ``normalises``: put the normalisation in front of the model.
      normalises: ``config`` says how images are normalised for the model.
      class_names: K names; None: ImageNet's or numbers.
      has_files: the images are files, so that the range of the inputs must be known.

    Raises:
      UserError: if the model does not give ``[B, K]``, the number of names is another, or it is not
        known how images are normalised.
    """
    model = _with_normalisation(own, config) if normalises and preprocessing else own.model
    _require_vector(own)
    try:
        flat = flatten(model)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        raise UserError(f"{own.origin} cannot be rebuilt as a flat network: {error}") from None
    folded = fold(flat)
    inside = _normalisation_inside(folded)
    if normalises:
        if preprocessing is False:
            inside = None
        elif _normalisation_inside(fold(flatten(own.model))) is not None:
            raise UserError(
                f"{own.origin} normalises pixels itself, in its own layers; leave out "
                "model.preprocess and model.pixel_mean"
            )
    elif not preprocessing:
        raise UserError(
            f"--nopreprocessing: a Keras model is exported as it is, and nothing normalises in "
            f"front of {own.origin} without model.preprocess; leave out --nopreprocessing"
        )
    limits = _limits(inside)
    if limits is None and has_files and not normalises:
        raise UserError(_unknown_range(own))
    kind, output_name = _output(own.facts, folded)
    if any(layer.compute_dtype != "float32" for layer in own.model._flatten_layers()):
        model = flat  # which computes in float32
    return Servable(
        model=model,
        folded=folded,
        class_names=_names(own, class_names),
        image_size=config.eval.isize,
        preprocessing=preprocessing,
        output_name=output_name,
        model_name=own.name,
        preprocess=config.model.preprocess,
        resize=config.data.resize,
        origin=own.origin,
        kind=kind,
        measured=normalisation_of(config.model) if normalises else _measured(config, inside),
        limits=PIXELS if normalises else limits,
        is_own=True,
    )


def with_levels(servable: Servable, inputs: np.ndarray) -> Servable:
    """Returns a servable that knows what its outputs are compared with.

    Args:
      servable: of ``build_own_servable``.
      inputs: images as the network takes them; the deviation of numbers is measured on them.
    """
    levels = None
    if servable.kind == SEVERAL:
        limit = 0.5 if servable.output_name == "probabilities" else 0.0
        levels = np.full(len(servable.class_names), limit)
    elif servable.kind == NUMBERS:
        outputs = np.float64(outputs_of(servable.folded, inputs))
        levels = np.maximum(outputs.std(axis=0), 1e-6)
    return dataclasses.replace(servable, levels=levels)


def _require_vector(own: OwnModel) -> None:
    shapes = [tuple(tensor.shape) for tensor in own.model.outputs]
    if len(shapes) != 1:
        raise UserError(f"{own.origin} has {len(shapes)} outputs; exports have one, [batch, K]")
    if len(shapes[0]) != 2 or not shapes[0][1]:
        raise UserError(f"{own.origin} must give [batch, K] outputs, but gives {shapes[0]}")


def _with_normalisation(own: OwnModel, config: Config) -> keras.Model:
    images = keras.Input(own.model.inputs[0].shape[1:], name="image")
    x = normalise_input(images, normalisation_of(config.model), data_format="channels_last")
    return keras.Model(images, own.model(x), name=own.model.name)


def _normalisation_inside(folded: keras.Model) -> Normalisation | None:
    """Returns how the first layer of a flat model normalises images; None: it does not."""
    operation = folded.inputs[0]._keras_history.operation
    while True:
        readers = [node.operation for node in operation._outbound_nodes]
        if len(readers) != 1:
            return None
        (operation,) = readers
        if isinstance(operation, keras.layers.Rescaling):
            break
        if not isinstance(operation, keras.layers.Concatenate):  # grey, repeated for colours
            return None
    scale, offset = np.broadcast_arrays(np.float64(operation.scale), np.float64(operation.offset))
    scale, offset = np.atleast_1d(scale), np.atleast_1d(offset)
    if (scale == 0).any():
        return None
    return Normalisation(tuple((-offset / scale).tolist()), tuple((1 / scale).tolist()), "inside")


def _limits(inside: Normalisation | None) -> tuple[float, float] | None:
    """The smallest and largest input of a model with such a first layer; None: not known."""
    if inside is None:
        return None
    for high in (255.0, 1.0):
        spans = high / np.abs(np.array(inside.deviation))
        if ((spans >= _SPANS[0]) & (spans <= _SPANS[1])).all():
            return 0.0, high
    return None


def _measured(config: Config, inside: Normalisation | None) -> Normalisation:
    channels = config.model.channels
    if inside is None:
        return Normalisation((0.0,) * channels, (1.0,) * channels, "as it is")
    if len(inside.mean) == 1:
        return Normalisation(inside.mean * channels, inside.deviation * channels, inside.result)
    return inside


def _unknown_range(own: OwnModel) -> str:
    hint = next(
        (
            f" (but see the name of its layer '{layer.name}')"
            for layer in own.model._flatten_layers()
            if layer.name.startswith("expects_")
        ),
        "",
    )
    return (
        f"{own.origin} does not normalise images in its first layers, so its input range is unknown"
        f'{hint}: give --hparam_str="model.preprocess=v1" (ImageNet\'s mean and deviation), v2 (-1 '
        'to 1) or lite, or "model.pixel_mean=[0,0,0],model.pixel_deviation=[1,1,1]" for pixels as '
        "they are"
    )


def _output(facts: ImageModel, folded: keras.Model) -> tuple[str, str]:
    """Returns the kind of the labels, and the name of the output."""
    activation = _activation(folded.outputs[0]._keras_history.operation)
    if activation == "softmax":
        return ONE, "probabilities"
    if activation == "sigmoid":
        return SEVERAL, "probabilities"
    if facts.is_binary:
        return SEVERAL, "logits"
    if facts.predicts_numbers or activation != "linear" or folded.outputs[0].shape[1] == 1:
        return NUMBERS, "numbers"
    return ONE, "logits"


def _activation(operation: Any) -> str:
    kind = type(operation).__name__.lower()
    if kind in ("softmax", "sigmoid"):
        return kind
    function = getattr(operation, "activation", keras.activations.linear)
    return str(keras.activations.serialize(function))


def _names(own: OwnModel, class_names: Sequence[str] | None) -> list[str]:
    count = int(own.model.outputs[0].shape[1])
    if class_names is None:
        names = imagenet_classes()
        return names if len(names) == count else numbered_class_names(count)
    if len(class_names) != count:
        meaning = "; name what a high output means" if count == 1 else ""
        raise UserError(
            f"class_names has {len(class_names)} names, but {own.origin} has {count} "
            f"output{'' if count == 1 else 's'}{meaning}"
        )
    return list(class_names)
