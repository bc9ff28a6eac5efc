"""Divides the images of a folder into train, minival and test by the names of its sub-folders."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from efficientnetv2.data.sources.image_files import SUFFIXES, is_image, walk
from hparams.datasets import DATASETS, TFDS_PREFIX
from hparams.errors import DataError

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

    Two layouts are supported. A class may have sub-folders; hidden files and files of other types
    are ignored.

    - ``<class>/*.jpg``: of each class a tenth goes to test, a tenth to minival (each at least one
      image, as long as one is left to train on), the rest to train.
    - ``train/<class>/*.jpg``, with ``val`` (or ``validation``, ``minival``), ``test`` (or ``eval``)
      or both beside it. If there is only one of them, it is the test split whatever its name, so
      that results compare with those of others. Missing splits are taken from train as above.

    Which images are taken depends on their paths alone: the same ones on every file system.

    Returns:
      split -> class -> paths; every class is in train.

    Raises:
      DataError: if there is no such folder, it cannot be read, its layout is another one, it holds
        no image or a single class, a class has no image to train on, or it holds data of TensorFlow
        Datasets.
    """
    files, folders = walk(data_dir)
    _refuse_tfds(data_dir, files)
    paths = sorted(filter(is_image, files))
    if not paths:
        raise DataError(f"folder '{data_dir}' holds no image ({', '.join(SUFFIXES)})")
    roots = _layout(data_dir, paths)
    splits = {split: _by_class(paths, root) for split, root in roots.items()}
    _check_classes(
        data_dir, roots, splits, folders=_by_class([f"{f}/" for f in folders], roots["train"])
    )
    missing = [split for split in ("test", "minival") if split not in splits]
    return {**splits, **_hold_out(splits["train"], missing)}


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
    """Groups paths ``<root>/<class>/...`` by class, or ``<class>/...`` if ``root`` is empty."""
    start = f"{root}/" if root else ""
    groups = collections.defaultdict(list)
    for path in paths:
        if path.startswith(start):
            name, slash, _ = path[len(start) :].partition("/")
            if slash:
                groups[name].append(path)
    return dict(groups)


def _layout(data_dir: pathlib.Path, paths: Sequence[str]) -> dict[str, str]:
    """Returns the folder of each split; that of train is "" if the sub-folders are classes."""
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    splits = {top: _SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in _SPLIT_FOLDERS}
    others = sorted(tops - set(splits))
    held_out = sorted(top for top in splits if splits[top] != "train")
    # A class may well be called train (beside bus and tram), but hardly test.
    if not splits or (others and not held_out and not any(_by_class(paths, t) for t in splits)):
        return {"train": ""}
    if others:
        raise DataError(
            f"folder '{data_dir}' holds '{min(splits)}' beside '{others[0]}'; its sub-folders must "
            "be either all classes, or train, val and test"
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
        contents = (
            f"images of one class only, '{next(iter(train))}'" if train else "images, but no class"
        )
        raise DataError(f"folder '{train_dir}' holds {contents}; each class must be a sub-folder")
    empty = sorted(set(folders) - set(train))
    if empty:
        raise DataError(f"class folder '{train_dir / empty[0]}' holds no image")
    for split, root in roots.items():
        unknown = sorted(set(splits[split]) - set(train))
        if unknown:
            raise DataError(
                f"class folder '{data_dir / root / unknown[0]}' has no folder of the same name in "
                f"'{train_dir}' to train on"
            )


def _hold_out(train: Classes, splits: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Takes a tenth of each class out of train for each of ``splits``; returns train, too."""
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
