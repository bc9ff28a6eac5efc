"""Keeps in a file which image is in which split, with its label. No TensorFlow here.

The file, split.csv in the run directory, is written once: so a photo that is added later never
moves another one from training into the test split, and a training goes on with the labels that it
began with.
"""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterator, Sequence

from efficientnetv2.data.sources.image_splits import HELD_OUT, SPLITS, ImageFile, ImageSplits, Label
from efficientnetv2.data.sources.table_file import SEPARATOR
from efficientnetv2.runtime.atomic_write import replace_bytes, write_error_for
from hparams.errors import DataError
from hparams.folds import parse_fold
from hparams.label_kinds import NUMBERS, ONE, SEVERAL

# Names of the columns by kind of labels; numbers have a column each, which begins with ``_TARGET``.
_COLUMNS = {
    ONE: ["split", "label", "class", "path"],
    SEVERAL: ["split", "labels", "classes", "path"],
    NUMBERS: ["split", "path"],
}
_TARGET = "target "
_WEIGHT = "weight"


def save_splits(splits: ImageSplits, path: pathlib.Path) -> None:
    """Writes a split file, whole or not at all.

    Its columns are ``split,label,class,path``; for several labels ``split,labels,classes,path``;
    for numbers ``split,path,target <name>,...``. If weights differ from 1, ``weight`` follows. The
    split of images that are held out says of which fold they are: ``held_out 2/5``.

    Raises:
      WriteError: if the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    # By itself, csv does not quote a "\r" that ends no line, and then takes it for the end of one.
    quoting_writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    has_weights = any(image.weight != 1 for split in splits.names for image in splits.images[split])
    writer.writerow(_header(splits.kind, splits.class_names, has_weights=has_weights))
    for split in splits.names:
        shown = f"{HELD_OUT} {splits.fold}" if split == HELD_OUT else split
        for image in splits.images[split]:
            cells = _cells(shown, image, splits)
            cells += [repr(image.weight)] if has_weights else []
            suitable = quoting_writer if any("\r" in cell for cell in cells) else writer
            suitable.writerow(cells)
    with write_error_for(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # File names may be any bytes.
    content = text.getvalue().encode("utf-8", errors="surrogateescape")
    replace_bytes(path, content)


def _header(kind: str, names: Sequence[str], *, has_weights: bool) -> list[str]:
    targets = [f"{_TARGET}{name}" for name in names] if kind == NUMBERS else []
    return [*_COLUMNS[kind], *targets, *([_WEIGHT] if has_weights else [])]


def _cells(split: str, image: ImageFile, splits: ImageSplits) -> list[str]:
    names, label = splits.class_names, image.label
    if isinstance(label, int):
        return [split, str(label), names[label], image.path]
    if splits.kind == NUMBERS:
        return [split, image.path, *map(repr, label)]
    numbers = SEPARATOR.join(map(str, label))
    return [split, numbers, SEPARATOR.join(names[int(number)] for number in label), image.path]


def load_splits(path: pathlib.Path, root: pathlib.Path) -> ImageSplits:
    """Reads a split file. Whether the images exist is not checked.

    Args:
      path: the split file.
      root: the folder that paths are relative to; it may have moved since the file was written.

    Raises:
      DataError: if the file is not a split file.
    """
    rows = _rows(path)
    line, header = next(rows, (1, []))
    has_weights = header[-1:] == [_WEIGHT]
    columns = header[:-1] if has_weights else header
    targets = [name for name in columns if name.startswith(_TARGET)]
    plain = columns[: len(columns) - len(targets)]
    kind = next((kind for kind, names in _COLUMNS.items() if names == plain), None)
    if kind is None or (kind == NUMBERS) != bool(targets):
        raise _bad_row(path, line, _COLUMNS[ONE])
    names: dict[int, str] = {}
    images: dict[str, list[ImageFile]] = {split: [] for split in (*SPLITS, HELD_OUT)}
    folds: set[str] = set()
    for line, cells in rows:
        try:
            if len(cells) != len(header):
                raise ValueError
            split = _split(cells[0], folds)
            weight = float(cells[-1]) if has_weights else 1.0
            label, image_path = _parse(kind, cells[: len(columns)], names)
        except ValueError:
            raise _bad_row(path, line, header) from None
        images[split].append(ImageFile(image_path, label, weight))
    if kind == NUMBERS:
        names = dict(enumerate(name[len(_TARGET) :] for name in targets))
    if sorted(names) != list(range(len(names))):
        raise DataError(f"'{path}' does not number its classes from 0 on")
    listed = {image.path for one in images.values() for image in one}
    if len(listed) < sum(map(len, images.values())):
        raise DataError(f"'{path}' lists an image twice")
    fold = folds.pop() if folds else None
    if fold is None:
        del images[HELD_OUT]
    class_names = [names[label] for label in sorted(names)]
    return ImageSplits(root, class_names, images, kind=kind, fold=fold)


def _split(cell: str, folds: set[str]) -> str:
    """Returns the split that a cell names, and adds its fold to ``folds``, which has one at most.

    Raises:
      ValueError: if it names none, or a second fold.
    """
    split, _, fold = cell.partition(" ")
    if split == HELD_OUT:
        folds.add(str(parse_fold(fold)))
    elif split not in SPLITS or fold:
        raise ValueError
    if len(folds) > 1:
        raise ValueError
    return split


def _parse(kind: str, cells: Sequence[str], names: dict[int, str]) -> tuple[Label, str]:
    """Returns label and path of a row, and adds its classes to ``names``.

    Raises:
      ValueError: if it is not a row of this kind.
    """
    if kind == NUMBERS:
        return tuple(map(float, cells[2:])), cells[1]
    _, label, name, path = cells
    if kind == ONE:
        return _class(label, name, names), path
    if not label:
        return (), path
    numbers, own_names = label.split(SEPARATOR), name.split(SEPARATOR)
    if len(numbers) != len(own_names):
        raise ValueError
    return tuple(_class(*pair, names) for pair in zip(numbers, own_names)), path


def _class(label: str, name: str, names: dict[int, str]) -> int:
    if not label.isdecimal() or names.setdefault(int(label), name) != name:
        raise ValueError
    return int(label)


def _rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the fields of each row of a split file."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            for row in reader:
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from None
    except csv.Error as error:
        raise DataError(f"'{path}' is not a CSV file: {error}") from None


def _bad_row(path: pathlib.Path, line: int, columns: Sequence[str]) -> DataError:
    return DataError(f"line {line} of '{path}' is not a row of {','.join(columns)}")
