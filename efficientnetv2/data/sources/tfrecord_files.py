"""Finds TFRecord files, which are numbered, and their records' offsets. No TensorFlow here."""

from __future__ import annotations

import collections
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from hparams.errors import DataError

ShardFiles = Mapping[str, Sequence[pathlib.Path]]  # split -> files, in the order of their numbers

_NAME = re.compile(r"(train|validation)-(\d{5})-of-(\d{5})")
# Minival is 20 of ImageNet's 1,024 training files in the official code (its train split: the rest).
_MINIVAL_FRACTION = 20 / 1024
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


def find_shards(data_dir: pathlib.Path) -> ShardFiles:
    """Finds ``train-00000-of-01024``, ..., ``validation-00127-of-00128``, of any count.

    Returns:
      Files of ``train``, ``minival`` (the first 20 of 1,024 training files, at least one) and
      ``validation``; a split without files is left out.

    Raises:
      DataError: if there is no such folder, no such file, a number is missing, files of two counts
        are mixed, or there is only one file of train (minival needs one of its own).
    """
    if not data_dir.is_dir():
        what = "is a file; give the folder of the files" if data_dir.exists() else "does not exist"
        raise DataError(f"folder '{data_dir}' {what}")
    try:
        names = [path.name for path in data_dir.iterdir()]
    except OSError as error:
        raise DataError(f"cannot read '{data_dir}': {error.strerror}") from None
    groups: dict[str, dict[int, set[int]]] = collections.defaultdict(dict)
    for match in filter(None, map(_NAME.fullmatch, names)):
        kind, index, count = match[1], int(match[2]), int(match[3])
        groups[kind].setdefault(count, set()).add(index)
    if not groups:
        raise DataError(
            f"folder '{data_dir}' holds no TFRecord files train-00000-of-01024, ... and "
            "validation-00000-of-00128, ... (any count)"
        )
    files = {kind: _numbered(data_dir, kind, counts) for kind, counts in groups.items()}
    return _with_minival(data_dir, files)


def _numbered(
    data_dir: pathlib.Path, kind: str, counts: Mapping[int, set[int]]
) -> list[pathlib.Path]:
    if len(counts) > 1:
        several = " and ".join(f"{kind}-*-of-{count:05}" for count in sorted(counts))
        raise DataError(f"folder '{data_dir}' mixes {several}")
    count, indices = next(iter(counts.items()))
    files = [data_dir / f"{kind}-{index:05}-of-{count:05}" for index in range(count)]
    missing = sorted(set(range(count)) - indices)
    if missing:
        raise DataError(
            f"'{files[missing[0]]}' is missing ({len(missing)} of the {count} {kind} files are)"
        )
    return files


def _with_minival(data_dir: pathlib.Path, files: dict[str, list[pathlib.Path]]) -> ShardFiles:
    if "train" not in files:
        return files
    train = files["train"]
    if len(train) < 2:
        raise DataError(
            f"folder '{data_dir}' holds one train file only; the first one is kept as minival, so "
            "at least two are needed"
        )
    first = max(1, round(len(train) * _MINIVAL_FRACTION))
    return {**files, "train": train[first:], "minival": train[:first]}


def record_offsets(path: pathlib.Path) -> np.ndarray:
    """Returns the byte at which each record of a TFRecord file begins, without reading the records.

    Args:
      path: the file; each record is its length (8 bytes), a checksum (4), the data, a checksum (4).

    Returns:
      int64 ``[records]``.

    Raises:
      DataError: if the file is cut off, or cannot be read.
    """
    offsets, position = [], 0
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while position < size:
                offsets.append(position)
                file.seek(position)
                length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
                position += _LENGTH_BYTES + _CHECKSUM_BYTES + length + _CHECKSUM_BYTES
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}") from None
    if position > size:
        raise DataError(f"'{path}' is cut off, or broken, in record {len(offsets) - 1}")
    return np.array(offsets, np.int64)
