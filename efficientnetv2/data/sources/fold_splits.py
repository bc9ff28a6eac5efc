"""Divides a user's own images into the folds of a cross-validation. No TensorFlow here.

scikit-learn divides. Which image is in which fold depends on the paths, labels and groups of all
images and on the seed, not on the order in which the images are found.
"""

from __future__ import annotations

import collections
import warnings
from collections.abc import Mapping, Sequence

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import Label
from hparams.errors import DataError
from hparams.label_kinds import NUMBERS, ONE


def assign_folds(
    labels: Mapping[str, Label],
    groups: Mapping[str, str],
    *,
    kind: str,
    class_names: Sequence[str],
    count: int,
    seed: int,
) -> dict[str, int]:
    """Returns the fold of each image, from 1.

    Images of one class each are divided by ``StratifiedKFold``, images of several classes likewise
    by their combinations of classes (see ``combinations``), and numbers by ``KFold``. Groups are
    kept whole by ``StratifiedGroupKFold``; numbers are then a single class to it.

    Args:
      labels: path -> label, of all images that take part.
      groups: path -> group; "": the image is one by itself. Empty: there are no groups.
      kind: of the labels, a row of ``hparams.label_kinds.LABEL_KINDS``.
      class_names: in the order of the labels.
      count: number of folds.
      seed: shuffles the images, 0..2^32-1.

    Raises:
      DataError: if a class has fewer images than there are folds, or there are fewer images or
        groups, or a fold would leave no image of a class to train on.
    """
    paths = sorted(labels)
    # An image without a group is one by itself.
    own_groups = [groups.get(path) or f"\0{path}" for path in paths]
    has_groups = any(groups.values())
    _require_enough(labels, set(own_groups) if has_groups else None, kind, class_names, count)
    from sklearn.model_selection import KFold, StratifiedGroupKFold, StratifiedKFold  # a second

    options = {"n_splits": count, "shuffle": True, "random_state": seed}
    strata = [""] * len(paths)
    if kind == ONE:
        strata = [str(labels[path]) for path in paths]
    elif kind != NUMBERS:
        strata = combinations([_classes(labels[path]) for path in paths], count)
    if has_groups:
        splitter = StratifiedGroupKFold(**options)
    else:
        splitter = KFold(**options) if kind == NUMBERS else StratifiedKFold(**options)
    folds: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a combination with fewer images than folds
        for number, (_, held) in enumerate(splitter.split(paths, strata, own_groups), start=1):
            folds.update({paths[index]: number for index in held})
    if kind != NUMBERS:
        _require_trained(labels, folds, class_names, count)
    return folds


def combinations(labels: Sequence[Sequence[int]], count: int) -> list[str]:
    """Returns what each fold should have its share of, for images of several classes each.

    That is the image's combination of classes; if fewer images than folds have it, its rarest
    class; and if there are too few of that, too, one stratum for all such images.

    Args:
      labels: the classes of each image.
      count: number of folds.
    """
    classes = collections.Counter(number for numbers in labels for number in numbers)
    strata = ["+".join(map(str, numbers)) for numbers in labels]
    rarest = [
        f"rarest {min(numbers, key=lambda number: (classes[number], number), default='none')}"
        for numbers in labels
    ]
    for pool in (rarest, ["rest"] * len(labels)):
        sizes = collections.Counter(strata)
        strata = [own if sizes[own] >= count else other for own, other in zip(strata, pool)]
    return strata


def _classes(label: Label) -> tuple[int, ...]:
    return (label,) if isinstance(label, int) else tuple(map(int, label))


def _require_enough(
    labels: Mapping[str, Label],
    groups: set[str] | None,
    kind: str,
    class_names: Sequence[str],
    count: int,
) -> None:
    many = f"{count} folds are too many:"
    if groups is not None and len(groups) < count:
        raise DataError(f"{many} the images are of {len(groups)} groups; give at most as many")
    if len(labels) < count:
        raise DataError(f"{many} there are {len(labels)} images; give at most as many")
    if kind != ONE:
        return
    images = collections.Counter(labels.values())
    for number, name in enumerate(class_names):
        if images[number] < count:
            raise DataError(
                f"{many} class '{printable(name)}' has {images[number]} images; give at most as "
                "many"
            )


def _require_trained(
    labels: Mapping[str, Label], folds: Mapping[str, int], class_names: Sequence[str], count: int
) -> None:
    """Checks that no fold holds all images of a class."""
    seen: dict[int, set[int]] = collections.defaultdict(set)
    for path, label in labels.items():
        for number in _classes(label):
            seen[number].add(folds[path])
    for number, name in enumerate(class_names):
        if len(seen[number]) < 2:
            raise DataError(
                f"class '{printable(name)}' cannot be cross-validated: all its images are in one "
                f"of {count} folds, which leaves none to train on; it needs images of more groups"
                " or, without groups, more images"
            )
