"""Keeps in a file which image of a folder is in which split and class. No TensorFlow here.

The file, split.csv in the run directory, is written once: so a photo that is added later never
moves another one from training into the test split.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from efficientnetv2.data.sources.folder_layout import divide
from efficientnetv2.data.sources.image_files import image_paths
from efficientnetv2.runtime.atomic_write import replace_bytes, write_error_for
from hparams.errors import DataError

SPLITS = ("train", "minival", "test")
_COLUMNS = ["split", "label", "class", "path"]


class ImageFile(NamedTuple):
    """One image file of a folder.

    Attributes:
      path: relative to the folder, with ``/`` between the parts.
      label: index of its class.
    """

    path: str
    label: int


@dataclasses.dataclass(frozen=True)
class FolderSplits:
    """The images of a folder by split.

    Attributes:
      data_dir: the folder.
      class_names: in the order of the labels.
      images: split -> its images, in the order of their labels, then paths.
    """

    data_dir: pathlib.Path
    class_names: Sequence[str]
    images: Mapping[str, Sequence[ImageFile]]


def open_folder_splits(
    data_dir: pathlib.Path, split_file: pathlib.Path | None = None
) -> FolderSplits:
    """Reads the split file; if there is none yet, divides the folder's images and writes it.

    Args:
      data_dir: the folder of images.
      split_file: the CSV file that keeps the splits; None: not read and not written.

    Raises:
      DataError: as ``scan_folder`` and ``load_folder_splits``.
      WriteError: if the split file cannot be written.
    """
    if split_file is not None and split_file.exists():
        return load_folder_splits(split_file, data_dir)
    splits = scan_folder(data_dir)
    if split_file is not None:
        save_folder_splits(splits, split_file)
    return splits


def scan_folder(data_dir: pathlib.Path) -> FolderSplits:
    """Divides the images of a folder into train, minival and test by its layout; see ``divide``.

    Raises:
      DataError: if there is no such folder, or its layout is not a known one.
    """
    classes_of_splits = divide(data_dir)
    class_names = sorted(classes_of_splits["train"])
    images = {
        split: [
            ImageFile(path, label)
            for label, name in enumerate(class_names)
            for path in sorted(classes.get(name, ()))
        ]
        for split, classes in classes_of_splits.items()
    }
    return FolderSplits(data_dir, class_names, images)


def save_folder_splits(splits: FolderSplits, path: pathlib.Path) -> None:
    """Writes a split file (CSV: split, label, class, path), whole or not at all.

    Raises:
      WriteError: if the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for split in SPLITS:
        for image in splits.images[split]:
            name = splits.class_names[image.label]
            writer.writerow([split, image.label, name, image.path])
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # File names may be any bytes.
    content = text.getvalue().encode("utf-8", errors="surrogateescape")
    replace_bytes(path, content)


def load_folder_splits(path: pathlib.Path, data_dir: pathlib.Path) -> FolderSplits:
    """Reads a split file. Images of the folder that it does not list are left out.

    Args:
      path: the split file.
      data_dir: the folder of images; it may have moved since the file was written.

    Raises:
      DataError: if the file is not a split file, or an image that it lists is missing.
    """
    names: dict[int, str] = {}
    images: dict[str, list[ImageFile]] = {split: [] for split in SPLITS}
    for line, (split, label, name, image_path) in _rows(path):
        if split not in images or not label.isdecimal() or names.get(int(label), name) != name:
            raise _bad_row(path, line)
        names[int(label)] = name
        images[split].append(ImageFile(image_path, int(label)))
    if sorted(names) != list(range(len(names))):
        raise DataError(f"'{path}' does not number its classes from 0 on")
    listed = [image.path for split in SPLITS for image in images[split]]
    missing = sorted(set(listed) - set(image_paths(data_dir)))
    if missing:
        more = f" and {len(missing) - 1} more that" if len(missing) > 1 else ", which"
        raise DataError(f"'{data_dir}' has no '{missing[0]}'{more} '{path}' lists; put it back")
    if len(set(listed)) < len(listed):
        raise DataError(f"'{path}' lists an image twice")
    return FolderSplits(data_dir, [names[label] for label in sorted(names)], images)


def _rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the fields of each row of a split file."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != _COLUMNS:
                raise _bad_row(path, 1)
            for row in reader:
                if len(row) != len(_COLUMNS):
                    raise _bad_row(path, reader.line_num)
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from None
    except csv.Error as error:
        raise DataError(f"'{path}' is not a CSV file: {error}") from None


def _bad_row(path: pathlib.Path, line: int) -> DataError:
    return DataError(f"line {line} of '{path}' is not a row of {','.join(_COLUMNS)}")
