"""Opens a user's own images: a folder with a sub-folder a class, or a table of labels.

No TensorFlow here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.folder_splits import (
    load_folder_splits,
    scan_folder,
    scan_folds,
)
from efficientnetv2.data.sources.image_splits import ImageSplits, leave_out
from efficientnetv2.data.sources.label_table import TableColumns, columns_of
from efficientnetv2.data.sources.split_file import save_splits
from efficientnetv2.data.sources.table_file import TABLE_FORMATS, is_table
from efficientnetv2.data.sources.table_splits import (
    divide_table,
    divide_table_folds,
    load_table_splits,
)
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.config import Config
from hparams.errors import DataError
from hparams.folds import Fold, parse_fold


def open_images(
    config: Config, split_file: pathlib.Path | None = None, *, writes: bool = False
) -> ImageSplits:
    """Returns the images of the folder or table ``data.data_dir`` by split.

    Args:
      config: its section data is read, and ``train.seed`` for ``data.fold``.
      split_file: keeps the splits, see ``split_file``; it counts if it exists. None: there is none.
      writes: whether to write it if it does not exist.

    Raises:
      DataError: if the folder, the table or the split file cannot be used, or an image is missing.
      WriteError: if the split file cannot be written.
    """
    if split_file is not None and split_file.exists():
        return leave_out(_load(config, split_file), config.data.leave_out)
    if config.data.fold is not None:
        splits = divide_folds(config, [parse_fold(config.data.fold)])[0]
    else:
        splits = _divide(config)
    if split_file is not None and writes:
        save_splits(splits, split_file)  # of all classes
    return leave_out(splits, config.data.leave_out)


def _load(config: Config, split_file: pathlib.Path) -> ImageSplits:
    path, columns = _path_and_columns(config)
    may_be_missing = config.data.on_bad_image == "skip"
    if is_table(path):
        splits = load_table_splits(split_file, path, columns, may_be_missing=may_be_missing)
    else:
        splits = load_folder_splits(
            split_file, path, may_be_missing=may_be_missing, arrays=columns.arrays
        )
    if splits.fold != config.data.fold:
        own, asked = (
            f"fold {fold}" if fold else "no fold" for fold in (splits.fold, config.data.fold)
        )
        raise DataError(
            f"'{split_file}' holds out {own} of the images, but data.fold asks for {asked}; give "
            "the same, or another --model_dir"
        )
    return splits


def _divide(config: Config) -> ImageSplits:
    path, columns = _path_and_columns(config)
    if is_table(path):
        return divide_table(path, columns, may_be_missing=config.data.on_bad_image == "skip")
    return scan_folder(path, arrays=columns.arrays)


def divide_folds(config: Config, folds: Sequence[Fold]) -> list[ImageSplits]:
    """Divides the images of the folder or table ``data.data_dir`` for each of these folds.

    Args:
      config: its section data and ``train.seed`` are read.
      folds: all of one number of folds.

    Raises:
      DataError: if the folder or the table cannot be used, or not with so many folds.
    """
    path, columns = _path_and_columns(config)
    seed = config.train.seed
    if not is_table(path):
        return scan_folds(path, folds, seed=seed, arrays=columns.arrays)
    may_be_missing = config.data.on_bad_image == "skip"
    return divide_table_folds(path, columns, folds, seed=seed, may_be_missing=may_be_missing)


def _path_and_columns(config: Config) -> tuple[pathlib.Path, TableColumns]:
    """Returns the folder or table and the columns that the config names."""
    path = pathlib.Path(config.data.data_dir or "").expanduser()
    columns = columns_of(config)
    if not is_table(path):
        _require_folder(path, columns.given)
    return path, columns


def _require_folder(path: pathlib.Path, given: list[str]) -> None:
    if path.is_file():
        raise DataError(
            f"'{printable(path)}' is neither a folder of images nor a table "
            f"({', '.join(TABLE_FORMATS)})"
        )
    if given:
        raise DataError(
            f"{given[0]} names a column of a table, but '{printable(path)}' is a folder"
        )


def images_of_run(config: Config, run: RunDirectory | None) -> ImageSplits:
    """Returns the same as ``open_images`` with the splits of a run, if it has any; writes nothing.

    Args:
      config: its section data is read.
      run: run directory; None: there is none.
    """
    return open_images(config, None if run is None else run.split_file)
