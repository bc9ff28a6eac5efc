"""A folder of images in; split -> class -> paths of image files out. No TensorFlow here."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from efficientnetv2.data.sources.errors import DataError
from efficientnetv2.image_files import SUFFIXES
from hparams.datasets import DATASETS, TFDS_PREFIX

Classes = Mapping[str, Sequence[str]]  # class -> paths below the folder, with / between the parts

# Name of a sub-folder, in lower case -> split.
_SPLIT_FOLDERS = {
    "train": "train",
    "val": "minival",
    "validation": "minival",
    "minival": "minival",
    "test": "test",
    "eval": "test",
}


def divide(data_dir: pathlib.Path) -> dict[str, Classes]:
    """Divides the images of a folder into train, minival and test.

    Two layouts are known. A class may have sub-folders; hidden files and other types are ignored.

    - ``<class>/*.jpg``: of each class a tenth goes to test, a tenth to minival (each at least one
      image, as long as one is left to train on), the rest to train.
    - ``train/<class>/*.jpg``, with ``val`` (or ``validation``, ``minival``), ``test`` (or ``eval``)
      or both beside it. A single one of them is the test split, whatever its name: that is the
      number to compare with others'. What is missing is cut from train as above.

    Which images are cut is a function of their paths alone: the same on every file system.

    Returns:
      split -> class -> paths; every class is in train.

    Raises:
      DataError: if there is no such folder, it cannot be read, its layout is none of these, it
        holds no image or a single class, a class has no image to train on, or it is a folder of
        TensorFlow Datasets.
    """
    files, folders = _walk(data_dir)
    _refuse_tfds(data_dir, files)
    paths = sorted(filter(_is_image, files))
    if not paths:
        raise DataError(f"folder '{data_dir}' holds no image ({', '.join(SUFFIXES)})")
    roots = _layout(data_dir, paths)
    splits = {split: _by_class(paths, root) for split, root in roots.items()}
    _check_classes(
        data_dir, roots, splits, folders=_by_class([f"{f}/" for f in folders], roots["train"])
    )
    cut = [split for split in ("test", "minival") if split not in splits]
    return {**splits, **_deal(splits["train"], cut)}


def image_paths(data_dir: pathlib.Path) -> list[str]:
    """Returns the paths of all images below a folder, relative, in no order.

    Raises:
      DataError: if there is no such folder, or it cannot be read.
    """
    return list(filter(_is_image, _walk(data_dir)[0]))


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _walk(data_dir: pathlib.Path) -> tuple[list[str], list[str]]:
    """Files and folders below a folder that are not hidden; follows links, but not in circles."""
    if not data_dir.is_dir():
        what = "is a file; give the folder of the images" if data_dir.exists() else "does not exist"
        raise DataError(f"folder '{data_dir}' {what}")
    files, folders = [], [""]
    try:
        for folder in folders:  # grows
            with os.scandir(data_dir / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        continue
                    if not entry.is_dir():  # known without asking the disk again
                        files.append(path)
                    elif not (entry.is_symlink() and _holds(entry.path, data_dir / folder)):
                        folders.append(path)
    except OSError as error:
        raise DataError(f"cannot read '{error.filename}': {error.strerror}") from None
    return files, folders[1:]


def _holds(outer: str, inner: pathlib.Path) -> bool:
    inner = inner.resolve()
    return pathlib.Path(outer).resolve() in (inner, *inner.parents)


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
        f"folder '{data_dir}' holds data of TensorFlow Datasets ('{info}'), not images; "
        f"read them with --dataset_cfg={cfg}"
    )


def _by_class(paths: Iterable[str], root: str) -> dict[str, list[str]]:
    """Paths by class: ``<root>/<class>/...``, or ``<class>/...`` if ``root`` is empty."""
    start = f"{root}/" if root else ""
    groups = collections.defaultdict(list)
    for path in paths:
        if path.startswith(start):
            name, slash, _ = path[len(start) :].partition("/")
            if slash:
                groups[name].append(path)
    return dict(groups)


def _layout(data_dir: pathlib.Path, paths: Sequence[str]) -> dict[str, str]:
    """Folder by split; that of train is "" if the sub-folders are classes."""
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    splits = {top: _SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in _SPLIT_FOLDERS}
    others = sorted(tops - set(splits))
    held_out = sorted(top for top in splits if splits[top] != "train")
    # A class may be called train (beside bus and tram), but hardly test.
    if not splits or (others and not held_out and not any(_by_class(paths, t) for t in splits)):
        return {"train": ""}
    if others:
        raise DataError(
            f"folder '{data_dir}' holds '{min(splits)}' beside '{others[0]}'; its sub-folders are "
            "either all classes, or train, val and test"
        )
    roots = {split: top for top, split in splits.items()}
    if len(roots) < len(splits):
        raise DataError(f"folder '{data_dir}' holds a split twice: {', '.join(sorted(splits))}")
    if "train" not in roots:
        raise DataError(f"folder '{data_dir}' holds '{held_out[0]}', but no 'train' beside it")
    if len(held_out) == 1:
        return {"train": roots["train"], "test": held_out[0]}
    return roots


def _check_classes(
    data_dir: pathlib.Path,
    roots: Mapping[str, str],
    splits: Mapping[str, Classes],
    *,
    folders: Iterable[str],
) -> None:
    train = splits["train"]
    train_dir = data_dir / roots["train"]
    if len(train) < 2:
        found = (
            f"images of one class only, '{next(iter(train))}'" if train else "images, but no class"
        )
        raise DataError(f"folder '{train_dir}' holds {found}; each class is a sub-folder of it")
    empty = sorted(set(folders) - set(train))
    if empty:
        raise DataError(f"class folder '{train_dir / empty[0]}' holds no image")
    for split, root in roots.items():
        unknown = sorted(set(splits[split]) - set(train))
        if unknown:
            raise DataError(
                f"class folder '{data_dir / root / unknown[0]}' has none of its name in "
                f"'{train_dir}' to train on"
            )


def _deal(train: Classes, cut: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Cuts a tenth of each class off for each split in ``cut``; the rest is train."""
    dealt: dict[str, dict[str, list[str]]] = {split: {} for split in ("train", *cut)}
    for name, paths in train.items():
        rest = sorted(paths, key=_rank)
        tenth = max(1, (len(paths) + 5) // 10)
        for split in cut:
            size = min(tenth, len(rest) - 1)
            dealt[split][name], rest = rest[:size], rest[size:]
        dealt["train"][name] = rest
    return dealt


def _rank(path: str) -> bytes:
    # As good as shuffled, and no other file has a say in it.
    return hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
