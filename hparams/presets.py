"""Chooses the settings of a training on a user's own images from facts about them.

The paper's recipe is for a million images of 500 pixels and 350 epochs. The rule here is for some
hundred to some hundred thousand images of any size; docs/recipes.md says what its parts are worth.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from hparams.architecture import scaled_architecture
from hparams.channels import settings_of_channels
from hparams.choices import NO_PRESET, OPTIMIZERS, PRESETS, Preset
from hparams.config import Config, DataSection
from hparams.datasets import DATASETS, find_dataset
from hparams.facts import ImageFacts
from hparams.models import MODELS
from hparams.overrides import ConfigError, Overrides, merge_overrides
from hparams.recipes import RECIPES
from hparams.resolve import flat, resolve
from hparams.train_keys import BASE_BATCH
from hparams.weights import RANDOM


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a preset chooses.

    Attributes:
      settings: config key -> value; the keys are among ``CHOSEN``.
      reasons: what was chosen and why, one line each.
    """

    settings: Mapping[str, Any]
    reasons: tuple[str, ...]


_ENLARGED = 2  # small images become so many times as large: the network's features are 1/32 of it
_MULTIPLE = 32  # image sizes are multiples of this
_SMALLEST = 32  # pixels, of the first stage
_SMALL = 64  # pixels: smaller images keep too little in small crops, and under AutoAugment
_FINER = 8  # a size below that of evaluation is a multiple of this, as those of the stages are
_BATCHES = (16, 128)  # images, smallest and largest
_STEPS_PER_EPOCH = 150  # at least, from scratch
# Learning rate from scratch; it grows with the root of the batch. Deeper networks than V2-B0 need a
# lower one (docs/recipes.md).
_PEAK, _PEAK_BATCH, _PEAK_BLOCKS = 0.004, 64, 21
_TUNING_PEAK, _TUNING_BATCH = 0.001, 32
# The paper's RMSProp takes short steps until its mean squares, which start at 1, have fallen to the
# gradients' size: most of a short training's first epoch (docs/finetuning.md).
_TUNING_OPTIMIZER = "adamw"
# From here on, the network may learn the images by heart, and has the steps to learn strongly
# augmented ones (docs/recipes.md).
_MANY_EPOCHS, _MANY_STEPS = 30, 10_000
_FEW = 10_000  # images
_DECOUPLED_DECAY = 0.05  # as an L2 term it would be far too much
_STAGES = 4  # of progressive learning
# Small images have one size unless the user asks for more: a smaller one holds all of what they
# show, but its features are of another scale, and have to be learnt again (docs/recipes.md).
_STAGES_OF_SMALL = 2

CHOSEN = (
    "eval.isize", "train.isize", "data.ibase", "train.stages", "train.batch_size", "train.epochs",
    "train.min_steps", "train.optimizer", "train.lr_base", "train.lr_warmup_epoch",
    "train.weight_decay", "model.survival_prob", "data.augname", "data.crop_area",
    "data.crop_aspect",
)  # fmt: skip


