"""Opens a user's own images: a folder with a sub-folder a class, or a table of labels.

No TensorFlow here.
"""

from __future__ import annotations

import pathlib

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.folder_splits import load_folder_splits, scan_folder
from efficientnetv2.data.sources.image_splits import ImageSplits
from efficientnetv2.data.sources.label_table import columns_of
from efficientnetv2.data.sources.split_file import save_splits
from efficientnetv2.data.sources.table_file import TABLE_FORMATS, is_table
from efficientnetv2.data.sources.table_splits import divide_table, load_table_splits
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.config import Config
from hparams.errors import DataError


def open_images(
    config: Config, split_file: pathlib.Path | None = None, *, writes: bool = False
) -> ImageSplits:
    """Returns the images of the folder or table ``data.data_dir`` by split.

    Args:
      config: its section data is read.
      split_file: keeps the splits, see ``split_file``; it counts if it exists. None: there is none.
      writes: whether to write it if it does not exist.

    Raises:
      DataError: if the folder, the table or the split file cannot be used, or an image is missing.
      WriteError: if the split file cannot be written.
    """
    data = config.data
    path = pathlib.Path(data.data_dir or "").expanduser()
    columns = columns_of(config)
    may_be_missing = data.on_bad_image == "skip"
    is_old = split_file is not None and split_file.exists()
    if is_table(path):
        if is_old:
            assert split_file is not None
            return load_table_splits(split_file, path, columns, may_be_missing=may_be_missing)
        splits = divide_table(path, columns, may_be_missing=may_be_missing)
    else:
        _require_folder(path, columns.given)
        if is_old:
            assert split_file is not None
            return load_folder_splits(split_file, path, may_be_missing=may_be_missing)
        splits = scan_folder(path)
    if split_file is not None and writes:
        save_splits(splits, split_file)
    return splits


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
