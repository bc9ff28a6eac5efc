"""A model and the name or path of weights in; the model with these weights, and a report, out."""

from __future__ import annotations

import pathlib

from tensorflow import keras

from efficientnetv2.model.checkpoints.download import fetch
from efficientnetv2.model.checkpoints.errors import WeightsError
from efficientnetv2.model.checkpoints.loading import Report, load_weights
from efficientnetv2.model.checkpoints.parts import Part, network_parts
from efficientnetv2.model.checkpoints.reading import read_weights
from hparams.architecture import scaled_architecture
from hparams.resolve import Config
from hparams.weights import NAMES, find_release, require_weights

# V1's depthwise layers are named otherwise than V2's in keras.applications.
DEPTHWISE_NAMES = {"v1": "dwconv", "lite": "dwconv", "v2": "dwconv2"}


def parts_of(config: Config) -> tuple[Part, ...]:
    """Returns the parts of the network of a ``model`` section, its classifier included.

    Raises:
      WeightsError: for a ResNet, whose body is not of this package.
    """
    if config.family == "resnet":
        raise WeightsError(f"pretrained weights of {config.model_name} are not read")
    stages = scaled_architecture(config).stages
    return tuple(network_parts(stages, depthwise_name=DEPTHWISE_NAMES[config.family]))


def weights_path(weights: str | pathlib.Path, *, model_name: str) -> pathlib.Path:
    """Returns where weights lie; those of a release are downloaded once.

    Args:
      weights: a name of ``hparams.weights.NAMES``, or a path.
      model_name: of the model.

    Raises:
      UserError: if there is nothing at this path, or the release cannot be had.
    """
    require_weights(weights, model_name=model_name)
    if str(weights) in NAMES:
        return fetch(find_release(model_name, str(weights)))
    return pathlib.Path(weights)


def load_pretrained(
    model: keras.Model,
    config: Config,
    weights: str | pathlib.Path,
    *,
    new_classifier: bool = False,
) -> Report:
    """Sets every weight of a model.

    Args:
      model: of this configuration.
      config: the section ``model``.
      weights: as in ``weights_path``.
      new_classifier: as in ``checkpoints.loading.load_weights``.

    Raises:
      WeightsError: as ``weights_path``, ``read_weights`` and ``load_weights``.
    """
    path = weights_path(weights, model_name=config.model_name)
    stored = read_weights(path, parts_of(config), model_name=config.model_name)
    return load_weights(model, stored, new_classifier=new_classifier)
