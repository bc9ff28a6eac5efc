"""Lists the data sets: the facts of each, and the training recipe that goes with it."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from hparams.errors import UserError, shown
from hparams.facts import ImageFacts
from hparams.models import MODELS
from hparams.recipes import OF_DATA, OFFICIAL, Recipe
from hparams.registry import Registry, UnknownNameError, did_you_mean
from hparams.train_keys import BASE_BATCH

_PEAK = 0.001  # learning rate of the whole batch; train.lr_base is per 256 images


def fine_tuning(
    base: Mapping[str, object], *, batch_size: int, epochs: int, min_steps: int = 0
) -> Mapping[str, object]:
    """Turns the training recipe of a data set into one for fine-tuning pretrained weights.

    Args:
      base: the recipe for training from scratch.
      batch_size: images per step.
      epochs: smallest number of epochs.
      min_steps: smallest number of steps; epochs are added until there are enough.
    """
    return {
        **base,
        "train.preset": "none",
        "model.dropout_base": None,
        "train.epochs": epochs,
        "train.min_steps": min_steps,
        "train.batch_size": batch_size,
        "train.stages": 1,
        "train.optimizer": "rmsprop",
        "train.lr_base": _PEAK * BASE_BATCH / batch_size,
        "train.lr_sched": "cosine",
        "train.lr_warmup_epoch": 1.0,
        "train.weight_decay": 0.0,
        "train.ema_decay": 0.9996,
        "data.augname": "none",
        "data.cutout": 0.5,
        "data.mixup_alpha": 0.0,
        "data.cutmix_alpha": 0.0,
        "data.resize": "squash",
    }


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
      name: its name at the source, in TFDS for example ``train[25000:]``.
      num_images: number of images; None: known only once the files are opened.
    """

    name: str
    num_images: int | None = None


@dataclasses.dataclass(frozen=True)
class DatasetRow:
    """One data set; whatever is None is read from the files when the data set is opened.

    Attributes:
      source: how it is stored: ``tfds``, ``folder`` (or a table of labels), or ``tfrecord``.
      tfds_name: its name in TensorFlow Datasets.
      num_classes: number of classes.
      train: the split to train on.
      minival: the split for model selection during training, never trained on.
      eval: the split of the final evaluation.
      recipe: values of config keys for this data set, whatever the model.
      model_recipes: model name -> further values for that model.
      fine_tunes: whether training starts from pretrained weights, at the image size that the model
        is evaluated at.
      side: pixels: the usual ``sqrt(height * width)`` of an image; None: large.
    """

    source: str = "tfds"
    tfds_name: str = ""
    num_classes: int | None = None
    train: Split | None = None
    minival: Split | None = None
    eval: Split | None = None
    recipe: Mapping[str, object] = dataclasses.field(default_factory=dict)
    model_recipes: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    fine_tunes: bool = False
    side: int | None = None

    @property
    def facts(self) -> ImageFacts | None:
        """What a preset needs to know; None: only the files tell."""
        if self.train is None or self.train.num_images is None:
            return None
        return ImageFacts(self.train.num_images, self.side)

    def overrides(self, model_name: str, recipe: Recipe | None = None) -> Mapping[str, object]:
        """Returns this row as config key -> value, for one model and a recipe of its own or not."""
        size = {"train.isize": MODELS[model_name].eval_size} if self.fine_tunes else {}
        own = {**self.recipe, **self.model_recipes.get(model_name, {})}
        if recipe is not None:
            kept = {key: value for key, value in own.items() if key in OF_DATA}
            own = {**(kept if recipe.replaces else own), **recipe.overrides(model_name)}
        return {
            **size,
            "model.num_classes": self.num_classes,
            "data.source": self.source,
            "data.tfds_name": self.tfds_name,
            "data.train_split": self.train and self.train.name,
            "data.minival_split": self.minival and self.minival.name,
            "data.eval_split": self.eval and self.eval.name,
            **own,
        }


DATASETS: Registry[DatasetRow] = Registry("data set")
TFDS_PREFIX = "tfds:"


def find_dataset(name: str) -> tuple[str, DatasetRow]:
    """Returns the registered spelling and the row of a data set.

    Args:
      name: a row of ``DATASETS``, or ``tfds:NAME`` for any other data set of TensorFlow Datasets
        whose examples have an image and a label (``NAME/CONFIG`` if it has several configs).

    Raises:
      UnknownNameError: if there is no such row.
    """
    if (
        isinstance(name, str)
        and name.lower().startswith(TFDS_PREFIX)
        and len(name) > len(TFDS_PREFIX)
    ):
        tfds_name = name[len(TFDS_PREFIX) :]
        return TFDS_PREFIX + tfds_name, DatasetRow(
            tfds_name=tfds_name, recipe={**_OWN_IMAGES, "train.preset": "none"}
        )
    try:
        canonical = DATASETS.canonical(name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error}; for any other set of TensorFlow Datasets give {TFDS_PREFIX}NAME"
        ) from None
    return canonical, DATASETS[canonical]


