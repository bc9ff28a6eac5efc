"""Finds the image files that ``--image_path`` names, for prediction and export.

Needs no TensorFlow, so that a wrong path is reported at once.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from efficientnetv2.data.sources.file_names import is_plain_text, printable
from efficientnetv2.data.sources.folder_scan import left_out_notice, no_image, scan_files
from efficientnetv2.data.sources.image_list import ImageList, read_image_list
from hparams.errors import UserError

_STANDARD_INPUT = "-"


def find_images(
    path: pathlib.Path, *, shard: tuple[int, int] = (1, 1), arrays: bool = False
) -> ImageList:
    """Returns the file itself, the images of a folder or pattern, sorted, or those of a list.

    Says in one line on stderr which files of a folder are left out.

    Args:
      path: a file, a folder, a pattern with ``*``, ``?``, ``[...]`` and ``**`` as in a shell, a
        list of paths (``.txt``, see ``read_image_list``), or ``-``: a list on standard input. As
        anywhere in a shell, what a list names is relative to the current folder. Its order stays,
        files may be named twice, and need not be there.
      shard: number, from 1, and count of shards; see ``ImageList``.
      arrays: whether ``.npy`` files of a folder are images.

    Raises:
      UserError: if there is no such file or folder, no image in the folder or list, or a file's
        name is not UTF-8 or has a control character: it could not be written into a list of
        predictions.
    """
    try:
        if str(path) == _STANDARD_INPUT:
            return read_image_list(_standard_input(), origin="standard input", shard=shard)
        if path.suffix.lower() == ".txt" and path.is_file():
            return _listed(path, shard=shard)
        files = _find(path, arrays=arrays)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--image_path: cannot read '{printable(path)}': {reason}") from None
    odd = [file for file in files if not is_plain_text(file)]
    if odd:
        more = f" ({len(odd)} such files)" if len(odd) > 1 else ""
        raise UserError(
            f"--image_path: rename '{printable(odd[0])}'{more}: a file's name must be UTF-8 "
            "without control characters"
        )
    images = ImageList(shard=shard)
    for file in files:
        images.add(file)
    return images


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise UserError(
            "--image_path=-: nothing is piped into standard input; for example "
            "find photos -name '*.jpg' | efficientnetv2 predict -"
        )
    return sys.stdin.buffer.read()


def _listed(path: pathlib.Path, *, shard: tuple[int, int]) -> ImageList:
    images = read_image_list(path.read_bytes(), origin=f"'{printable(path)}'", shard=shard)
    if len(images) and not images[0].exists() and (path.parent / images[0]).exists():
        raise UserError(
            f"'{printable(path)}': paths are relative to the current folder, and "
            f"'{printable(images[0])}' is not there but in the folder of the list: go to "
            f"'{printable(path.parent)}' first"
        )
    return images


def _find(path: pathlib.Path, *, arrays: bool) -> list[str]:
    """Returns the files as text: a million of it is 100 MB, of ``Path`` five times as much."""
    if path.is_file():
        return [str(path)]
    if not path.exists() and glob.has_magic(str(path)):
        files = _in_order(_matches(path))
        if not files:
            raise UserError(f"--image_path '{printable(path)}' matches no file")
        return files
    if not path.is_dir():
        what = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"--image_path '{printable(path)}' {what}; give an image file or a folder")
    found = scan_files(path, arrays=arrays)
    if not found.images:
        raise UserError(f"--image_path '{printable(path)}' {no_image(found)}")
    for line in left_out_notice(path, found.left_out):
        print(line, file=sys.stderr, flush=True)
    folder = str(path / "x")[:-1]
    return _in_order(folder + image for image in found.images)


def _in_order(files: Iterable[str]) -> list[str]:
    """Sorts as ``Path`` does: part by part, so that a folder's files stay together."""
    return sorted(files, key=lambda file: file.replace("/", "\0"))


def _matches(pattern: pathlib.Path) -> Iterator[str]:
    """Yields the files that match a pattern; hidden ones only if the pattern names the dot."""
    parts = pattern.parts
    if "**" not in parts:
        yield from filter(os.path.isfile, glob.glob(str(pattern)))  # noqa: PTH207
        return
    # ``glob`` would follow links in circles; the scanner does not.
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base = pathlib.Path(*parts[:first])
    if base.is_dir():
        found = scan_files(base)
        folder = str(base / "x")[:-1]
        for file in found.images + found.others:
            if _fits(file.split("/"), parts[first:]):
                yield folder + file


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Returns whether a file's relative path fits a pattern; ``**`` is any number of folders."""
    if pattern[0] == "**":
        last = len(pattern) == 1
        return last or any(_fits(parts[start:], pattern[1:]) for start in range(len(parts)))
    if not fnmatch.fnmatchcase(parts[0], pattern[0]):
        return False
    if len(parts) == 1 or len(pattern) == 1:
        return len(parts) == len(pattern)
    return _fits(parts[1:], pattern[1:])
