"""Divides the images of a table of labels by split. No TensorFlow here."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.fold_splits import assign_folds
from efficientnetv2.data.sources.folder_splits import fold_notice, missing_notice
from efficientnetv2.data.sources.image_splits import (
    HELD_OUT,
    ImageFile,
    ImageSplits,
    hold_out,
)
from efficientnetv2.data.sources.label_table import (
    LabelRow,
    LabelTable,
    TableColumns,
    read_label_table,
)
from efficientnetv2.data.sources.split_file import load_splits
from hparams.errors import DataError
from hparams.folds import Fold
from hparams.label_kinds import NUMBERS, ONE, SEVERAL

_TENTHS = 10
_SEED = 2104_00298


def divide_table(
    path: pathlib.Path, columns: TableColumns, *, may_be_missing: bool = False
) -> ImageSplits:
    """Reads a table of labels and divides its images into train, minival and test.

    Missing splits are taken from train: a tenth each, of each class (see ``hold_out``), or of each
    rarest class of an image where it may have several. Images of one group stay together; then
    ``StratifiedGroupKFold`` of scikit-learn divides.

    Args:
      path: of the table; paths in it are relative to its folder.
      columns: those that the config names.
      may_be_missing: whether images that it lists may be missing.

    Raises:
      DataError: as ``read_label_table``, or if there is no image to train on, a class has none, an
        image is missing, or a group is in two splits.
    """
    table = read_label_table(path, columns)
    notices = _missing_notice(table, may_be_missing=may_be_missing)
    given = _given_splits(table)
    _check_groups(table, given)
    missing = [split for split in ("test", "minival") if split not in given]
    splits = {**given, **_held_out(table, given["train"], missing)}
    _check_classes(table, splits)
    notices.insert(0, _notice(table, splits, missing))
    images = _images({split: splits.get(split, ()) for split in ("train", "minival", "test")})
    return ImageSplits(path.parent, table.class_names, images, notices, table.kind)


def divide_table_folds(
    path: pathlib.Path,
    columns: TableColumns,
    folds: Sequence[Fold],
    *,
    seed: int,
    may_be_missing: bool = False,
) -> list[ImageSplits]:
    """Reads a table of labels and divides its images for a training of each of these folds.

    Images that the table marks as test stay out of the folds; all others take part. Minival is
    taken from what a fold leaves to train on, as ``divide_table`` does it.

    Args:
      path: as in ``divide_table``.
      columns: as there.
      folds: all of one number of folds.
      seed: see ``assign_folds``.
      may_be_missing: as in ``divide_table``.

    Raises:
      DataError: as ``divide_table`` and ``assign_folds``.
    """
    table = read_label_table(path, columns)
    notices = _missing_notice(table, may_be_missing=may_be_missing)
    given = _given_splits(table)
    pool = [*given["train"], *given.get("minival", ())]
    test = given.get("test", [])
    _check_groups(table, {"train": pool, "test": test})
    _check_classes(table, {"train": pool})
    fold_of = assign_folds(
        {row.path: row.label for row in pool},
        {row.path: row.group for row in pool},
        kind=table.kind,
        class_names=table.class_names,
        count=folds[0].count,
        seed=seed,
    )
    divided = []
    for fold in folds:
        rest = [row for row in pool if fold_of[row.path] != fold.number]
        held = [row for row in pool if fold_of[row.path] == fold.number]
        splits = {**_held_out(table, rest, ["minival"]), "test": test, HELD_OUT: held}
        images = _images(splits)
        said = [fold_notice(f"table '{printable(path)}'", fold, images), *notices]
        root, names = path.parent, table.class_names
        divided.append(ImageSplits(root, names, images, said, table.kind, str(fold)))
    return divided


def _images(splits: Mapping[str, Iterable[LabelRow]]) -> dict[str, list[ImageFile]]:
    return {
        split: [ImageFile(row.path, row.label, row.weight) for row in sorted(rows, key=_order)]
        for split, rows in splits.items()
    }


def load_table_splits(
    split_file: pathlib.Path,
    path: pathlib.Path,
    columns: TableColumns,
    *,
    may_be_missing: bool = False,
) -> ImageSplits:
    """Reads a split file; its labels count, also where those of the table have changed since.

    Args:
      split_file: the file.
      path: of the table, as in ``divide_table``.
      columns: as in ``divide_table``.
      may_be_missing: as in ``load_folder_splits``.

    Raises:
      DataError: if the file is not a split file, or an image that it lists is missing.
    """
    splits = load_splits(split_file, path.parent)
    images = [image for split in splits.names for image in splits.images[split]]
    gone = [image.path for image in images if not _exists(path.parent, image.path)]
    notices = missing_notice(gone, split_file, root=path.parent, may_be_missing=may_be_missing)
    try:
        table = read_label_table(path, columns)
    except DataError as error:
        notices.append(f"{error}; '{split_file}' is used")
    else:
        notices += _change_notice(table, splits, split_file)
    return dataclasses.replace(splits, notices=notices)


def _change_notice(table: LabelTable, splits: ImageSplits, split_file: pathlib.Path) -> list[str]:
    """Returns one line about rows that are new or have another label, or none."""
    known = {image.path: image.label for split in splits.names for image in splits.images[split]}
    new = sum(row.path not in known for row in table.rows)
    changed = sum(
        row.path in known
        and _named(row.label, table.class_names) != _named(known[row.path], splits.class_names)
        for row in table.rows
    )
    parts = [f"{new:,} new rows"] * (new > 0) + [f"{changed:,} other labels"] * (changed > 0)
    if not parts:
        return []
    return [
        f"table '{printable(table.table.path)}': {' and '.join(parts)} are not in '{split_file}' "
        "and not used; another --model_dir reads the table anew"
    ]


def _named(label: object, names: Sequence[str]) -> object:
    if isinstance(label, int):
        return names[label]
    assert isinstance(label, tuple)
    return {names[item] if isinstance(item, int) else item for item in label}


def _exists(root: pathlib.Path, path: str) -> bool:
    return os.path.isfile(os.path.join(root, path))  # noqa: PTH113, PTH118  # of a million


def _missing_notice(table: LabelTable, *, may_be_missing: bool) -> list[str]:
    root = table.table.path.parent
    missing = [row for row in table.rows if not _exists(root, row.path)]
    if not missing:
        return []
    more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
    first = f"there is no image '{printable(root / missing[0].path)}'{more}"
    if not may_be_missing:
        raise table.table.error(
            f"{first}; data.on_bad_image=skip leaves out what is missing",
            row=missing[0].row,
            column=table.columns["path"],
        )
    return [f"table '{printable(table.table.path)}': {first}; left out"]


def _given_splits(table: LabelTable) -> dict[str, list[LabelRow]]:
    """Returns the splits that the table has; train is one of them."""
    splits: dict[str, list[LabelRow]] = collections.defaultdict(list)
    for row in table.rows:
        splits[row.split or "train"].append(row)
    if "train" not in splits:
        raise table.table.error("no image is of the split train", column=table.columns["split"])
    if "minival" in splits and "test" not in splits:
        # As with folders: results compare with those of others.
        splits["test"] = splits.pop("minival")
    return dict(splits)


def _check_groups(table: LabelTable, splits: Mapping[str, Iterable[LabelRow]]) -> None:
    """Checks that no group of the table is in two splits."""
    seen: dict[str, tuple[str, int]] = {}
    for split, rows in splits.items():
        for row in rows:
            other, first = seen.setdefault(row.group, (split, row.row))
            if row.group and other != split:
                raise table.table.error(
                    f"'{printable(row.group)}' is in {split} here and in {other} in row {first}; "
                    "a group must stay in one split",
                    row=row.row,
                    column=table.columns["group"],
                )


def _strata(table: LabelTable, rows: Iterable[LabelRow]) -> dict[str, str]:
    """Returns path -> what each split should have its share of: the class, or the rarest one."""
    if table.kind == NUMBERS:
        return {row.path: "" for row in rows}
    if table.kind == ONE:
        return {row.path: str(row.label) for row in rows}
    rows = list(rows)
    counts = collections.Counter(label for row in rows for label in _labels(row))
    return {
        row.path: str(min(_labels(row), key=lambda label: (counts[label], label), default=""))
        for row in rows
    }


def _labels(row: LabelRow) -> Sequence[float]:
    """Returns the numbers of the classes of an image, or the numbers to be predicted."""
    return (row.label,) if isinstance(row.label, int) else row.label


def _held_out(
    table: LabelTable, train: Sequence[LabelRow], missing: Sequence[str]
) -> dict[str, list[LabelRow]]:
    """Takes a tenth of train for each split that is missing."""
    if not missing:
        return {"train": list(train)}
    strata = _strata(table, train)
    if any(row.group for row in train):
        return _held_out_groups(table, train, strata, missing)
    classes: dict[str, list[str]] = collections.defaultdict(list)
    for row in train:
        classes[strata[row.path]].append(row.path)
    by_path = {row.path: row for row in train}
    return {
        split: [by_path[path] for paths in divided.values() for path in paths]
        for split, divided in hold_out(classes, missing).items()
    }


def _held_out_groups(
    table: LabelTable,
    train: Sequence[LabelRow],
    strata: Mapping[str, str],
    missing: Sequence[str],
) -> dict[str, list[LabelRow]]:
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second

    rows = sorted(train, key=lambda row: row.path)
    # An image without a group is one by itself.
    groups = [row.group or f"\0{row.path}" for row in rows]
    labels = [strata[row.path] for row in rows]
    most_common = collections.Counter(labels).most_common(1)[0][1]
    folds = min(_TENTHS, len(set(groups)), most_common)
    if folds <= len(missing):
        raise table.table.error(
            f"{len(set(groups))} groups are too few to take {' and '.join(missing)} out of train",
            column=table.columns["group"],
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=_SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer images than folds
        chosen = [list(held) for _, held in splitter.split(labels, labels, groups)]
    split_of_row = dict.fromkeys(range(len(rows)), "train")
    for split, held in zip(missing, chosen):
        split_of_row.update(dict.fromkeys(map(int, held), split))
    _give_back(rows, groups, split_of_row)
    divided: dict[str, list[LabelRow]] = {split: [] for split in ("train", *missing)}
    for index, split in split_of_row.items():
        divided[split].append(rows[index])
    return divided


def _give_back(
    rows: Sequence[LabelRow], groups: Sequence[str], split_of_row: dict[int, str]
) -> None:
    """Moves groups back into train until each class has an image there; changes the last one."""
    classes = {label for row in rows for label in _labels(row) if isinstance(label, int)}
    for label in sorted(classes):
        members = [index for index, row in enumerate(rows) if label in _labels(row)]
        if all(split_of_row[index] != "train" for index in members):
            group = groups[members[0]]
            for index, name in enumerate(groups):
                if name == group:
                    split_of_row[index] = "train"


def _check_classes(table: LabelTable, splits: Mapping[str, Sequence[LabelRow]]) -> None:
    """Checks that there are classes, and that each has an image to train on."""
    if table.kind == NUMBERS:
        return
    column = table.label_columns[0]
    if not table.class_names:
        raise table.table.error("no image has a label", column=column)
    if table.kind == ONE and len(table.class_names) < 2:
        raise table.table.error(
            f"all images are of one class, '{printable(table.class_names[0])}'", column=column
        )
    trained = {label for row in splits["train"] for label in _labels(row)}
    for number, name in enumerate(table.class_names):
        if number in trained:
            continue
        if len(table.label_columns) > 1:
            raise table.table.error("it is 0 in all images of train", column=name)
        row = next(row for row in table.rows if number in _labels(row))
        raise table.table.error(
            f"'{printable(name)}' has no image in train", row=row.row, column=column
        )


def _order(row: LabelRow) -> tuple[object, str]:
    """Returns by what images are sorted: by their class, then their path."""
    return (row.label if isinstance(row.label, int) else 0, row.path)


def _notice(
    table: LabelTable, splits: Mapping[str, Sequence[LabelRow]], missing: Sequence[str]
) -> str:
    """Returns one line that says how the table was understood."""
    columns = ", ".join(f"'{printable(name)}'" for name in table.label_columns[:3])
    more = f" and {len(table.label_columns) - 3} more" if len(table.label_columns) > 3 else ""
    what = {
        ONE: f"one of {len(table.class_names):,} classes",
        SEVERAL: f"any of {len(table.class_names):,} classes",
        NUMBERS: f"{len(table.class_names)} number{'s' * (len(table.class_names) > 1)}",
    }[table.kind]
    sizes = ", ".join(
        f"{split} {len(splits.get(split, ())):,}" for split in ("train", "minival", "test")
    )
    text = f"table '{printable(table.table.path)}': {what} an image ({columns}{more}); {sizes}"
    if missing:
        group = table.columns.get("group")
        whole = f", groups of '{printable(group)}' kept whole" if group else ""
        text += f" ({' and '.join(missing)}: a tenth of train{' each' * (len(missing) > 1)}{whole})"
    if table.unlabelled:
        text += f"; {table.unlabelled:,} images without labels are not used"
    return text
