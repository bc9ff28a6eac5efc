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

from hparams.errors import DataError
from hparams.label_kinds import ONE

SPLITS = ("train", "minival", "test")
LEFT_OUT = "left_out"  # images of the classes of data.leave_out, whose labels are 0
HELD_OUT = "held_out"  # a fourth split, of a training with a fold: the images of the fold
_SHOWN = 20  # classes in a message
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
        train, minival and test, with a fold also held_out, and with classes left out left_out.
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
        """The splits, in the order of ``SPLITS``; then what a fold holds out, and what is left."""
        return [split for split in (*SPLITS, HELD_OUT, LEFT_OUT) if split in self.images]


def leave_out(splits: ImageSplits, classes: Sequence[str]) -> ImageSplits:
    """Moves the images of some classes, of all splits, into the split left_out.

    Args:
      splits: images of one class each.
      classes: their names; empty: nothing is moved.

    Raises:
      DataError: if there is no such class, or fewer than two others.
    """
    if not classes:
        return splits
    odd = [name for name in classes if name not in splits.class_names]
    names = [name for name in splits.class_names if name not in classes]
    if odd or len(names) < 2:
        what = f"there is no class '{odd[0]}'" if odd else "fewer than two classes are left"
        shown = ", ".join(splits.class_names[:_SHOWN])
        more = ", ..." if len(splits.class_names) > _SHOWN else ""
        raise DataError(
            f"data.leave_out={','.join(classes)}: {what}; the classes are {shown}{more}"
        )
    number = {splits.class_names.index(name): new for new, name in enumerate(names)}
    images: dict[str, list[ImageFile]] = {LEFT_OUT: []}
    for split in splits.names:
        images[split] = []
        for image in splits.images[split]:
            kept = number.get(image.label)  # type: ignore[arg-type]  # each has one class
            images[LEFT_OUT if kept is None else split].append(image._replace(label=kept or 0))
    line = f"'{splits.root}': {len(images[LEFT_OUT]):,} images of {', '.join(classes)} are left out"
    return dataclasses.replace(
        splits, class_names=names, images=images, notices=[*splits.notices, line]
    )


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
