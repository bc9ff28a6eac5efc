"""Writes the records of epochs as TensorBoard scalars."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from efficientnetv2.runtime.atomic_write import cannot_write


class TensorBoardWriter:
    """Writes each number in a record as a scalar.

    Args:
      path: folder for TensorBoard's event files; it is created with the first record.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._writer: tf.summary.SummaryWriter | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Writes one record; its ``step`` is the position on the horizontal axis.

        Raises:
          WriteError: if it cannot be written.
        """
        try:
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._path))
            with self._writer.as_default(step=line["step"]):
                for name, value in line.items():
                    if isinstance(value, (int, float)) and name != "step":
                        tf.summary.scalar(name, value)
            self._writer.flush()
        except tf.errors.OpError as error:
            raise cannot_write(self._path, error.message) from None
