"""Facts of each data set and the training recipe that goes with it: a name in, a row out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from hparams.fine_tuning import fine_tuning
from hparams.models import MODELS
from hparams.registry import Registry, UnknownNameError


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
      name: as its source names it: for TFDS for example ``train[25000:]``.
      num_images: images in it; None where only the files tell.
    """

    name: str
    num_images: int | None = None


@dataclasses.dataclass(frozen=True)
class DatasetRow:
    """One data set. What is None is found in the files when the data set is opened.

    Attributes:
      source: how it is stored: ``tfds``, ``folder`` or ``tfrecord``.
      tfds_name: its name in TensorFlow Datasets.
      num_classes: number of classes.
      train: images to train on.
      minival: images for model selection while training, never trained on.
      eval: images of the final evaluation.
      recipe: configuration keys that this data set wants changed, whatever the model.
      model_recipes: model name -> keys that this model wants changed further.
      fine_tunes: starts from pretrained weights, at the size that the model is evaluated at.
    """

    source: Literal["tfds", "folder", "tfrecord"] = "tfds"
    tfds_name: str = ""
    num_classes: int | None = None
    train: Split | None = None
    minival: Split | None = None
    eval: Split | None = None
    recipe: Mapping[str, object] = dataclasses.field(default_factory=dict)
    model_recipes: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    fine_tunes: bool = False

    def overrides(self, model_name: str) -> Mapping[str, object]:
        """Returns this row as values of configuration keys, for one model."""
        size = {"train.isize": MODELS[model_name].eval_size} if self.fine_tunes else {}
        return {
            **size,
            "model.num_classes": self.num_classes,
            "data.source": self.source,
            "data.tfds_name": self.tfds_name,
            "data.train_split": self.train and self.train.name,
            "data.minival_split": self.minival and self.minival.name,
            "data.eval_split": self.eval and self.eval.name,
            **self.recipe,
            **self.model_recipes.get(model_name, {}),
        }


DATASETS: Registry[DatasetRow] = Registry("data set")
TFDS_PREFIX = "tfds:"


def find_dataset(name: str) -> tuple[str, DatasetRow]:
    """Returns the registered spelling and the row of a data set.

    Args:
      name: a row of ``DATASETS``, or ``tfds:NAME`` for any other set of TensorFlow Datasets that
        has an image and a label (``NAME/CONFIG`` for one of several configurations).

    Raises:
      UnknownNameError: if there is no such row.
    """
    if name.lower().startswith(TFDS_PREFIX) and len(name) > len(TFDS_PREFIX):
        tfds_name = name[len(TFDS_PREFIX) :]
        return TFDS_PREFIX + tfds_name, DatasetRow(tfds_name=tfds_name, recipe=_OWN_IMAGES)
    try:
        canonical = DATASETS.canonical(name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error}; other sets of TensorFlow Datasets are given as {TFDS_PREFIX}NAME"
        ) from None
    return canonical, DATASETS[canonical]


# A search that takes half an hour on two CPU cores.
_DIGITS_SEARCH = {
    "search.backbone": [
        "r1_k3_s1_e1_i16_o16_se0.25",
        "r2_k3_s2_e4_i16_o24_se0.25",
        "r2_k5_s2_e4_i24_o40_se0.25",
        "r2_k3_s2_e6_i40_o64_se0.25",
    ],
    "search.feature_size": 256,
    "search.trials": 24,
    "search.isize": 32,
}

# 8x8 pixels, 1,257 training images, minutes on two CPU cores. No flip: a mirrored digit is another
# sign. BatchNorm has a short memory, and stochastic depth and crops are off, because a training
# has a few hundred steps in all. 28 and 32 pixels cost the same here, and a greater change of size
# takes longer to recover from; four stages put it after a quarter of the epochs (28, 32, 32, 32).
# B0's steps are cheap: it can afford more of them, with smaller batches and crops.
DATASETS.register(
    "digits",
    DatasetRow(
        tfds_name="digits",
        num_classes=10,
        train=Split("train", 1257),
        minival=Split("minival", 180),
        eval=Split("test", 360),
        recipe={
            "model.bn_momentum": 0.9,
            "model.survival_prob": 1.0,
            "model.dropout_base": 0.1,
            "model.dropout_rate": 0.2,
            "train.epochs": 17,
            "train.batch_size": 64,
            "train.stages": 4,
            "train.isize": 32,
            "train.optimizer": "adamw",
            "train.lr_base": 0.006,
            "train.lr_sched": "cosine",
            "train.lr_warmup_epoch": 1.0,
            "data.ibase": 28,
            "data.crop_area": [1.0, 1.0],
            "data.crop_aspect": [1.0, 1.0],
            "data.flip": False,
            "data.eval_crop": False,
            "data.augname": "none",
            "data.mixup_alpha": 0.0,
            "data.cutmix_alpha": 0.0,
            "data.shuffle_buffer": 2048,
            "eval.isize": 32,
            "runtime.save_checkpoint_epochs": 8,
            "runtime.keep_checkpoint_max": 2,
            **_DIGITS_SEARCH,
        },
        model_recipes={
            "efficientnetv2-b0": {
                "train.epochs": 16,
                "train.stages": 3,
                "train.batch_size": 32,
                "train.lr_base": 0.012,
                "data.crop_area": [0.8, 1.0],
                "data.crop_aspect": [0.9, 1.1],
            },
        },
    ),
)

