"""Keeps in a file which image of a folder is in which split and class. No TensorFlow here.

The file, split.csv in the run directory, is written once: so a photo that is added later never
moves another one from training into the test split.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.folder_layout import divide, read_layout, require_class_names
from efficientnetv2.data.sources.folder_scan import FolderScan, left_out_notice, scan_files
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
      notices: what a person should know of the folder, one line each.
    """

    data_dir: pathlib.Path
    class_names: Sequence[str]
    images: Mapping[str, Sequence[ImageFile]]
    notices: Sequence[str] = dataclasses.field(default=(), compare=False)


def open_folder_splits(
    data_dir: pathlib.Path,
    split_file: pathlib.Path | None = None,
    *,
    may_be_missing: bool = False,
) -> FolderSplits:
    """Reads the split file; if there is none yet, divides the folder's images and writes it.

    Args:
      data_dir: the folder of images.
      split_file: the CSV file that keeps the splits; None: not read and not written.
      may_be_missing: whether images that the split file lists may be gone.

    Raises:
      DataError: as ``scan_folder`` and ``load_folder_splits``.
      WriteError: if the split file cannot be written.
    """
    if split_file is not None and split_file.exists():
        return load_folder_splits(split_file, data_dir, may_be_missing=may_be_missing)
    splits = scan_folder(data_dir)
    if split_file is not None:
        save_folder_splits(splits, split_file)
    return splits


def scan_folder(data_dir: pathlib.Path) -> FolderSplits:
    """Divides the images of a folder into train, minival and test by its layout; see ``divide``.

    Raises:
      DataError: if there is no such folder, or its layout is not a known one.
    """
    layout = divide(data_dir)
    class_names = sorted(layout.splits["train"])
    images = {
        split: [
            ImageFile(path, label)
            for label, name in enumerate(class_names)
            for path in sorted(classes.get(name, ()))
        ]
        for split, classes in layout.splits.items()
    }
    return FolderSplits(data_dir, class_names, images, layout.notices)


def save_folder_splits(splits: FolderSplits, path: pathlib.Path) -> None:
    """Writes a split file (CSV: split, label, class, path), whole or not at all.

    Raises:
      WriteError: if the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    # By itself, csv does not quote a "\r" that ends no line, and then takes it for the end of one.
    quoting_writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    for split in SPLITS:
        for image in splits.images[split]:
            name = splits.class_names[image.label]
            suitable = quoting_writer if "\r" in image.path else writer
            suitable.writerow([split, image.label, name, image.path])
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # File names may be any bytes.
    content = text.getvalue().encode("utf-8", errors="surrogateescape")
    replace_bytes(path, content)


def load_folder_splits(
    path: pathlib.Path, data_dir: pathlib.Path, *, may_be_missing: bool = False
) -> FolderSplits:
    """Reads a split file. Images of the folder that it does not list are left out.

    Args:
      path: the split file.
      data_dir: the folder of images; it may have moved since the file was written.
      may_be_missing: whether images that it lists may be gone. They stay in their splits, so that
        all others keep their places, and reading them fails.

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
    require_class_names(names.values(), folder=data_dir)
    listed = {image.path for split in SPLITS for image in images[split]}
    if len(listed) < sum(map(len, images.values())):
        raise DataError(f"'{path}' lists an image twice")
    found = scan_files(data_dir)
    # The scanner may have come to an image by another path.
    unseen = sorted(listed.difference(found.images))
    missing = [image for image in unseen if not (data_dir / image).is_file()]
    if missing and not may_be_missing:
        raise _missing(missing, data_dir, path)
    gone = f"folder '{printable(data_dir)}': {len(missing):,} images that '{path}' lists are gone"
    notices = [f"{gone}, for example '{printable(missing[0])}'"] if missing else []
    notices += _notices(found, listed, set(names.values()), path)
    return FolderSplits(data_dir, [names[label] for label in sorted(names)], images, notices)


def _missing(missing: Sequence[str], data_dir: pathlib.Path, path: pathlib.Path) -> DataError:
    several = len(missing) > 1
    more = f" and {len(missing) - 1} more that" if several else ", which"
    return DataError(
        f"'{printable(data_dir)}' has no '{printable(missing[0])}'{more} '{path}' lists; put "
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
