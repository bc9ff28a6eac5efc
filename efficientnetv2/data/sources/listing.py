"""A folder of images in; which file is in which split and class out. No TensorFlow here.

The split is written down once: a photo added later never moves another from training into the test.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from efficientnetv2.data.sources.errors import DataError
from efficientnetv2.data.sources.scan import divide, image_paths

SPLITS = ("train", "minival", "test")
_COLUMNS = ["split", "label", "class", "path"]


class Image(NamedTuple):
    """One file.

    Attributes:
      path: below the data folder, with ``/`` between the parts.
      label: index of its class.
    """

    path: str
    label: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a folder.

    Attributes:
      data_dir: the folder.
      class_names: in the order of the labels.
      images: split -> its images, in the order of their labels, then paths.
    """

    data_dir: pathlib.Path
    class_names: Sequence[str]
    images: Mapping[str, Sequence[Image]]


def open_listing(data_dir: pathlib.Path, listing_file: pathlib.Path | None = None) -> Listing:
    """Reads the listing from its file; if there is none yet, scans the folder and writes it.

    Args:
      data_dir: the folder of images.
      listing_file: where the listing is kept; None: nowhere.

    Raises:
      DataError: as ``scan_folder`` and ``load_listing``, or if the file cannot be written.
    """
    if listing_file is not None and listing_file.exists():
        return load_listing(listing_file, data_dir)
    listing = scan_folder(data_dir)
    if listing_file is not None:
        save_listing(listing, listing_file)
    return listing


def scan_folder(data_dir: pathlib.Path) -> Listing:
    """Divides the images of a folder into train, minival and test; layouts as in ``scan.divide``.

    Raises:
      DataError: if there is no such folder, or ``scan.divide`` cannot make sense of it.
    """
    splits = divide(data_dir)
    class_names = sorted(splits["train"])
    images = {
        split: [
            Image(path, label)
            for label, name in enumerate(class_names)
            for path in sorted(classes.get(name, ()))
        ]
        for split, classes in splits.items()
    }
    return Listing(data_dir, class_names, images)


def save_listing(listing: Listing, path: pathlib.Path) -> None:
    """Writes a listing as CSV (split, label, class, path), whole or not at all.

    Raises:
      DataError: if the file cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # File names may be any bytes.
        with draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for split in SPLITS:
                for image in listing.images[split]:
                    name = listing.class_names[image.label]
                    writer.writerow([split, image.label, name, image.path])
        draft.replace(path)
    except OSError as error:
        raise DataError(f"cannot write '{path}': {error.strerror or error}") from None


def load_listing(path: pathlib.Path, data_dir: pathlib.Path) -> Listing:
    """Reads what ``save_listing`` wrote. Images of the folder that it does not list are left out.

    Args:
      path: the listing.
      data_dir: the folder of images; it may have moved since.

    Raises:
      DataError: if the file is no listing, or an image that it lists is gone.
    """
    names: dict[int, str] = {}
    images: dict[str, list[Image]] = {split: [] for split in SPLITS}
    for line, (split, label, name, image) in _rows(path):
        if split not in images or not label.isdecimal() or names.get(int(label), name) != name:
            raise _no_listing(path, line)
        names[int(label)] = name
        images[split].append(Image(image, int(label)))
    if sorted(names) != list(range(len(names))):
        raise DataError(f"'{path}' does not number its classes from 0 on")
    listed = [image.path for split in SPLITS for image in images[split]]
    gone = sorted(set(listed) - set(image_paths(data_dir)))
    if gone:
        more = f" and {len(gone) - 1} more that" if len(gone) > 1 else ", which"
        raise DataError(f"'{data_dir}' has no '{gone[0]}'{more} '{path}' lists; put it back")
    if len(set(listed)) < len(listed):
        raise DataError(f"'{path}' lists an image twice")
    return Listing(data_dir, [names[label] for label in sorted(names)], images)


def _rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of a listing."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            if next(reader, None) != _COLUMNS:
                raise _no_listing(path, 1)
            for row in reader:
                if len(row) != len(_COLUMNS):
                    raise _no_listing(path, reader.line_num)
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from None
    except csv.Error as error:
        raise DataError(f"'{path}' is no CSV file: {error}") from None


def _no_listing(path: pathlib.Path, line: int) -> DataError:
    return DataError(f"line {line} of '{path}' is no row of {','.join(_COLUMNS)}")
