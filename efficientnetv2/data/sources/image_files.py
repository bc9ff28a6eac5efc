"""Finds the image files that ``--image_path`` names, for prediction and export.

Needs no TensorFlow, so that a wrong path is reported at once.
"""

from __future__ import annotations

import fnmatch
import glob
import pathlib
import sys
from collections.abc import Iterator, Sequence

from efficientnetv2.data.sources.file_names import is_plain_text, printable
from efficientnetv2.data.sources.folder_scan import left_out_notice, no_image, scan_files
from hparams.errors import UserError


def find_images(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the file itself, all images below a folder, or all files of a pattern, sorted.

    Says in one line on stderr which files of a folder are left out.

    Args:
      path: a file, a folder, or a pattern with ``*``, ``?``, ``[...]`` and ``**`` as in a shell.

    Raises:
      UserError: if there is no such file or folder, no image in the folder, or a file's name is
        not UTF-8 or has a control character: it could not be written into a list of predictions.
    """
    try:
        files = _find(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--image_path: cannot read '{printable(path)}': {reason}") from None
    odd = [file for file in files if not is_plain_text(str(file))]
    if odd:
        more = f" ({len(odd)} such files)" if len(odd) > 1 else ""
        raise UserError(
            f"--image_path: rename '{printable(odd[0])}'{more}: a file's name must be UTF-8 "
            "without control characters"
        )
    return files


def _find(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_file():
        return [path]
    if not path.exists() and glob.has_magic(str(path)):
        files = sorted(_matches(path))
        if not files:
            raise UserError(f"--image_path '{printable(path)}' matches no file")
        return files
    if not path.is_dir():
        what = "is no regular file" if path.exists() else "does not exist"
        raise UserError(f"--image_path '{printable(path)}' {what}; give an image file or a folder")
    found = scan_files(path)
    if not found.images:
        raise UserError(f"--image_path '{printable(path)}' {no_image(found)}")
    for line in left_out_notice(path, found.left_out):
        print(line, file=sys.stderr, flush=True)
    return sorted(path / image for image in found.images)


def _matches(pattern: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields the files that match a pattern; hidden ones only if the pattern names the dot."""
    parts = pattern.parts
    if "**" not in parts:
        matches = map(pathlib.Path, glob.glob(str(pattern)))  # noqa: PTH207
        yield from (match for match in matches if match.is_file())
        return
    # ``glob`` would follow links in circles; the scanner does not.
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    base = pathlib.Path(*parts[:first])
    if base.is_dir():
        found = scan_files(base)
        for file in found.images + found.others:
            if _fits(file.split("/"), parts[first:]):
                yield base / file


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
