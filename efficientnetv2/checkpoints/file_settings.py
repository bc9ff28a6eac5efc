"""Finds out from weights how their network pads, normalises and sees images.

A run has its config, a release its row. PyTorch's networks have the weights of the official ones,
but some pad and normalise differently: the names in a file, and the config.json that is stored
beside it, say which. No weights are read.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

from efficientnetv2.checkpoints.download import fetch_remote
from efficientnetv2.checkpoints.safetensors_file import LARGEST_HEADER, read_safetensors_shapes
from efficientnetv2.checkpoints.torch_file import LEGACY_START, read_torch_shapes
from efficientnetv2.checkpoints.weight_files import (
    CONFIG,
    KERAS_SETTINGS,
    file_in_folder,
    is_keras_file,
)
from efficientnetv2.runtime.run_directory import RunDirectory
from efficientnetv2.runtime.weights_run import run_of_weights
from hparams.block_strings import PADDING_SUFFIX
from hparams.choices import NORMALISATIONS
from hparams.config import ModelSection
from hparams.errors import WeightsError
from hparams.models import MODELS
from hparams.overrides import ConfigError, checked
from hparams.remote_weights import is_remote
from hparams.resolve import flat, resolve_model
from hparams.torchvision_weights import OWN_EPSILON, release_of_file
from hparams.weights import NAMES, RANDOM, find_release, require_weights

Settings = dict[str, Any]
# Names of the output of the first block, which is wider if rounding is limited to 10%.
_FIRST_OUTPUT = re.compile(
    r"features\.1\.0\.block\.2\.0\.weight|blocks\.0\.0\.conv_pw\.weight|"
    r"(efficientnet\.encoder\.blocks\.0\.projection\.|_blocks\.0\._)project_conv\.weight|"
    r"(layers\.0|layer1)\.block0\.proj\.conv\.weight"
)
_WIDER_FILES = ("efficientnetb3.h5", "efficientnetb3_notop.h5")  # of keras.applications
_WIDER_B3 = 24  # channels, of B3's first stage with that limit; without it: 16
_TIMM_FILE = re.compile(r"((?:tf_)?efficientnet\w*)-[0-9a-f]{8}\.pth")
_TIMM_EPSILON = 1e-5  # of networks that are not ports from TensorFlow
_NVIDIA_EPSILON = 1e-3
# What another network that starts from the weights of a file or a run has to have, too.
_OF_METADATA = ("model.padding", "model.bn_epsilon", "model.preprocess", "model.round_down_limit")
_OF_RUN = (*_OF_METADATA, "eval.crop_pct")
_HALF = (0.5, 0.5, 0.5)
_LARGEST_CONFIG = 2**20  # bytes


def settings_of_weights(weights: str | os.PathLike[str] | None, *, model_name: str) -> Settings:
    """Returns the settings of a network that its weights were trained with.

    Args:
      weights: as for ``--weights``.
      model_name: a row of ``hparams.models.MODELS``.

    Returns:
      ``section.key`` -> value: of the section ``model``, and ``eval.isize`` and ``eval.crop_pct``.
      Of a file only what differs from the row of the model, and nothing if it cannot be read, which
      fails where its weights are read.

    Raises:
      UserError: if there is no such release, or weights of a store cannot be downloaded or are for
        another network.
    """
    if weights is None or str(weights) == RANDOM:
        return {}
    model_name = MODELS.canonical(model_name)
    if str(weights) in NAMES:
        return {"model.preprocess": find_release(model_name, str(weights)).preprocess}
    run = run_of_weights(os.fspath(weights))
    if run is not None:
        return _of_run(run)
    if is_remote(weights):
        require_weights(str(weights), model_name=model_name)
    if MODELS[model_name].family == "resnet":  # whose weights cannot be read
        return {}
    if is_remote(weights):
        weights = fetch_remote(str(weights), model_name=model_name)
    return _of_file(pathlib.Path(weights), model_name=model_name)


def _of_run(run: RunDirectory) -> Settings:
    try:
        trained = flat(run.config())
    except ConfigError as error:  # of another version, whose weights can be read all the same
        print(
            f"warning: how the network of '{run.path}' pads and normalises is not known ({error})",
            file=sys.stderr,
        )
        return {}
    return {key: trained[key] for key in _OF_RUN}


def _of_file(weights: pathlib.Path, *, model_name: str) -> Settings:
    try:
        path = file_in_folder(weights)
        if path.name in _WIDER_FILES:
            return {"model.round_down_limit": 0.1}
        if is_keras_file(path):
            return _of_keras_hub(_json_beside(path)) or _of_keras(path)
        shapes, metadata = _contents(path)
        config = _json_beside(path)
    except (WeightsError, ConfigError, OSError, ValueError):
        return {}
    settings = _of_names(shapes, path, config, model_name=model_name)
    if model_name == "efficientnet-b3" and any(
        _FIRST_OUTPUT.fullmatch(name) and shape[:1] == (_WIDER_B3,)
        for name, shape in shapes.items()
    ):
        settings["model.round_down_limit"] = 0.1
    return {**settings, **_of_metadata(metadata)}


def model_settings(settings: Settings) -> Settings:
    """Returns those of the section ``model``, without the name of the section."""
    start = "model."
    return {k.removeprefix(start): v for k, v in settings.items() if k.startswith(start)}


def metadata_of(config: ModelSection) -> dict[str, str]:
    """Returns what a file has to say of a network besides its weights; empty if it is as its row.

    Args:
      config: the section ``model`` of the network.
    """
    own = resolve_model(config.model_name)
    keys = [key.partition(".")[2] for key in _OF_METADATA]
    return {f"model.{key}": str(config[key]) for key in keys if config[key] != own[key]}


def _contents(path: pathlib.Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Returns (name -> shape, metadata) of a file of PyTorch; empty for other files."""
    if not path.is_file():
        return {}, {}
    with path.open("rb") as stream:
        start = stream.read(32)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return read_safetensors_shapes(path)
    if start.startswith(LEGACY_START) or _is_torch_zip(path):
        return read_torch_shapes(path), {}
    return {}, {}


