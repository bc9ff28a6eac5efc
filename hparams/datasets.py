"""Facts of each data set and the training recipe that goes with it: a name in, a row out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hparams.registry import Registry


@dataclasses.dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
      tfds: the split in TensorFlow Datasets' notation, for example ``train[25000:]``.
      num_images: images in it.
    """

    tfds: str
    num_images: int


@dataclasses.dataclass(frozen=True)
class DatasetRow:
    """One data set.

    Attributes:
      tfds_name: its name in TensorFlow Datasets.
      num_classes: number of classes.
      train: images to train on.
      minival: images for model selection while training, never trained on.
      eval: images of the final evaluation.
      recipe: configuration keys that this data set wants changed, whatever the model.
      model_recipes: model name -> keys that this model wants changed further.
    """

    tfds_name: str
    num_classes: int
    train: Split
    minival: Split
    eval: Split
    recipe: Mapping[str, object] = dataclasses.field(default_factory=dict)
    model_recipes: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)

    def overrides(self, model_name: str) -> Mapping[str, object]:
        """Returns this row as values of configuration keys, for one model."""
        return {
            "model.num_classes": self.num_classes,
            "data.tfds_name": self.tfds_name,
            "data.train_split": self.train.tfds,
            "data.minival_split": self.minival.tfds,
            "data.eval_split": self.eval.tfds,
            **self.recipe,
            **self.model_recipes.get(model_name, {}),
        }


DATASETS: Registry[DatasetRow] = Registry("data set")

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