def resolve_for_images(
    model_name: str,
    dataset_cfg: str,
    *overrides: Overrides,
    facts: ImageFacts | None = None,
    kept: Config | None = None,
) -> tuple[Config, tuple[str, ...]]:
    """Resolves a config as ``resolve``, with the settings that ``train.preset`` chooses.

    They come between the data set's recipe and the overrides. A training that goes on, with other
    images or more epochs, keeps what was chosen at its start.

    Args:
      model_name: a row of ``hparams.models.MODELS``.
      dataset_cfg: a row of ``hparams.datasets.DATASETS``.
      *overrides: as in ``resolve``.
      facts: of the images; None: those of the data set's row.
      kept: the config of the training that goes on; None: it is new.

    Returns:
      The config, and what was chosen and why, one line each; nothing without a preset.

    Raises:
      ConfigError: as in ``resolve``, and if there is a preset for a data set of one recipe only.
    """
    config = resolve(model_name, dataset_cfg, *overrides, preset_follows=True)
    preset = config.train.preset
    if preset == NO_PRESET:
        return config, ()
    row = find_dataset(dataset_cfg)[1]
    facts = facts or row.facts
    if facts is None or row.recipe.get("train.preset", NO_PRESET) == NO_PRESET:
        raise ConfigError(
            [
                f"train.preset={preset} is for a folder of your own images, and for data sets "
                f"whose number of images is known; {config.data.ds_name} has one recipe"
            ]
        )
    recipe = RECIPES.get(config.train.recipe)
    given = dict(recipe.overrides(config.model.model_name)) if recipe else {}
    of_recipe = set(given) - {"train.preset"}
    given.update(merge_overrides(overrides)[0])
    stored = flat(kept) if kept is not None and kept.train.preset == preset else None
    if stored is not None:  # so that the reasons are those of the start
        given.update({key: stored[key] for key in CHOSEN})
    starts_from_weights = config.train.ft_init_ckpt not in (None, RANDOM)
    choice = choose(
        preset,
        model_name=config.model.model_name,
        num_blocks=scaled_architecture(config.model).num_blocks,
        facts=facts,
        optimizer=config.train.optimizer,
        enlargement=_enlargement(config.data),
        pretrained=row.fine_tunes or starts_from_weights,
        given=given,
    )
    base = DATASETS["ft"].recipe if starts_from_weights and not row.fine_tunes else {}
    settings = {**base, **choice.settings, "train.preset": preset}
    if stored is not None:
        settings = {key: stored[key] for key in {*base, *CHOSEN}}
    settings = {key: value for key, value in settings.items() if key not in of_recipe}
    return resolve(model_name, dataset_cfg, settings, *overrides), choice.reasons


def choose(
    preset: str,
    *,
    model_name: str,
    num_blocks: int,
    facts: ImageFacts,
    optimizer: str,
    enlargement: float,
    pretrained: bool,
    given: Mapping[str, Any],
) -> Choice:
    """Chooses settings by the rule.

    Args:
      preset: a row of ``PRESETS``.
      model_name: a row of ``hparams.models.MODELS``.
      num_blocks: of the network; 0 for a ResNet.
      facts: of the images.
      optimizer: a row of ``hparams.choices.OPTIMIZERS``.
      enlargement: how much larger random crops show things than evaluation does, at the same size.
      pretrained: whether training starts from pretrained weights.
      given: config keys that the user sets, with their values; the rest of the choice follows from
        the number of epochs, the batch and the image size among them.
    """
    row = PRESETS[preset]
    sizes, size_reason = _sizes(
        row, model_name, facts, given, enlargement=enlargement, pretrained=pretrained
    )
    batch, epochs, steps, length_reason = _length(row, facts, given, pretrained=pretrained)
    peak, at_batch = _PEAK / max(1, num_blocks / _PEAK_BLOCKS), _PEAK_BATCH
    if pretrained:
        peak, at_batch = _TUNING_PEAK, _TUNING_BATCH
    settings = {
        **sizes,
        "train.batch_size": batch,
        "train.epochs": epochs,
        "train.min_steps": 0,
        "train.lr_base": round(peak * math.sqrt(batch / at_batch) * BASE_BATCH / batch, 5),
        "train.lr_warmup_epoch": round(min(5.0, max(1.0, 0.1 * epochs)), 1),
    }
    reasons = [size_reason, length_reason]
    if pretrained:
        settings["train.optimizer"] = given.get("train.optimizer", _TUNING_OPTIMIZER)
        if settings["train.optimizer"] == _TUNING_OPTIMIZER:  # not if the user chooses another one
            reasons.append("AdamW: the first steps of the paper's RMSProp are short")
    elif OPTIMIZERS[optimizer].decouples_decay:
        settings["train.weight_decay"] = _DECOUPLED_DECAY
    is_long = epochs >= _MANY_EPOCHS and steps >= _MANY_STEPS and not pretrained
    is_small = _is_small(facts)
    if not is_long:
        settings["model.survival_prob"] = 1.0
        reasons.append("no stochastic depth: it slows down the first epochs")
    is_colour = not settings_of_channels(given)
    if is_small or not is_long or not is_colour:
        settings["data.augname"] = "none"
        if given.get("data.augname", "none") == "none":  # not if the user chooses another one
            why = "they are for colour photos"
            if is_colour:
                why = _why_too_strong(facts, epochs=epochs, pretrained=pretrained)
            reasons.append(f"no AutoAugment or RandAugment: {why}")
    if is_small:
        settings.update({"data.crop_area": [0.85, 1.0], "data.crop_aspect": [0.9, 1.1]})
    return Choice(settings, tuple(reasons))