def is_dataset_name(name: str, folder: pathlib.Path, *, argument: str, instead: str) -> bool:
    """Returns whether a user's word for the data names a data set; else it names a folder.

    Args:
      name: the word.
      folder: the same as a path.
      argument: where it was given, for messages.
      instead: how to say which of both is meant, for messages.

    Raises:
      UserError: if it is both, or neither and not a path.
    """
    is_name = name in DATASETS or name.lower().startswith(TFDS_PREFIX)
    if folder.exists() and is_name:
        raise UserError(
            f"{argument}={name} is a folder here, and the name of a data set; give {instead}"
        )
    if not is_name and not folder.exists() and "/" not in name:
        hint = did_you_mean(name, DATASETS)
        raise UserError(f"{argument}: no folder, no table and no data set {shown(name)}{hint}")
    return is_name


# This search takes half an hour on two CPU cores.
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

# 8x8 pixels, 1,257 training images, minutes on two CPU cores. No flip: a mirrored digit is not that
# digit any more. BatchNorm's moving statistics decay fast, and stochastic depth and crops are off,
# because there are only a few hundred training steps. 28 and 32 pixels cost the same here, and
# training takes longer to recover from a larger change of size; with four stages the change comes
# after a quarter of the epochs (28, 32, 32, 32). B0's steps are cheap: it can afford more of them,
# with smaller batches and with crops.
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
            "data.resize": "squash",
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

# Paper section 5.1: 350 epochs, batch 4096, and 25,000 training images held out as minival.
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

# The same images as TFRecord files, train-00000-of-01024 and so on; minival is 20 of 1,024 files.
_IMAGENET_FILES = DatasetRow(
    source="tfrecord",
    num_classes=1000,
    train=Split("train"),
    minival=Split("minival"),
    eval=Split("validation"),
)
DATASETS.register("imagenet_tfrecord", _IMAGENET_FILES)

# Training as in the official code, quirks included (docs/parity.md), from the same files.
DATASETS.register(
    "imagenet_official",
    dataclasses.replace(
        _IMAGENET_FILES, recipe=OFFICIAL.settings, model_recipes=OFFICIAL.model_settings
    ),
)

# Paper section 5.2: 21,841 classes, several labels per image; files are named like ImageNet's.
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

# A few thousand images need many epochs of small batches. This recipe is not from the paper, whose
# transfer learning starts from pretrained weights.
_OWN_IMAGES: Mapping[str, object] = {
    "model.bn_momentum": 0.9,  # 0.99 averages over 100 of a few hundred steps
    "train.preset": "auto",  # which sets the size, the length and the regularisation of a training
    "train.epochs": 50,
    "train.batch_size": 16,
    "train.optimizer": "adamw",
    "train.lr_base": 0.016,
    "train.lr_sched": "cosine",
    "train.ema_decay": 0.999,
    "data.crop_area": [0.35, 1.0],
    # The published centre crop leaves out 32 pixels whatever the size: a third of 64 pixels.
    "data.resize": "squash",
}
DATASETS.register("folder", DatasetRow(source="folder", recipe=_OWN_IMAGES))

# name -> classes, train, minival, number of test images. Minival is cut from the training or the
# validation split of TFDS.
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
_SIDES = {"cifar10": 32, "cifar100": 32, "fashion_mnist": 28, "mnist": 28}  # pixels, if small
for _name, (_classes, _train, _minival, _test_images) in _TRANSFER.items():
    DATASETS.register(
        _name,
        DatasetRow(
            tfds_name=_name,
            num_classes=_classes,
            train=_train,
            minival=_minival,
            eval=Split("test", _test_images),
            side=_SIDES.get(_name),
            recipe={
                **_OWN_IMAGES,
                "train.batch_size": 128,
                "data.flip": _name != "mnist",  # a mirrored digit is not that digit any more
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

# Fine-tuning on the same data, at the image size that the model is evaluated at. A few hundred
# photographs do not fill a batch of 512, but 500 steps of 32 see each of them often.
for _name, _base, _schedule in (
    ("imagenetft", "imagenet2012", {"batch_size": 512, "epochs": 15}),
    ("cifar10ft", "cifar10", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("cifar100ft", "cifar100", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("flowersft", "oxford_flowers102", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("tfflowersft", "tf_flowers", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("carsft", "cars196", {"batch_size": 512, "epochs": 1, "min_steps": 10_000}),
    ("ft", "folder", {"batch_size": 32, "epochs": 20, "min_steps": 500}),
):
    _row = DATASETS[_base]
    _recipe = fine_tuning(_row.recipe, **_schedule)
    if _name == "ft":
        _recipe = {**_recipe, "train.preset": "auto"}
    DATASETS.register(_name, dataclasses.replace(_row, recipe=_recipe, fine_tunes=True))
