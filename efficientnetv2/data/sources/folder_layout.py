"""Divides the images of a folder into train, minival and test by the names of its sub-folders."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from efficientnetv2.data.sources.file_names import is_plain_text, printable
from efficientnetv2.data.sources.folder_scan import (
    OUTSIDE,
    FolderScan,
    count_kinds,
    left_out_notice,
    no_image,
    scan_files,
)
from efficientnetv2.data.sources.image_splits import hold_out
from efficientnetv2.data.sources.split_folders import (
    by_class,
    count_images,
    find_split_folders,
    splits_inside_classes,
)
from hparams.datasets import DATASETS, TFDS_PREFIX
from hparams.errors import DataError

Classes = Mapping[str, Sequence[str]]  # class -> paths below the folder, with / between the parts


@dataclasses.dataclass(frozen=True)
class FolderLayout:
    """The images of a folder by split and class.

    Attributes:
      splits: split -> class -> paths.
      notices: what a person should know of the folder, one line each.
    """

    splits: Mapping[str, Classes]
    notices: Sequence[str]


def divide(data_dir: pathlib.Path, *, arrays: bool = False) -> FolderLayout:
    """Divides the images of a folder into train, minival and test.

    The layouts are those of ``read_layout``. Missing splits are taken from train: of each class a
    tenth goes to test, a tenth to minival; see ``hold_out``.

    Args:
      data_dir: the folder.
      arrays: whether ``.npy`` files are images.

    Raises:
      DataError: as ``scan_files`` and ``read_layout``.
    """
    layout = read_layout(scan_files(data_dir, arrays=arrays))
    missing = [split for split in ("test", "minival") if split not in layout.splits]
    splits = {**layout.splits, **hold_out(layout.splits["train"], missing)}
    return dataclasses.replace(layout, splits=splits)


def read_layout(found: FolderScan) -> FolderLayout:
    """Finds the splits and classes of a folder by the names of its sub-folders.

    Three layouts are supported. A class may have sub-folders.

    - ``<class>/*.jpg``
    - ``train/<class>/*.jpg``, with a folder of minival, of test or both beside it; ``split_of``
      knows their usual names. If there is only one of them, it is the test split whatever its name,
      so that results compare with those of others. One of images without classes is left out.
    - ``<class>/train/*.jpg``, with the other splits beside ``train``

    Returns:
      The splits that have folders; train is always one of them, and every class is in train.

    Raises:
      DataError: if the layout is another one, the folder holds no image or a single class, a class
        has no image to train on or a name that no list of classes can hold, or the folder holds
        data of TensorFlow Datasets.
    """
    data_dir = found.folder
    _refuse_tfds(data_dir, found.others)
    if not found.images:
        raise DataError(f"folder '{printable(data_dir)}' {no_image(found)}")
    paths = sorted(found.images)
    tree = count_images(paths)
    splits: Mapping[str, Classes] | None = splits_inside_classes(data_dir, paths, tree)
    roots: Mapping[str, str] = {"train": ""}
    unlabelled: Mapping[str, int] = {}
    if splits is None:
        folders = find_split_folders(data_dir, paths, tree)
        roots, unlabelled, notices = folders.roots, folders.unlabelled, folders.notices
        splits = {split: by_class(paths, root) for split, root in roots.items()}
    else:
        notices = [
            f"folder '{printable(data_dir)}': each class has its own {', '.join(sorted(splits))}"
        ]
    _check_classes(found, roots, splits)
    notices += [
        f"folder '{printable(data_dir / folder)}': its {count:,} images without classes are not "
        f"used; predict them with --mode=infer --image_path={printable(data_dir / folder)}"
        for folder, count in unlabelled.items()
    ]
    used = sum(len(images) for classes in splits.values() for images in classes.values())
    outside = len(paths) - used - sum(unlabelled.values())
    notices += left_out_notice(data_dir, {**found.left_out, OUTSIDE: outside})
    return FolderLayout(splits, notices)


def _refuse_tfds(data_dir: pathlib.Path, files: Iterable[str]) -> None:
    info = next((path for path in files if path.rpartition("/")[2] == "dataset_info.json"), None)
    if info is None:
        return
    try:
        name = json.loads((data_dir / info).read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError):
        name = "NAME"
    cfg = name if name in DATASETS else f"{TFDS_PREFIX}{name}"
    raise DataError(
        f"folder '{printable(data_dir)}' holds data of TensorFlow Datasets ('{printable(info)}'), "
        f"not images; read them with --dataset_cfg={cfg}"
    )


def _check_classes(
    found: FolderScan, roots: Mapping[str, str], splits: Mapping[str, Classes]
) -> None:
    data_dir, train = found.folder, splits["train"]
    train_dir = data_dir / roots["train"]
    require_class_names(train, folder=train_dir)
    if len(train) < 2:
        raise DataError(
            f"folder '{printable(train_dir)}' holds {_too_few(found, roots['train'], train)}"
        )
    class_folders = by_class((f"{folder}/" for folder in found.folders), roots["train"])
    empty = sorted(set(class_folders) - set(train))
    if empty:
        start = f"{roots['train']}/{empty[0]}/".lstrip("/")
        kinds = count_kinds(path for path in found.others if path.startswith(start))
        what = "".join(left_out_notice(data_dir, kinds)).partition(": ")[2]
        raise DataError(
            f"class folder '{printable(train_dir / empty[0])}' holds no image"
            f"{f'; {what}' if what else ''}"
        )
    for split, root in roots.items():
        unknown = sorted(set(splits[split]) - set(train))
        if unknown:
            raise DataError(
                f"class folder '{printable(data_dir / root / unknown[0])}' has no folder of the "
                f"same name in '{printable(train_dir)}' to train on"
            )


def _too_few(found: FolderScan, root: str, classes: Classes) -> str:
    """Returns the end of the message about images of no class, or of one only."""
    if not classes:
        return "images, but no class; each class must be a sub-folder"
    name = next(iter(classes))
    folder = f"{root}/{name}".lstrip("/")
    text = f"images of one class only, '{printable(name)}'; each class must be a sub-folder"
    has_classes = len(by_class(classes[name], folder)) > 1
    return f"{text}, as in --data_dir={printable(found.folder / folder)}" if has_classes else text


def require_class_names(names: Iterable[str], *, folder: pathlib.Path) -> None:
    """Checks that a list of classes, one a line, can hold their names.

    Args:
      names: of the class folders.
      folder: in which they stand.

    Raises:
      DataError: names the first one that is not UTF-8, or has a line break or the like.
    """
    for name in sorted(names):
        if not is_plain_text(name):
            raise DataError(
                f"class folder '{printable(folder / name)}': rename it; the name of a class must "
                "be UTF-8 without line breaks"
            )
