"""Defines every config key: its default, type, range and meaning.

Defaults stand here and nowhere else. ``docs/hparams.md`` is printed from this table (``python -m
hparams.document``). The quantities that progressive learning changes from stage to stage are the
fields of ``Factors``.
"""

from __future__ import annotations

from typing import Any

from ml_collections import config_dict

from hparams.choices import AUGMENTATIONS, NORMALISATIONS
from hparams.config import Config
from hparams.factors import Key, factor_keys
from hparams.limits import (
    LARGEST_BATCH,
    LARGEST_IMAGE,
    MOST_CHANNELS,
    MOST_CLASSES,
    MOST_EPOCHS,
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
        "how images are cropped for evaluation, resized and normalised",
        choices=tuple(NORMALISATIONS),
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
    # ------------------------------------------------------------------ data
    "data.ds_name": Key("", str, "registered name of the data set"),
    "data.source": Key(
        "tfds",
        str,
        "where the images come from: TensorFlow Datasets, a folder, or ImageNet's TFRecord files",
        choices=("tfds", "folder", "tfrecord"),
    ),
    "data.tfds_name": Key("", str, "name of the data set in TensorFlow Datasets"),
    "data.data_dir": Key(
        None, str, "folder of the data; not set: ~/tensorflow_datasets (TFDS only)", is_path=True
    ),
    "data.multi_label": Key(False, bool, "images may have any number of labels (ImageNet-21k)"),
    "data.train_split": Key(
        None, str, "split to train on; not set: chosen from the available splits"
    ),
    "data.minival_split": Key(
        None, str, "split for model selection; not set: chosen from the available splits"
    ),
    "data.eval_split": Key(
        None, str, "split of the final evaluation; not set: chosen from the available splits"
    ),
    "data.on_bad_image": Key(
        "error",
        str,
        "what to do with an image that cannot be read: stop (error), or leave it out and count it "
        "(skip)",
        choices=("error", "skip"),
    ),
    "data.cache_mib": Key(
        256,
        int,
        "MiB: splits of up to this encoded size are kept in memory",
        low=0,
        high=1_000_000_000,
    ),
    "data.service": Key(None, str, "tf.data service that prepares the images, as grpc://host:port"),
    "data.service_streams": Key(
        4,
        int,
        "streams that the workers of data.service share; at least as many as workers",
        low=1,
        high=10_000,
    ),
    "data.crop_area": Key(
        [0.08, 1.0],
        list,
        "smallest and largest share of the image that a training crop covers",
        low=0.0,
        high=1.0,
        item=float,
        length=2,
    ),
    "data.crop_aspect": Key(
        [0.75, 1.3333],
        list,
        "smallest and largest aspect ratio (width / height) of training crops",
        above=0.0,
        high=100.0,
        item=float,
        length=2,
    ),
    "data.flip": Key(True, bool, "mirror half of the training images left to right"),
    "data.eval_crop": Key(
        True, bool, "evaluate on the centre crop of the model's family; false: on the whole image"
    ),
    "data.augname": Key(
        "none",
        str,
        f"augmentation of single images: {', '.join(AUGMENTATIONS)}",
        choices=tuple(AUGMENTATIONS),
        table="choices.AUGMENTATIONS",
    ),
    "data.augment_ops": Key(
        "default",
        str,
        "augmentation strength relative to the image size (default), or as in the official "
        "code, quirks included (official)",
        choices=("default", "official"),
    ),
    "data.randaug_layers": Key(2, int, "RandAugment operations per image", low=0, high=100),
    "data.cutout": Key(
        0.0,
        float,
        "Cutout: side of the erased square, as a share of the image's side; 0: no Cutout",
        low=0,
        high=1,
    ),
    "data.random_erasing": Key(
        0.0,
        float,
        "probability of erasing a rectangle of a training image, 2% to 33% of its area",
        low=0,
        high=1,
    ),
    "data.repeats": Key(
        1,
        int,
        "repeated augmentation: how often in a row an epoch has each image, augmented anew each "
        "time; it keeps its number of steps, so it has so many times fewer images",
        low=1,
        high=1000,
    ),
    **factor_keys("data"),
    "data.shuffle_buffer": Key(
        16384, int, "encoded images held in memory for shuffling", low=1, high=10_000_000
    ),
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
)


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
