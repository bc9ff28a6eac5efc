"""Lists the training recipes: settings that belong together, under a name, with their source.

``train.recipe`` names one, for any data set and model. What the user sets counts more. To add a
recipe, add a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hparams.choices import NO_PRESET


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One choice of ``train.recipe``.

    Attributes:
      text: what it is and where it comes from.
      settings: config key -> value, whatever the model.
      model_settings: model name -> further settings for that model.
      replaces: whether the data set's own recipe is left out; what the data themselves demand
        (``OF_DATA``) stays.
      needs_weights: whether it fine-tunes weights that the user has to name.
    """

    text: str
    settings: Mapping[str, object]
    model_settings: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    replaces: bool = True
    needs_weights: bool = False

    def overrides(self, model_name: str) -> Mapping[str, object]:
        """Returns this recipe as config key -> value, for one model."""
        preset = {"train.preset": NO_PRESET} if self.replaces else {}
        return {**preset, **self.settings, **self.model_settings.get(model_name, {})}


# Keys of a data set's row that follow from its images and labels, whatever the recipe.
OF_DATA = ("data.multi_label", "train.loss_type", "data.flip", "data.resize")

# The settings of the official code that differ from the paper's, quirks included (docs/parity.md).
OFFICIAL = Recipe(
    "the official code's settings, quirks included",
    {
        "model.bn_momentum": 0.9,
        "model.dropout_base": None,
        "train.stage_rule": "official",
        "train.lr_decay_in_warmup": True,
        "data.augment_ops": "official",
    },
    {
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
)

NO_RECIPE = "none"  # the rows of the model and the data set as they are
RECIPES: Mapping[str, Recipe] = {
    # The defaults of all keys are the paper's (section 5.1), with the sizes of the model's row.
    "paper": Recipe("the paper's settings (arXiv 2104.00298, section 5.1)", {}),
    "official": OFFICIAL,
    # https://github.com/pytorch/vision/tree/main/references/classification, "EfficientNet-V2": SGD
    # at 0.5 for 32 x 32 images, and a moving average that is updated every 32 steps by
    # 1 - 0.99998 times 1024 * 32 / 600, so 1 - (1 - 0.00109) ** (1 / 32) of it a step. Biases decay
    # too, but not those of BatchNorm.
    "torchvision": Recipe(
        "torchvision's training of V2-S and V2-M, to 84.2% and 85.1% on ImageNet",
        {
            "model.bn_momentum": 0.9,
            "train.epochs": 600,
            "train.batch_size": 1024,
            "train.stages": 1,
            "train.optimizer": "momentum",
            "train.momentum": 0.9,
            "train.lr_base": 0.125,
            "train.lr_sched": "cosine",
            "train.lr_warmup_epoch": 5.0,
            "train.weight_decay": 2e-5,
            "train.weight_decay_vars": "kernel$|bias$",
            "train.ema_decay": 0.999966,
            "train.label_smoothing": 0.1,
            "data.augname": "trivialaugment",
            "data.random_erasing": 0.1,
            "data.repeats": 4,
            "data.mixup_alpha": 0.2,
            "data.cutmix_alpha": 1.0,
        },
        {
            "efficientnetv2-s": {
                "model.dropout_rate": 0.2,
                "train.isize": 300,
                "eval.isize": 384,
            },
            "efficientnetv2-m": {
                "model.dropout_rate": 0.3,
                "train.isize": 384,
                "eval.isize": 480,
            },
        },
    ),
    "fast": Recipe(
        "a first result on your own images: the same as the preset of this name",
        {"train.preset": "fast"},
        replaces=False,
    ),
    # arXiv:1906.06423: a network trained at one size is better at a larger one once its classifier
    # and the statistics of its normalisation have been fitted to that size.
    "fixres": Recipe(
        "a last epoch at a larger size, in which only classifier and BatchNorm are trained "
        "(arXiv:1906.06423)",
        {
            "train.varsexp": r"^predictions/|/(gamma|beta)$",
            "train.epochs": 1,
            "train.min_steps": 0,
            "train.stages": 1,
            "train.optimizer": "momentum",
            "train.lr_base": 0.01,
            "train.lr_sched": "cosine",
            "train.lr_warmup_epoch": 0.0,
            "train.weight_decay": 0.0,
            "train.ema_decay": 0.99,
            "model.survival_prob": 1.0,
            "data.augname": "none",
            "data.cutout": 0.0,
            "data.mixup_alpha": 0.0,
            "data.cutmix_alpha": 0.0,
        },
        replaces=False,
        needs_weights=True,
    ),
}
