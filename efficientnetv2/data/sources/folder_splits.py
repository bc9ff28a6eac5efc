"""Divides the images of a folder of classes by split, and compares a folder with a split file.

No TensorFlow here.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence, Set

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.fold_splits import assign_folds
from efficientnetv2.data.sources.folder_layout import divide, read_layout, require_class_names
from efficientnetv2.data.sources.folder_scan import FolderScan, left_out_notice, scan_files
from efficientnetv2.data.sources.image_splits import (
    HELD_OUT,
    ImageFile,
    ImageSplits,
    hold_out,
)
from efficientnetv2.data.sources.split_file import load_splits
from hparams.errors import DataError
from hparams.folds import Fold
from hparams.label_kinds import ONE


def scan_folder(data_dir: pathlib.Path, *, arrays: bool = False) -> ImageSplits:
    """Divides the images of a folder into train, minival and test by its layout; see ``divide``.

    Args:
      data_dir: the folder.
      arrays: whether ``.npy`` files are images.

    Raises:
      DataError: if there is no such folder, or its layout is not a known one.
    """
    layout = divide(data_dir, arrays=arrays)
    class_names = sorted(layout.splits["train"])
    return ImageSplits(data_dir, class_names, _by_split(layout.splits, class_names), layout.notices)


def _by_split(
    splits: Mapping[str, Mapping[str, Sequence[str]]], class_names: Sequence[str]
) -> dict[str, list[ImageFile]]:
    return {
        split: [
            ImageFile(path, label)
            for label, name in enumerate(class_names)
            for path in sorted(classes.get(name, ()))
        ]
        for split, classes in splits.items()
    }


def scan_folds(
    data_dir: pathlib.Path, folds: Sequence[Fold], *, seed: int, arrays: bool = False
) -> list[ImageSplits]:
    """Divides the images of a folder for a training of each of these folds.

    A folder of test images stays out of the folds; all others take part. Minival is taken from what
    a fold leaves to train on, as ``hold_out`` does it.

    Args:
      data_dir: the folder.
      folds: all of one number of folds.
      seed: see ``assign_folds``.
      arrays: whether ``.npy`` files are images.

    Raises:
      DataError: as ``scan_folder`` and ``assign_folds``.
    """
    layout = read_layout(scan_files(data_dir, arrays=arrays))
    class_names = sorted(layout.splits["train"])
    parts = [layout.splits.get(split, {}) for split in ("train", "minival")]
    pool = {name: [path for part in parts for path in part.get(name, ())] for name in class_names}
    labels = {path: label for label, name in enumerate(class_names) for path in pool[name]}
    fold_of = assign_folds(
        labels, {}, kind=ONE, class_names=class_names, count=folds[0].count, seed=seed
    )
    divided = []
    for fold in folds:
        held, rest = (
            {
                name: [p for p in pool[name] if (fold_of[p] == fold.number) == is_held]
                for name in pool
            }
            for is_held in (True, False)
        )
        splits = {
            **hold_out(rest, ["minival"]),
            "test": layout.splits.get("test", {}),
            HELD_OUT: held,
        }
        images = _by_split(splits, class_names)
        notices = [*layout.notices, fold_notice(f"folder '{printable(data_dir)}'", fold, images)]
        divided.append(ImageSplits(data_dir, class_names, images, notices, fold=str(fold)))
    return divided


def fold_notice(what: str, fold: Fold, images: Mapping[str, Sequence[ImageFile]]) -> str:
    """Returns one line that says what a fold holds out.

    Args:
      what: the folder or table.
      fold: the fold.
      images: split -> its images.
    """
    sizes = ", ".join(f"{split} {len(images[split]):,}" for split in images if images[split])
    return f"{what}: fold {fold}; {sizes} (minival: a tenth of what is left to train on)"


def load_folder_splits(
    path: pathlib.Path,
    data_dir: pathlib.Path,
    *,
    may_be_missing: bool = False,
    arrays: bool = False,
) -> ImageSplits:
    """Reads a split file. Images of the folder that it does not list are left out.

    Args:
      path: the split file.
      data_dir: the folder of images; it may have moved since the file was written.
      may_be_missing: whether images that it lists may be gone. They stay in their splits, so that
        all others keep their places, and reading them fails.
      arrays: whether ``.npy`` files are images.

    Raises:
      DataError: if the file is not a split file, or an image that it lists is missing.
    """
    splits = load_splits(path, data_dir)
    require_class_names(splits.class_names, folder=data_dir)
    listed = {image.path for split in splits.names for image in splits.images[split]}
    found = scan_files(data_dir, arrays=arrays)
    # The scanner may have come to an image by another path.
    unseen = sorted(listed.difference(found.images))
    missing = [image for image in unseen if not (data_dir / image).is_file()]
    notices = missing_notice(missing, path, root=data_dir, may_be_missing=may_be_missing)
    notices += _notices(found, listed, set(splits.class_names), path)
    return dataclasses.replace(splits, notices=notices)


def missing_notice(
    missing: Sequence[str], path: pathlib.Path, *, root: pathlib.Path, may_be_missing: bool
) -> list[str]:
    """Returns one line about images that a split file lists and that are gone, or none.

    Raises:
      DataError: says the same, unless images may be missing.
    """
    if not missing:
        return []
    if may_be_missing:
        gone = f"folder '{printable(root)}': {len(missing):,} images that '{path}' lists are gone"
        return [f"{gone}, for example '{printable(missing[0])}'"]
    several = len(missing) > 1
    more = f" and {len(missing) - 1} more that" if several else ", which"
    raise DataError(
        f"'{printable(root)}' has no '{printable(missing[0])}'{more} '{path}' lists; put "
        f"{'them' if several else 'it'} back, or take {'their lines' if several else 'its line'} "
        "out of that file"
    )


def _notices(
    found: FolderScan, listed: Set[str], classes: Set[str], path: pathlib.Path
) -> list[str]:
    """Returns a line about images that a split file does not list, and one about other files."""
    try:
        splits = read_layout(found).splits.values()
        new = {
            image: name
            for split in splits
            for name, images in split.items()
            for image in images
            if image not in listed
        }
    except DataError:  # a folder of another kind may have been added since
        new = {image: "" for image in found.images if image not in listed and "/" in image}
    notices = []
    if new:
        names = sorted(set(new.values()) - classes - {""})
        shown = ", ".join(f"'{printable(name)}'" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        of_classes = f" and {len(names)} new classes ({shown}{more})" if names else ""
        notices.append(
            f"folder '{printable(found.folder)}': {len(new):,} new images{of_classes} are not in "
            f"'{path}' and not used; another --model_dir divides the folder anew"
        )
    return notices + left_out_notice(found.folder, found.left_out)
