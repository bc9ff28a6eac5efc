"""A file or a folder in; the image files in it out. No TensorFlow here."""

from __future__ import annotations

import glob
import pathlib

from hparams.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def find_images(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the file itself, all image files below a folder, or all files of a pattern, sorted.

    Args:
      path: of a file or folder, or with ``*``, ``?``, ``[...]`` and ``**`` as in a shell.

    Raises:
      UserError: if there is nothing at ``path``, or no image in the folder.
    """
    if path.is_file():
        return [path]
    if not path.exists() and glob.has_magic(str(path)):
        found = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        files = [file for file in found if file.is_file()]
        if not files:
            raise UserError(f"--image_path '{path}' matches no file")
        return files
    if not path.is_dir():
        raise UserError(f"--image_path '{path}' does not exist; give an image file or a folder")
    images = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not images:
        raise UserError(f"--image_path '{path}' holds no image ({', '.join(SUFFIXES)})")
    return images
