"""Defines every config key: its default, type, range and meaning.

Defaults stand here and nowhere else. ``docs/hparams.md`` is printed from this table (``python -m
hparams.document``). The quantities that progressive learning changes from stage to stage are the
fields of ``Factors``.
"""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

from hparams.choices import NORMALISATIONS
from hparams.config import Config
from hparams.data_keys import DATA_KEYS
from hparams.factors import Key, factor_keys
from hparams.limits import (
    LARGEST_BATCH,
    LARGEST_IMAGE,
    LARGEST_TARGET,
    MOST_CHANNELS,
    MOST_CLASSES,
    MOST_EPOCHS,
    MOST_IMAGE_CHANNELS,
    MOST_STEPS,
)
from hparams.search_keys import SEARCH_KEYS
from hparams.train_keys import TRAIN_KEYS

KEYS: dict[str, Key] = {
    # ------------------------------------------------------------------ model
    "model.model_name": Key("", str, "registered name of the model"),
    "model.family": Key(
        "v2",
        str,
        "architecture family, which decides the layers and their names",
        choices=("v1", "v2", "lite", "resnet"),
    ),
    "model.preprocess": Key(
        "v2",
        str,
        "how images are cropped for evaluation, resized and normalised: as the official code does "
        "for V1, V2 and Lite, or as torchvision and timm do (bilinearly or bicubically with "
        "antialiasing; half: with mean and deviation 0.5)",
        choices=tuple(NORMALISATIONS),
        table="choices.NORMALISATIONS",
    ),
    "model.channels": Key(
        3,
        int,
        "channels of the images: 3 is colour, 1 is grey, and other numbers are for .npy and TIFF "
        "files of so many channels",
        low=1,
        high=MOST_IMAGE_CHANNELS,
    ),
    "model.pixel_mean": Key(
        [],
        list,
        "means of the channels, by which images are normalised; not set: with 3 channels those of "
        "model.preprocess, otherwise those of the training images",
        low=-LARGEST_TARGET,
        high=LARGEST_TARGET,
        item=float,
    ),
    "model.pixel_deviation": Key(
        [],
        list,
        "standard deviations of the channels, as model.pixel_mean",
        above=0.0,
        high=LARGEST_TARGET,
        item=float,
    ),
    "model.blocks_args": Key([], list, "one block string per stage, before scaling"),
    "model.width_coefficient": Key(1.0, float, "factor on all channel counts", above=0, high=100),
    "model.depth_coefficient": Key(
        1.0, float, "factor on the repeats of each stage", above=0, high=100
    ),
    "model.depth_divisor": Key(
        8, int, "scaled channel counts are multiples of this", low=1, high=MOST_CHANNELS
    ),
    "model.min_depth": Key(8, int, "smallest scaled channel count", low=1, high=MOST_CHANNELS),
    "model.round_down_limit": Key(
        1.0, float, "rounding may lower a channel count by at most this share", low=0, high=1
    ),
    "model.fix_head_stem": Key(
        False,
        bool,
        "do not scale the stem, the head and the repeats of the first and last stage (Lite)",
    ),
    "model.feature_size": Key(
        1280, int, "channels of the head before scaling", low=1, high=MOST_CHANNELS
    ),
    "model.act_fn": Key(
        "silu", str, "activation function", choices=("silu", "relu", "relu6", "gelu")
    ),
    "model.bn_momentum": Key(
        0.99, float, "decay of BatchNorm's moving statistics per step", low=0, high=1
    ),
    "model.bn_epsilon": Key(
        1e-3, float, "BatchNorm epsilon, added to the variance", above=0, high=1
    ),
    "model.padding": Key(
        "same",
        str,
        "how convolutions with strides of 2 pad: same, as TensorFlow, by one pixel more at the "
        "right and lower border of an even size; torch, as the networks of torchvision and most of "
        "timm, by as much at all borders",
        choices=("same", "torch"),
    ),
    "model.bn_type": Key(
        "per_replica",
        str,
        "BatchNorm in training uses the batch statistics of each device (per_replica) or of all "
        "devices together (sync)",
        choices=("per_replica", "sync"),
    ),
    "model.bn_mode": Key(
        "train",
        str,
        "frozen: BatchNorm uses its moving statistics in training, too, and never updates them",
        choices=("train", "frozen"),
    ),
    "model.survival_prob": Key(
        0.8,
        float,
        "stochastic depth: survival probability of the last block, falling linearly from 1",
        above=0,
        high=1,
    ),
    **factor_keys("model"),
    "model.num_classes": Key(
        None,
        int,
        "number of classes; not set: as many as the data set has",
        low=1,
        high=MOST_CLASSES,
    ),
    "model.target_mean": Key(
        [],
        list,
        "means of the numbers that the network predicts; not set: those of the training images",
        low=-LARGEST_TARGET,
        high=LARGEST_TARGET,
        item=float,
    ),
    "model.target_deviation": Key(
        [],
        list,
        "standard deviations of the numbers that the network predicts; not set: those of the "
        "training images",
        above=0.0,
        high=LARGEST_TARGET,
        item=float,
    ),
    "model.data_format": Key(
        "channels_last",
        str,
        "memory layout of images and features; channels_first needs a GPU",
        choices=("channels_last", "channels_first"),
    ),
    **TRAIN_KEYS,
    # ------------------------------------------------------------------ eval
    "eval.batch_size": Key(
        64, int, "images per step in evaluation and inference", low=1, high=LARGEST_BATCH
    ),
    "eval.isize": Key(
        384, int, "pixels: image size of evaluation and inference", low=1, high=LARGEST_IMAGE
    ),
    "eval.crop_pct": Key(
        None,
        float,
        "share of an image's shorter side that the centre crop of data.resize=published keeps; not "
        "set: that of the published accuracies, with a model.preprocess of torch 0.875",
        above=0,
        high=1,
    ),
    **DATA_KEYS,
    **SEARCH_KEYS,
    # ------------------------------------------------------------------ runtime
    "runtime.strategy": Key(
        "auto",
        str,
        "devices: auto takes the workers of TF_CONFIG if set, else all GPUs, else the CPU; none "
        "takes a single device",
        choices=("auto", "none", "cpu", "gpu", "multi_worker", "tpu"),
    ),
    "runtime.xla": Key(False, bool, "compile the training step, once for each image size"),
    "runtime.steps_per_loop": Key(
        1,
        int,
        "steps between checks for stop requests and reads of the metrics",
        low=1,
        high=MOST_STEPS,
    ),
    "runtime.worker_timeout_seconds": Key(
        300,
        int,
        "seconds that the workers of TF_CONFIG wait for each other at the start",
        low=1,
        high=1_000_000,
    ),
    "runtime.tpu": Key(
        None, str, "name or grpc:// address of the TPU; not set: TPU_NAME, or this machine's"
    ),
    "runtime.tpu_zone": Key(None, str, "zone of the TPU; not set: this machine's"),
    "runtime.gcp_project": Key(None, str, "project of the TPU; not set: this machine's"),
    "runtime.tpu_job_name": Key("worker", str, "job name of the TPU's workers"),
    "runtime.keep_checkpoint_max": Key(
        5, int, "number of checkpoints to keep", low=1, high=1_000_000
    ),
    "runtime.save_checkpoint_epochs": Key(
        1, int, "epochs between checkpoints", low=1, high=MOST_EPOCHS
    ),
}


# Not set until the data set is opened, which tells them.
DATA_SET_KEYS = (
    "model.num_classes",
    "data.train_split",
    "data.minival_split",
    "data.eval_split",
    "model.target_mean",
    "model.target_deviation",
    "model.pixel_mean",
    "model.pixel_deviation",
    "train.class_counts",
)
NOT_SET: tuple[Any, ...] = (None, [])  # values of such a key


def default_config() -> config_dict.ConfigDict:
    """Returns a new config of all defaults, with sections as nested ``ConfigDict``s.

    Fields are typed; a key that is not set by default holds a typed placeholder for None.
    """
    config = config_dict.ConfigDict()
    for name, key in KEYS.items():
        section, field = name.split(".")
        if section not in config:
            config[section] = config_dict.ConfigDict()
        default = config_dict.placeholder(key.kind) if key.default is None else key.default
        config[section][field] = list(default) if key.kind is list else default
    return config


def value_of(config: config_dict.ConfigDict | Config, name: str) -> Any:
    """Returns the value of a key, given as ``section.key``."""
    section, field = name.split(".")
    return getattr(getattr(config, section), field)
