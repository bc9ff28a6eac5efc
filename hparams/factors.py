"""Defines what a config key is, and the factors of progressive learning with their keys.

A factor is a quantity that changes from stage to stage. To add one, add a field to ``Factors`` here
and the code that applies it: keys, checks, schedules, records and plots follow from the field.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hparams.limits import LARGEST_IMAGE


@dataclasses.dataclass(frozen=True)
class Key:
    """One config key.

    Attributes:
      default: the value unless a model, data set or user sets another; None means "not set".
      kind: bool, int, float, str or list (of ``item`` values).
      meaning: what the key does and its unit, one line for docs/hparams.md.
      low: smallest value allowed, if any.
      high: largest value allowed, if any.
      above: the value must be greater than this, if set.
      choices: the allowed values; empty: any value.
      table: ``module.NAME`` of the table in ``hparams`` that ``choices`` come from, if they do.
      item: type of the items of a list.
      length: number of items that a list must have, if fixed.
      is_path: whether it names a file or folder, so that ``~/`` is the home folder.
      takes_numbers: whether the texts of a list may be given as numbers.
      takes_one: whether a list of numbers may be given as one number, which is then its only item.
    """

    default: Any
    kind: type
    meaning: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    table: str = ""
    item: type = str
    length: int | None = None
    is_path: bool = False
    takes_numbers: bool = False
    takes_one: bool = False


@dataclasses.dataclass(frozen=True)
class Factor:
    """How one quantity of progressive learning is set in the config and shown to the user.

    Attributes:
      first: the key of its value in the first stage.
      last: the key of its value in the last stage.
      keys: name -> ``Key`` for both.
      title: its name in plots.
      label: format string for showing one value.
      of_augmentation: whether it matters only if the augmentation of ``data.augname`` takes it.
      is_regularisation: False for the image size alone; all others grow with it.
    """

    first: str
    last: str
    keys: dict[str, Key]
    title: str
    label: str
    of_augmentation: bool = False
    is_regularisation: bool = True


def _factor(
    first: tuple[str, Key], last: tuple[str, Key], *, title: str, label: str, **options: bool
) -> dict[str, Factor]:
    keys = dict([last, first])
    return {"factor": Factor(first[0], last[0], keys, title, label, **options)}


@dataclasses.dataclass(frozen=True)
class Factors:
    """The quantities that progressive learning changes from stage to stage (section 4, Table 6).

    A field holds a number for one step or stage, a pair (first stage, last stage) in a plan, or a
    tensor inside a graph. See the module docstring on adding one.

    Attributes:
      image_size: pixels.
      magnitude: magnitude of RandAugment or AugMix.
      mixup_alpha: strength of mixup; 0: no mixup.
      cutmix_alpha: strength of CutMix; 0: no CutMix.
      dropout_rate: rate of the dropout before the classifier.
    """

    image_size: Any = dataclasses.field(
        metadata=_factor(
            (
                "data.ibase",
                Key(128, int, "pixels: image size of the first stage", low=1, high=LARGEST_IMAGE),
            ),
            (
                "train.isize",
                Key(300, int, "pixels: image size of the last stage", low=1, high=LARGEST_IMAGE),
            ),
            title="image size (px)",
            label="{} px",
            is_regularisation=False,
        )
    )
    magnitude: Any = dataclasses.field(
        metadata=_factor(
            (
                "data.ram_base",
                Key(
                    5.0,
                    float,
                    "magnitude of RandAugment or AugMix in the first stage",
                    low=0,
                    high=100,
                ),
            ),
            (
                "data.ram",
                Key(
                    10.0,
                    float,
                    "magnitude of RandAugment or AugMix in the last stage; 10 is the full range of "
                    "RandAugment's paper, and the strength of AugMix's (its severity 3)",
                    low=0,
                    high=100,
                ),
            ),
            title="augmentation magnitude",
            label="{:.3g}",
            of_augmentation=True,
        )
    )
    mixup_alpha: Any = dataclasses.field(
        metadata=_factor(
            (
                "data.mixup_base",
                Key(0.0, float, "mixup's alpha in the first stage", low=0, high=100),
            ),
            (
                "data.mixup_alpha",
                Key(0.0, float, "mixup's alpha in the last stage", low=0, high=100),
            ),
            title="mixup alpha",
            label="mixup {:.2g}",
        )
    )
    cutmix_alpha: Any = dataclasses.field(
        metadata=_factor(
            (
                "data.cutmix_base",
                Key(0.0, float, "CutMix's alpha in the first stage", low=0, high=100),
            ),
            (
                "data.cutmix_alpha",
                Key(0.0, float, "CutMix's alpha in the last stage", low=0, high=100),
            ),
            title="CutMix alpha",
            label="CutMix {:.2g}",
        )
    )
    dropout_rate: Any = dataclasses.field(
        metadata=_factor(
            (
                "model.dropout_base",
                Key(
                    None,
                    float,
                    "dropout rate before the classifier, in the first stage; not set: the same as "
                    "model.dropout_rate",
                    low=0,
                    high=0.99,
                ),
            ),
            (
                "model.dropout_rate",
                Key(
                    0.2,
                    float,
                    "dropout rate before the classifier, in the last stage",
                    low=0,
                    high=0.99,
                ),
            ),
            title="dropout rate",
            label="dropout {:.2g}",
        )
    )


FACTORS: dict[str, Factor] = {
    field.name: field.metadata["factor"] for field in dataclasses.fields(Factors)
}


def first_to_last(**pairs: tuple[float, float]) -> Factors:
    """Returns ``Factors`` of (first stage, last stage) pairs, like a row of the paper's Table 6.

    >>> first_to_last(image_size=(128, 300)).dropout_rate
    (0.0, 0.0)

    Args:
      **pairs: factor -> (first, last); a factor that is left out is (0.0, 0.0).
    """
    return Factors(**{**dict.fromkeys(FACTORS, (0.0, 0.0)), **pairs})


def factor_keys(section: str) -> dict[str, Key]:
    """Returns the keys of all factors in one section."""
    return {
        name: key
        for factor in FACTORS.values()
        for name, key in factor.keys.items()
        if name.startswith(f"{section}.")
    }
