"""Writes images by split as a table of labels, which can be read again. No TensorFlow here."""

from __future__ import annotations

import csv
import io
import os
import pathlib
from collections.abc import Sequence

from efficientnetv2.data.sources.image_splits import ImageFile, ImageSplits
from efficientnetv2.data.sources.table_file import SEPARATOR
from efficientnetv2.runtime.atomic_write import replace_bytes
from hparams.errors import UserError
from hparams.label_kinds import NUMBERS, ONE, SEVERAL

WRITTEN = {".csv": ",", ".tsv": "\t"}  # ending -> delimiter
_SPLIT_NAMES = {"train": "train", "minival": "val", "test": "test"}
_OTHER_COLUMNS = ("path", "split", "weight")
_LABEL_COLUMN = {ONE: "label", SEVERAL: "labels"}


def write_table(splits: ImageSplits, path: pathlib.Path) -> tuple[int, str]:
    """Writes a table with the columns ``path``, ``label`` (or ``labels``, or numbers), ``split``.

    Paths are relative to the folder of the table, except those that were absolute. If weights
    differ from 1, ``weight`` follows. Beside numbers of the same name, these are ``image_path``,
    ``image_split`` and ``image_weight``.

    Args:
      splits: the images.
      path: of the table; its ending is one of ``WRITTEN``.

    Returns:
      The number of images, and the flags that the table needs to be read, each with a space before.

    Raises:
      UserError: if it has another ending, or the folder does not exist.
      WriteError: if it cannot be written.
    """
    if path.suffix.lower() not in WRITTEN:
        raise UserError(f"--write_table must end in {' or '.join(WRITTEN)}, got '{path}'")
    if not path.parent.is_dir():
        raise UserError(f"--write_table={path}: the folder '{path.parent}' does not exist")
    images = [(split, image) for split in splits.names for image in splits.images[split]]
    has_weights = any(image.weight != 1 for _, image in images)
    labels = splits.class_names if splits.kind == NUMBERS else [_LABEL_COLUMN[splits.kind]]
    text = io.StringIO(newline="")
    # All cells are quoted: a name may hold line breaks and delimiters.
    writer = csv.writer(
        text, delimiter=WRITTEN[path.suffix.lower()], lineterminator="\n", quoting=csv.QUOTE_ALL
    )
    names = {name: _free(name, labels) for name in _OTHER_COLUMNS}
    path_name, split_name, weight_name = names.values()
    header = [path_name, *labels, split_name]
    writer.writerow([*header, weight_name] if has_weights else header)
    start = os.path.relpath(splits.root, path.parent)
    for split, image in images:
        cells = [os.path.normpath(os.path.join(start, image.path))]  # noqa: PTH118
        cells += [*_labels(image, splits), _SPLIT_NAMES[split]]
        writer.writerow([*cells, *([repr(image.weight)] if has_weights else [])])
    replace_bytes(path, text.getvalue().encode("utf-8", errors="surrogateescape"))
    used = names if has_weights else {name: names[name] for name in ("path", "split")}
    flags = [f" --{name}_column={free}" for name, free in used.items() if free != name]
    if splits.kind == NUMBERS:
        flags.insert(0, f" --target_columns={','.join(splits.class_names)}")
    return len(images), "".join(flags)


def _free(name: str, labels: Sequence[str]) -> str:
    """Returns a name for a column that none of the labels has."""
    taken = {label.strip().lower() for label in labels}
    return name if name not in taken else _free(f"image_{name}", labels)


def _labels(image: ImageFile, splits: ImageSplits) -> Sequence[str]:
    names, label = splits.class_names, image.label
    if isinstance(label, int):
        return [names[label]]
    if splits.kind == NUMBERS:
        return [repr(number) for number in label]
    return [SEPARATOR.join(names[int(number)] for number in label)]
