"""Holds the images of a folder or table by split, and takes splits that are missing out of train.

No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Union

from hparams.label_kinds import ONE

SPLITS = ("train", "minival", "test")
HELD_OUT = "held_out"  # a fourth split, of a training with a fold: the images of the fold
Label = Union[int, tuple[int, ...], tuple[float, ...]]


class ImageFile(NamedTuple):
    """One image file.

    Attributes:
      path: relative to the root of its ``ImageSplits``, with ``/`` between the parts; or absolute.
      label: number of its class; numbers of its classes, rising; or the numbers to be predicted.
      weight: in the loss, at least 0.
    """

    path: str
    label: Label
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class ImageSplits:
    """The images of a folder or table by split.

    Attributes:
      root: the folder that paths are relative to.
      class_names: in the order of the labels; for numbers, what they are called.
      images: split -> its images: in the order of their classes, then paths, or of paths alone;
        train, minival and test, and with a fold also held_out.
      notices: what a person should know of the images, one line each.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      fold: the fold that is held out, as in ``data.fold``; None: there are no folds.
    """

    root: pathlib.Path
    class_names: Sequence[str]
    images: Mapping[str, Sequence[ImageFile]]
    notices: Sequence[str] = dataclasses.field(default=(), compare=False)
    kind: str = ONE
    fold: str | None = None

    @property
    def names(self) -> list[str]:
        """The splits, in the order of ``SPLITS``; what a fold holds out is the last."""
        return [split for split in (*SPLITS, HELD_OUT) if split in self.images]


def hold_out(
    train: Mapping[str, Sequence[str]], splits: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """Takes a tenth of each class out of train for each of ``splits``; returns train, too.

    At least one image of a class is taken, as long as one is left to train on. Which ones depends
    on their paths alone: the same ones on every file system.

    Args:
      train: class -> paths.
      splits: names of the splits that are missing.
    """
    divided: dict[str, dict[str, list[str]]] = {split: {} for split in ("train", *splits)}
    for name, paths in train.items():
        rest = sorted(paths, key=_rank)
        tenth = max(1, (len(paths) + 5) // 10)
        for split in splits:
            size = min(tenth, len(rest) - 1)
            divided[split][name], rest = rest[:size], rest[size:]
        divided["train"][name] = rest
    return divided


def _rank(path: str) -> bytes:
    # A hash is as good as shuffling, and does not depend on the other files.
    return hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
