"""Lists the named choices of a setting: losses, optimizers, augmentations, presets and so on.

A row holds what config checks, exports and reports need to know without TensorFlow, and the name of
the function or class that does the work. To add a choice, add a row here and its code in the module
that the row's class names; docs/developing.md has the steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Loss:
    """One choice of ``train.loss_type``.

    Attributes:
      function: name of the function in ``efficientnetv2.train.losses``.
      activation: the Keras activation that turns logits into probabilities, in evaluation,
        prediction and exported files. With ``softmax``, the labels of an image share a weight of 1.
      is_regression: whether the labels are numbers, not classes.
    """

    function: str
    activation: str
    is_regression: bool = False

    @property
    def shares_target(self) -> bool:
        """Whether the targets of an image sum to 1."""
        return self.activation == "softmax"


LOSSES: Mapping[str, Loss] = {
    # Cross-entropy over one class, or over several that share the probability.
    "softmax": Loss("softmax_cross_entropy", "softmax"),
    # Binary cross-entropy for any number of classes: the mean over them, or the sum.
    "sigmoid": Loss("sigmoid_cross_entropy", "sigmoid"),
    "sigmoid_sum": Loss("summed_sigmoid_cross_entropy", "sigmoid"),
    # Of numbers, each with mean 0 and deviation 1: the mean over them.
    "mse": Loss("squared_error", "linear", is_regression=True),
    "mae": Loss("absolute_error", "linear", is_regression=True),
    "huber": Loss("huber", "linear", is_regression=True),
}


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """One choice of ``train.optimizer``.

    Attributes:
      cls: name of a class in ``efficientnetv2.train.optimizers`` or else in ``keras.optimizers``.
      arguments: argument of the class -> its value, or the config key that holds it.
      decouples_decay: whether weight decay shrinks the weights beside the update, and is not a term
        of the loss, whose gradient the update would rescale (arXiv:1711.05101).
    """

    cls: str
    arguments: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    decouples_decay: bool = False


_RMSPROP: Mapping[str, str | float] = {
    "rho": "train.rmsprop_decay",
    "momentum": "train.momentum",
    "epsilon": 1e-3,  # as in the code of the EfficientNet papers
}
OPTIMIZERS: Mapping[str, Optimizer] = {
    "rmsprop": Optimizer("RMSPropTF1", _RMSPROP),
    "rmsprop_keras": Optimizer("RMSprop", _RMSPROP),
    "sgd": Optimizer("SGD"),
    "momentum": Optimizer("SGD", {"momentum": "train.momentum"}),
    "adam": Optimizer("Adam"),
    "adamw": Optimizer("Adam", decouples_decay=True),
    "lamb": Optimizer("Lamb", decouples_decay=True),
    "lion": Optimizer("Lion", decouples_decay=True),
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """One choice of ``data.augname``: how each training image is augmented after crop and flip.

    Attributes:
      function: name of the function in ``efficientnetv2.data.augment``; "": no augmentation.
      arguments: its arguments besides the image and the seed: ``magnitude`` (of the stage),
        ``num_layers`` and ``ops``.
      title: its name in plots and reports.
    """

    function: str = ""
    arguments: tuple[str, ...] = ()
    title: str = ""


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "none": Augmentation(),
    "randaug": Augmentation("rand_augment", ("magnitude", "num_layers", "ops"), "RandAugment"),
    "autoaug": Augmentation("auto_augment", ("ops",), "AutoAugment"),
    "trivialaugment": Augmentation("trivial_augment", (), "TrivialAugment"),
    "augmix": Augmentation("aug_mix", ("magnitude",), "AugMix"),
}


@dataclasses.dataclass(frozen=True)
class Resize:
    """One choice of ``data.resize``: how an image that is not square becomes a square.

    Attributes:
      kept: the part of the image that evaluation sees: ``whole``, ``square`` (the largest central
        square), or ``published`` (the part that the published accuracies were measured on).
      fill: grey level 0..255 of the rest of the square, if the part keeps its aspect ratio; None:
        the part is stretched to a square.
      text: what happens to the image, in words.
    """

    kept: str
    text: str
    fill: int | None = None


RESIZES: Mapping[str, Resize] = {
    "published": Resize("published", "the centre crop of the published accuracies"),
    "squash": Resize("whole", "the whole image, stretched to a square"),
    "crop": Resize("square", "the largest central square"),
    # 128 is 0 after V2's normalisation, 0.008 after Lite's, and at most 0.43 after V1's (whose own
    # means differ by colour). One number for all networks is easy to get right in an app, and it is
    # what Cutout and the geometric augmentations paint, so a network knows it as "nothing here".
    "letterbox": Resize("whole", "the whole image in its proportions, on a grey square", fill=128),
}


NATURAL_SAMPLING = "natural"
# Choices of data.sampling -> how often a class is drawn: its number of images to this power.
SAMPLINGS: Mapping[str, float] = {NATURAL_SAMPLING: 1.0, "sqrt": 0.5, "balanced": 0.0}


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """How images are normalised: pixels become ``(pixel - mean) / deviation``.

    Attributes:
      mean: of each channel: of red, green and blue for a choice of ``model.preprocess``.
      deviation: standard deviation of each channel, or another divisor.
      result: what becomes of the pixels, in words for a layer's name; short, as ``model.summary()``
        cuts names of more than 18 characters on a terminal of 80 columns.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    result: str

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.mean)


_IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
_IMAGENET_DEVIATION = (0.229 * 255, 0.224 * 255, 0.225 * 255)
_HALF = ((127.5,) * 3, (127.5,) * 3)
# EfficientNetV2-B0 to B3 were trained with V1's preprocessing, so they use its row. Networks of
# torchvision and timm see images as Pillow resizes them, with antialiasing; ``half`` is the mean
# and deviation of 0.5 that some have in place of ImageNet's.
NORMALISATIONS: Mapping[str, Normalisation] = {
    "v1": Normalisation(_IMAGENET_MEAN, _IMAGENET_DEVIATION, "mean_std"),
    "v2": Normalisation((128.0,) * 3, (128.0,) * 3, "-1_to_1"),
    "lite": Normalisation((127.0,) * 3, (128.0,) * 3, "-1_to_1"),
    "torch_bilinear": Normalisation(_IMAGENET_MEAN, _IMAGENET_DEVIATION, "mean_std"),
    "torch_bicubic": Normalisation(_IMAGENET_MEAN, _IMAGENET_DEVIATION, "mean_std"),
    "torch_bilinear_half": Normalisation(*_HALF, "-1_to_1"),
    "torch_bicubic_half": Normalisation(*_HALF, "-1_to_1"),
}


@dataclasses.dataclass(frozen=True)
class Preset:
    """One choice of ``train.preset``.

    Attributes:
      text: what it is for.
      steps: number of steps of a training from scratch on 10,000 images; more images get more, in
        proportion to the root of their number.
      epochs: smallest and largest number of epochs, whatever the number of steps.
      tuning_steps: number of steps of a fine-tuning.
      tuning_epochs: smallest and largest number of epochs of a fine-tuning.
      size_share: largest image size, as a share of the size that the model is evaluated at.
    """

    text: str
    steps: int
    epochs: tuple[int, int]
    tuning_steps: int
    tuning_epochs: tuple[int, int]
    size_share: float


NO_PRESET = "none"  # the recipe of the data set as it is
PRESETS: Mapping[str, Preset] = {
    "auto": Preset("a good network soon", 2000, (8, 50), 300, (4, 20), 1.0),
    "fast": Preset("a first result", 600, (3, 10), 150, (2, 10), 0.6),
    "best": Preset("many epochs, strong regularisation", 20_000, (30, 200), 2000, (10, 50), 1.0),
}
