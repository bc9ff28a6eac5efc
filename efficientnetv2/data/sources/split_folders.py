"""Finds which sub-folders of a folder hold its splits, and which its classes."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.split_names import is_filler, may_be_class, split_of
from hparams.errors import DataError

Tree = Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits, relative to the folder of the data.

    Attributes:
      roots: split -> folder in which its class folders stand. That of train is "" if there are no
        folders of splits.
      unlabelled: folder -> number of images in it, which have no classes.
      notices: what a person should know of them, one line each.
    """

    roots: Mapping[str, str]
    unlabelled: Mapping[str, int]
    notices: list[str]


def count_images(paths: Iterable[str]) -> Tree:
    """Counts images by their top folder, then by the folder below it; "": in none.

    Args:
      paths: of image files, with ``/`` between the parts; those in no folder are not counted.
    """
    tree: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in paths:
        top, *below = path.split("/", 2)
        if below:
            tree[top][below[0] if len(below) > 1 else ""] += 1
    return dict(tree)


def by_class(paths: Iterable[str], root: str) -> dict[str, list[str]]:
    """Groups paths ``<root>/<class>/...`` by class, or ``<class>/...`` if ``root`` is empty."""
    start = f"{root}/" if root else ""
    groups = collections.defaultdict(list)
    for path in paths:
        if path.startswith(start):
            name, slash, _ = path[len(start) :].partition("/")
            if slash:
                groups[name].append(path)
    return dict(groups)


def splits_inside_classes(
    data_dir: pathlib.Path, paths: Iterable[str], tree: Tree
) -> dict[str, dict[str, list[str]]] | None:
    """Groups paths ``<class>/<split>/...`` by split and class; None: the layout is another one.

    Raises:
      DataError: if a class has no image to train on.
    """
    if any(split_of(top) is not None and not may_be_class(top) for top in tree):
        return None
    inside = {split_of(name) for folders in tree.values() for name in folders}
    if "train" not in inside or len(inside) < 2 or not inside <= {"train", "minival", "test"}:
        return None
    splits: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        name, *below = path.split("/", 2)
        split = split_of(below[0]) if len(below) > 1 else None
        if split is not None:
            splits.setdefault(split, {}).setdefault(name, []).append(path)
    for name in tree:
        if name not in splits["train"]:
            raise DataError(
                f"class folder '{printable(data_dir / name)}' holds no folder 'train' with images"
            )
    if "test" not in splits:
        splits["test"] = splits.pop("minival")
    return splits


def find_split_folders(data_dir: pathlib.Path, paths: Sequence[str], tree: Tree) -> SplitFolders:
    """Finds the folders of the splits by their names.

    Args:
      data_dir: the folder of the data.
      paths: of its images, relative to it.
      tree: the result of ``count_images`` for these paths.

    Raises:
      DataError: if folders of splits stand beside others, there is none of train or two of one
        split, or it is not clear which folders are splits.
    """
    splits = {top: split for top in tree if (split := split_of(top)) is not None}
    if "train" not in splits.values():  # then a class may well be called "unlabelled"
        splits = {top: split for top, split in splits.items() if split != "predict"}
    others = sorted(set(tree) - set(splits))
    # A class may well be called train (beside bus and tram), but hardly test.
    if not splits or (
        others and all(may_be_class(top) and set(tree[top]) == {""} for top in splits)
    ):
        return SplitFolders({"train": ""}, {}, _same_folders_notice(data_dir, tree))
    if others:
        raise DataError(
            f"folder '{printable(data_dir)}' holds '{printable(min(splits))}' beside "
            f"'{printable(others[0])}'; its sub-folders must be either all classes, or train, val "
            "and test"
        )
    folders = {top: _class_root(paths, top) for top in splits}
    names = {
        name for top in splits if splits[top] == "train" for name in by_class(paths, folders[top])
    }
    unlabelled = {
        top: sum(tree[top].values())
        for top in sorted(splits)
        if splits[top] != "train" and names and _is_unlabelled(by_class(paths, folders[top]), names)
    }
    labelled = {top: split for top, split in splits.items() if top not in unlabelled}
    roots = _roots(data_dir, labelled, folders)
    return SplitFolders(roots, unlabelled, [_roots_notice(data_dir, roots)])


def _class_root(paths: Iterable[str], top: str) -> str:
    """Returns the folder in which a split's classes stand.

    That is the split's own folder, unless it holds a single one whose name is no class, as in
    ``seg_train/seg_train`` or ``train/images``.
    """
    root = top
    while True:
        inside = by_class(paths, root)
        name = next(iter(inside), "")
        is_class = not is_filler(name) and split_of(name) != split_of(top)
        if len(inside) != 1 or is_class or not by_class(inside[name], f"{root}/{name}"):
            return root
        root = f"{root}/{name}"


def _is_unlabelled(classes: Iterable[str], names: set[str]) -> bool:
    """Returns whether a split has no classes: no folders, or one that is no class of train."""
    folders = set(classes)
    return len(folders) < 2 and not folders & names


def _roots(
    data_dir: pathlib.Path, splits: Mapping[str, str], folders: Mapping[str, str]
) -> dict[str, str]:
    roots = {split: folders[top] for top, split in splits.items()}
    if len(roots) < len(splits):
        tops = ", ".join(map(printable, sorted(splits)))
        raise DataError(f"folder '{printable(data_dir)}' holds a split twice: {tops}")
    if "train" not in roots:
        raise DataError(
            f"folder '{printable(data_dir)}' holds '{printable(min(splits))}', but no 'train' "
            "beside it"
        )
    if "predict" in roots:
        raise DataError(
            f"folder '{printable(data_dir / roots['predict'])}' holds classes; call it test or val "
            "if they are to be compared with predictions"
        )
    if "minival" in roots and "test" not in roots:
        roots["test"] = roots.pop("minival")
    return roots


def _roots_notice(data_dir: pathlib.Path, roots: Mapping[str, str]) -> str:
    ordered = [split for split in ("train", "minival", "test") if split in roots]
    given = ", ".join(f"{split} is '{printable(roots[split])}'" for split in ordered)
    cut = [split for split in ("minival", "test") if split not in roots]
    tenths = f"; {' and '.join(cut)}: a tenth of train{' each' * (len(cut) > 1)}" if cut else ""
    return f"folder '{printable(data_dir)}': {given}{tenths}"


def _same_folders_notice(data_dir: pathlib.Path, tree: Tree) -> list[str]:
    """Returns a line about classes that all hold the same sub-folders, as splits do.

    Raises:
      DataError: if there are as many sub-folders as folders, or more: then those are the classes.
    """
    inside = [set(folders) for folders in tree.values()]
    together = set().union(*inside)
    are_classes = "" in together or any(is_filler(name) for name in together)
    if len(tree) < 2 or are_classes or together not in inside or min(map(len, inside)) < 2:
        return []
    tops, below = (
        " and ".join(f"'{printable(n)}'" for n in sorted(s)[:2]) for s in (tree, together)
    )
    text = (
        f"folder '{printable(data_dir)}': {tops} hold the same sub-folders, {below}, as splits do"
    )
    if len(together) < len(tree):
        return [f"{text}, but are taken for classes"]
    raise DataError(
        f"{text}; call them train, val and test, or, if they are classes, put their images "
        "straight into them"
    )