def _why_too_strong(facts: ImageFacts, *, epochs: int, pretrained: bool) -> str:
    """Says why a training is not to have the augmentation policy of its model."""
    if _is_small(facts):
        return "small images lose what tells them apart"
    if pretrained:
        return "the weights are pretrained"
    return "few epochs" if epochs < _MANY_EPOCHS else "few steps"


def _sizes(
    row: Preset,
    model_name: str,
    facts: ImageFacts,
    given: Mapping[str, Any],
    *,
    enlargement: float,
    pretrained: bool,
) -> tuple[dict[str, Any], str]:
    """Returns image sizes and stages, and their reason."""
    model = MODELS[model_name]
    size = model.eval_size
    if row.size_share < 1:
        size = _multiple(row.size_share * size, down=True)
    if facts.side is not None:
        size = min(size, _multiple(_ENLARGED * facts.side))
    size = int(given.get("eval.isize", size))
    trained = size
    # At a smaller size, crops show things as large as evaluation does (arXiv:1906.06423): published
    # networks were trained on smaller images than they are evaluated on, too.
    if size == model.eval_size and not pretrained:
        trained = model.progressive.image_size[1]
    elif not (pretrained or _is_small(facts)):
        trained = max(_SMALLEST, _FINER * round(size / enlargement / _FINER))
    trained = int(given.get("train.isize", trained))
    settings: dict[str, Any] = {"eval.isize": size, "train.isize": trained}
    images = "images" if facts.side is None else f"images of {facts.side} px"
    if facts.side is not None and size > facts.side:
        images += ", made about twice as large"
    if pretrained:
        settings["train.stages"] = 1
        return settings, f"{trained} px: {images}; one size, as the weights know it"
    first = min(trained, max(_SMALLEST, _multiple(trained / 2)))
    first = int(given.get("data.ibase", first))
    asks = "data.ibase" in given or "train.size_schedule" in given
    stages = _STAGES if not _is_small(facts) else _STAGES_OF_SMALL if asks else 1
    stages = int(given.get("train.stages", stages)) if first < trained else 1
    settings.update({"data.ibase": first, "train.stages": stages})
    evaluated = f", evaluated at {size} px" if size != trained else ""
    if stages == 1 or given.get("train.size_schedule") == "fixed":
        return settings, f"{trained} px, one size{evaluated}: {images}"
    return settings, f"{first} to {trained} px{evaluated}: {images}"


def _enlargement(data: DataSection) -> float:
    """Returns how much larger random crops show things than evaluation does, at the same size."""
    if data.resize == "published":  # whose centre crop shows them larger, too
        return 1.0
    low, high = data.crop_area
    return 1 / math.sqrt((low + high) / 2)


def _is_small(facts: ImageFacts) -> bool:
    return facts.side is not None and facts.side < _SMALL


def _length(
    row: Preset, facts: ImageFacts, given: Mapping[str, Any], *, pretrained: bool
) -> tuple[int, int, int, str]:
    """Returns batch, number of epochs and of all steps, and their reason."""
    growth = math.sqrt(max(1.0, facts.num_images / _FEW))
    steps, limits = growth * row.steps, row.epochs
    if pretrained:
        steps, limits = row.tuning_steps, row.tuning_epochs
    wanted = _TUNING_BATCH if pretrained else facts.num_images / _STEPS_PER_EPOCH
    power = 2 ** round(math.log2(max(wanted, 1)))
    batch = min(max(power, _BATCHES[0]), _BATCHES[1], facts.num_images)
    batch = int(given.get("train.batch_size", batch))
    per_epoch = max(1, facts.num_images // batch)
    epochs = min(max(round(steps / per_epoch), limits[0]), limits[1])
    epochs = int(given.get("train.epochs", epochs))
    start = "from pretrained weights" if pretrained else "from scratch"
    reason = (
        f"{epochs} epochs of {per_epoch} steps of {batch}: {facts.num_images:,} images, {start}"
    )
    return batch, epochs, epochs * per_epoch, reason


def _multiple(pixels: float, *, down: bool = False) -> int:
    """Rounds a size up, or down, to a multiple of 32 pixels."""
    number = math.floor(pixels / _MULTIPLE) if down else math.ceil(pixels / _MULTIPLE)
    return max(1, number) * _MULTIPLE