# Paper section 5.1: 350 epochs, batch 4096, and 25,000 training images kept out as minival.
DATASETS.register(
    "imagenet2012",
    DatasetRow(
        tfds_name="imagenet2012",
        num_classes=1000,
        train=Split("train[25000:]", 1_281_167 - 25_000),
        minival=Split("train[:25000]", 25_000),
        eval=Split("validation", 50_000),
    ),
    aliases=("imagenet",),
)

# The same images as TFRecord files, train-00000-of-01024 and so on; minival is 20 files in 1,024.
_IMAGENET_FILES = DatasetRow(
    source="tfrecord",
    num_classes=1000,
    train=Split("train"),
    minival=Split("minival"),
    eval=Split("validation"),
)
DATASETS.register("imagenet_tfrecord", _IMAGENET_FILES)

# What the official code does, its quirks included (docs/parity.md), from the same files.
_OFFICIAL = {
    "model.bn_momentum": 0.9,
    "model.dropout_base": None,
    "train.stage_rule": "official",
    "train.lr_decay_in_warmup": True,
    "data.augment_ops": "official",
}
DATASETS.register(
    "imagenet_official",
    dataclasses.replace(
        _IMAGENET_FILES,
        recipe=_OFFICIAL,
        model_recipes={
            **{f"efficientnetv2-b{number}": {"data.ram": 0.0} for number in range(4)},
            **{
                f"efficientnetv2-{size}": {
                    "model.dropout_rate": dropout,
                    "train.isize": image_size,
                    "data.ram": magnitude,
                    "data.mixup_alpha": alpha,
                    "data.cutmix_alpha": alpha,
                }
                for size, (dropout, image_size, magnitude, alpha) in {
                    "s": (0.2, 300, 10.0, 0.0),
                    "m": (0.3, 384, 15.0, 0.2),
                    "l": (0.4, 384, 20.0, 0.5),
                    "xl": (0.4, 384, 20.0, 0.5),
                }.items()
            },
        },
    ),
)

# Paper section 5.2: 21,841 classes, several labels an image; files named as ImageNet's.
DATASETS.register(
    "imagenet21k_tfrecord",
    DatasetRow(
        source="tfrecord",
        num_classes=21_841,
        train=Split("train"),
        minival=Split("minival"),
        eval=Split("validation"),
        recipe={"data.multi_label": True, "train.loss_type": "sigmoid"},
    ),
    aliases=("imagenet21k",),
)

# A few thousand images need many passes and small steps. Not from the paper, whose transfer
# learning starts from pretrained weights.
_OWN_IMAGES: Mapping[str, object] = {
    "model.bn_momentum": 0.9,  # a few hundred steps are few for a memory of a hundred
    "train.epochs": 50,
    "train.batch_size": 16,
    "train.optimizer": "adamw",
    "train.lr_base": 0.016,
    "train.lr_sched": "cosine",
    "train.ema_decay": 0.999,
    "data.crop_area": [0.35, 1.0],
}
DATASETS.register("folder", DatasetRow(source="folder", recipe=_OWN_IMAGES))

# name -> classes, images in train, minival and test; minival is cut from train where it is not a
# split of its own, and so is the test split where there is none.
_TRANSFER = {
    "cifar10": (10, Split("train[2500:]", 47_500), Split("train[:2500]", 2_500), 10_000),
    "cifar100": (100, Split("train[2500:]", 47_500), Split("train[:2500]", 2_500), 10_000),
    "oxford_flowers102": (
        102, Split("train+validation[102:]", 1_938), Split("validation[:102]", 102), 6_149
    ),
    "cars196": (196, Split("train[400:]", 7_744), Split("train[:400]", 400), 8_041),
    "fashion_mnist": (10, Split("train[3000:]", 57_000), Split("train[:3000]", 3_000), 10_000),
    "mnist": (10, Split("train[3000:]", 57_000), Split("train[:3000]", 3_000), 10_000),
}  # fmt: skip
for _name, (_classes, _train, _minival, _test_images) in _TRANSFER.items():
    DATASETS.register(
        _name,
        DatasetRow(
            tfds_name=_name,
            num_classes=_classes,
            train=_train,
            minival=_minival,
            eval=Split("test", _test_images),
            recipe={
                **_OWN_IMAGES,
                "train.batch_size": 128,
                "data.flip": _name != "mnist",  # a mirrored digit is another sign
            },
        ),
    )
DATASETS.register(
    "tf_flowers",
    DatasetRow(
        tfds_name="tf_flowers",
        num_classes=5,
        train=Split("train[734:]", 2_936),
        minival=Split("train[:367]", 367),
        eval=Split("train[367:734]", 367),
        recipe={**_OWN_IMAGES, "train.batch_size": 128},
    ),
)

# The same data for pretrained weights, at the size that the model is evaluated at. A few hundred
# photographs do not fill a batch of 512: 500 steps of 32 see each of them often.
for _name, _of, _steps in (
    ("imagenetft", "imagenet2012", {"batch_size": 512, "epochs": 15}),
    ("cifar10ft", "cifar10", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("cifar100ft", "cifar100", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("flowersft", "oxford_flowers102", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("tfflowersft", "tf_flowers", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("carsft", "cars196", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("ft", "folder", {"batch_size": 32, "epochs": 20, "min_steps": 500}),
):
    _row = DATASETS[_of]
    _recipe = fine_tuning(_row.recipe, **_steps)
    DATASETS.register(_name, dataclasses.replace(_row, recipe=_recipe, fine_tunes=True))
