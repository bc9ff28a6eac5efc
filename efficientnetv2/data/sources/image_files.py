"""Finds the image files of a folder, for training, prediction and export alike.

Needs no TensorFlow, so that a wrong path is reported at once.
"""

from __future__ import annotations

import glob
import os
import pathlib

from hparams.errors import DataError, UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def find_images(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the file itself, all images below a folder, or all files of a pattern, sorted.

    Args:
      path: a file, a folder, or a pattern with ``*``, ``?``, ``[...]`` and ``**`` as in a shell.

    Raises:
      UserError: if there is no such file or folder, or no image in the folder.
    """
    if path.is_file():
        return [path]
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        files = [match for match in matches if match.is_file()]
        if not files:
            raise UserError(f"--image_path '{path}' matches no file")
        return files
    if not path.is_dir():
        raise UserError(f"--image_path '{path}' does not exist; give an image file or a folder")
    images = sorted(path / image for image in image_paths(path))
    if not images:
        raise UserError(f"--image_path '{path}' holds no image ({', '.join(SUFFIXES)})")
    return images


def image_paths(data_dir: pathlib.Path) -> list[str]:
    """Returns the paths of all images below a folder, relative to it, in no particular order.

    Raises:
      DataError: if there is no such folder, or it cannot be read.
    """
    return list(filter(is_image, walk(data_dir)[0]))


def is_image(path: str) -> bool:
    """Returns whether a file name has the suffix of an image."""
    return path.lower().endswith(SUFFIXES)


def walk(data_dir: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns the paths of all files and folders below a folder, relative to it.

    Hidden ones are left out. Links to folders are followed, unless they lead in a circle.

    Raises:
      DataError: if there is no such folder, or it cannot be read.
    """
    if not data_dir.is_dir():
        what = "is a file; give the folder of the images" if data_dir.exists() else "does not exist"
        raise DataError(f"folder '{data_dir}' {what}")
    files, folders = [], [""]
    try:
        for folder in folders:  # the loop appends to it
            with os.scandir(data_dir / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        continue
                    if not entry.is_dir():  # known without asking the disk again
                        files.append(path)
                    elif not (entry.is_symlink() and _holds(entry.path, data_dir / folder)):
                        folders.append(path)
    except OSError as error:
        raise DataError(f"cannot read '{error.filename}': {error.strerror}") from None
    return files, folders[1:]


def _holds(outer: str, inner: pathlib.Path) -> bool:
    inner = inner.resolve()
    return pathlib.Path(outer).resolve() in (inner, *inner.parents)
