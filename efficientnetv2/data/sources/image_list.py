"""Holds the paths of millions of images in little memory, and reads lists of paths.

Needs no TensorFlow.
"""

from __future__ import annotations

import array
import codecs
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from efficientnetv2.data.sources.file_names import is_plain_text, printable
from hparams.errors import UserError

_SHOWN = 60  # bytes of a path in a message


class ImageList(Sequence[pathlib.Path]):
    """Paths of image files, in a fixed order; each takes its own bytes and 8 more (16 of a list).

    A shard ``(number, count)`` keeps a part of what is added: image k of the whole list, from 0, is
    in the shard with the number ``k % count + 1``. So the shards of a list share its images out
    evenly, whatever their number, and an image that is added at the end moves no other.

    Args:
      origin: the list that the paths come from, for messages; empty: they come from no list.
      shard: number, from 1, and count of shards.

    Attributes:
      total: number of images of the whole list.
    """

    def __init__(self, *, origin: str = "", shard: tuple[int, int] = (1, 1)) -> None:
        self.total = 0
        self._origin = origin
        self._shard = shard
        self._text = bytearray()
        self._ends = array.array("Q", [0])
        self._lines = array.array("Q")

    @classmethod
    def of(cls, paths: Iterable[str | pathlib.Path]) -> ImageList:
        """Returns a list of these paths.

        Raises:
          UserError: if a list of predictions cannot hold one of them.
        """
        images = cls()
        for path in paths:
            _require_plain(os.fspath(path), where="")
            images.add(os.fspath(path))
        return images

    def add(self, path: str, *, line: int = 0) -> None:
        """Adds the next path of the whole list, which stays if it is in this shard.

        Args:
          path: of the file, as text that the file system takes.
          line: its number in the list of ``origin``, from 1.
        """
        number, count = self._shard
        if self.total % count == number - 1:
            self._text += os.fsencode(path)
            self._ends.append(len(self._text))
            if self._origin:
                self._lines.append(line)
        self.total += 1

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> pathlib.Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[pathlib.Path]: ...
    def __getitem__(self, index: int | slice) -> pathlib.Path | list[pathlib.Path]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return pathlib.Path(os.fsdecode(self._encoded(index)))

    def __iter__(self) -> Iterator[pathlib.Path]:
        return (self[index] for index in range(len(self)))

    def _encoded(self, index: int) -> bytes:
        place = range(len(self))[index]  # raises IndexError, and counts from the end
        return bytes(self._text[self._ends[place] : self._ends[place + 1]])

    def name(self, index: int) -> str:
        """Returns a path as it was added, whatever the locale; raises if it is not UTF-8."""
        return self._encoded(index).decode("utf-8")

    def number(self, index: int) -> int:
        """Returns the number of an image in the whole list, from 1."""
        number, count = self._shard
        return index * count + number

    def place(self, index: int) -> str:
        """Returns where an image is listed, as the beginning of a message; "" without a list."""
        return f"{self._origin} line {self._lines[index]}: " if self._origin else ""


def read_image_list(encoded: bytes, *, origin: str, shard: tuple[int, int] = (1, 1)) -> ImageList:
    r"""Reads a list of paths: one a line, or with a NUL behind each as ``find -print0`` writes it.

    Lines may end in ``\n`` or ``\r\n``; blank ones are ignored; spaces belong to the path. A byte
    order mark is taken off, and UTF-16 with one is read, too.

    Args:
      encoded: the content of the list.
      origin: the list's name, for messages.
      shard: number, from 1, and count of shards.

    Raises:
      UserError: if a line is no path that a list of predictions can hold, or there is none.
    """
    if encoded.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoded = encoded.decode("utf-16", "replace").encode()  # Windows PowerShell writes it
    images = ImageList(origin=origin, shard=shard)
    for number, path in enumerate(_lines(encoded.removeprefix(codecs.BOM_UTF8)), start=1):
        if not path.strip():
            continue
        name = os.fsdecode(path)
        _require_plain(name, where=f"{origin} line {number}: ")
        images.add(name, line=number)
    if not images.total:
        raise UserError(f"{origin} names no image")
    return images


def _require_plain(path: str, *, where: str) -> None:
    if not is_plain_text(path):
        raise UserError(
            f"{where}'{printable(path[:_SHOWN])}' is not the path of an image: it must be UTF-8 "
            "without control characters"
        )


def _lines(encoded: bytes) -> Iterator[bytes]:
    is_nul = b"\0" in encoded
    start = 0
    while start < len(encoded):
        end = encoded.find(b"\0" if is_nul else b"\n", start)
        line = encoded[start : end if end >= 0 else None]
        yield line if is_nul else line.removesuffix(b"\r")
        start += len(line) + 1