def _is_torch_zip(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _json_beside(path: pathlib.Path) -> Mapping[str, Any]:
    """Returns the config.json in a file's folder; empty if there is none that can be read."""
    file = path.parent / CONFIG
    if not file.is_file() or file.stat().st_size > _LARGEST_CONFIG:
        return {}
    content = json.loads(file.read_bytes())
    return content if isinstance(content, dict) else {}


def _of_names(
    names: Mapping[str, Any],
    path: pathlib.Path,
    config: Mapping[str, Any],
    *,
    model_name: str,
) -> Settings:
    if "features.0.0.weight" in names:
        return _of_torchvision(model_name, path.name)
    if "conv_stem.weight" in names:
        return _of_timm(path, config, model_name=model_name)
    if "stem.conv.weight" in names and "features.conv.weight" in names:
        size = MODELS[model_name].eval_size
        return {
            "model.padding": "torch",
            "model.bn_epsilon": _NVIDIA_EPSILON,
            "model.preprocess": "torch_bicubic",
            "eval.crop_pct": size / (size + 32),
        }
    if "efficientnet.embeddings.convolution.weight" in names:
        epsilon = config.get("batch_norm_eps")
        is_number = isinstance(epsilon, float) and 0 < epsilon <= 1
        return {"model.bn_epsilon": epsilon} if is_number else {}
    return {}


def _of_torchvision(model_name: str, file: str) -> Settings:
    release = release_of_file(model_name, file)
    if release is None:
        epsilon = OWN_EPSILON.get(MODELS[model_name].family, 1e-5)
        return {"model.padding": "torch", "model.bn_epsilon": epsilon}
    return {
        "model.padding": "torch",
        "model.bn_epsilon": release.bn_epsilon,
        "model.preprocess": release.preprocess,
        "eval.isize": release.crop_size,
        "eval.crop_pct": release.crop_size / release.resize_size,
    }


def _of_timm(path: pathlib.Path, config: Mapping[str, Any], *, model_name: str) -> Settings:
    """Returns the settings of timm's networks, which ``tf_`` before the name tells apart.

    The name is in config.json, or in that of the file (``efficientnet_b0_ra-3dd342df.pth``).
    Without either, a file counts as a port from TensorFlow, as most of timm's weights are.
    """
    cfg = config.get("pretrained_cfg", {})
    cfg = cfg if isinstance(cfg, dict) else {}
    released = _TIMM_FILE.fullmatch(path.name)
    architecture = str(config.get("architecture") or (released[1] if released else ""))
    is_half = all(cfg.get(key) == list(_HALF) for key in ("mean", "std"))
    if not architecture.startswith("efficientnet"):
        own = NORMALISATIONS[MODELS[model_name].preprocess]
        return {"model.preprocess": "v2"} if is_half and own.result == "mean_std" else {}
    settings = {"model.padding": "torch", "model.bn_epsilon": _TIMM_EPSILON}
    kind = "bilinear" if cfg.get("interpolation") == "bilinear" else "bicubic"
    settings["model.preprocess"] = f"torch_{kind}{'_half' if is_half else ''}"
    size = cfg.get("test_input_size") or cfg.get("input_size")
    share = cfg.get("test_crop_pct") or cfg.get("crop_pct")
    if isinstance(size, list) and size and isinstance(size[-1], int) and size[-1] > 0:
        settings["eval.isize"] = size[-1]
    if isinstance(share, (int, float)) and 0 < share <= 1:
        settings["eval.crop_pct"] = float(share)
    return settings


def _of_keras_hub(config: Mapping[str, Any]) -> Settings:
    """Returns the settings of a KerasHub preset, whose networks come from timm and pad likewise."""
    settings = config.get("config")
    if config.get("class_name") != "EfficientNetBackbone" or not isinstance(settings, dict):
        return {}
    epsilon = checked("model.bn_epsilon", settings.get("batch_norm_epsilon", _TIMM_EPSILON))
    pads = settings.get("include_stem_padding", True)
    return {
        "model.padding": "torch" if pads else "same",
        "model.bn_epsilon": epsilon,
        "model.preprocess": "torch_bicubic",
    }


def _of_keras(path: pathlib.Path) -> Settings:
    """Returns the settings of a Keras file of ours: the padding is a layer, the epsilon in one."""
    from efficientnetv2.checkpoints.keras_file import read_config_layers  # h5py takes 0.15 s

    written = _of_metadata(_written_settings(path))
    by_name = {layer.name: layer for layer in read_config_layers(path)}
    if f"stem_conv_{PADDING_SUFFIX}" not in by_name or "stem_bn" not in by_name:
        return written
    epsilon = checked("model.bn_epsilon", by_name["stem_bn"].settings.get("epsilon"))
    return {"model.padding": "torch", "model.bn_epsilon": epsilon, **written}


def _written_settings(path: pathlib.Path) -> Mapping[str, str]:
    """Returns what ``--mode=convert`` has added to a .keras file; empty if it added nothing."""
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        if KERAS_SETTINGS not in archive.namelist():
            return {}
        with archive.open(KERAS_SETTINGS) as member:
            content = json.loads(member.read(_LARGEST_CONFIG))
    return content if isinstance(content, dict) else {}


def _of_metadata(metadata: Mapping[str, str]) -> Settings:
    """Returns what ``--mode=convert`` has written into a file; see ``writer``."""
    settings: Settings = {}
    for key in _OF_METADATA:
        if key in metadata:
            try:
                settings[key] = checked(key, metadata[key])
            except ConfigError:
                continue
    return settings
