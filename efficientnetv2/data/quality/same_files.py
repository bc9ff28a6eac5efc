"""Finds files with equal bytes in two splits or folds, which every training can afford."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import ImageFile

_MOST_IMAGES = 200_000  # whose sizes are asked for: about two seconds


def leak_notice(
    root: pathlib.Path, parts: Mapping[str, Sequence[ImageFile]], *, what: str = "splits"
) -> list[str]:
    """Returns a line on files that lie in two parts of the images, or none. No TensorFlow here.

    Only files of the same size are read. Nothing is done with more than 200,000 images.

    Args:
      root: the folder that paths are relative to.
      parts: name -> images.
      what: the parts are, in the message.
    """
    if sum(len(images) for images in parts.values()) > _MOST_IMAGES:
        return []
    by_size: dict[int, list[tuple[str, str]]] = {}  # size -> part and path
    for part, images in parts.items():
        for image in images:
            with contextlib.suppress(OSError):  # training will say it, or skip the image
                size = os.stat(root / image.path).st_size  # noqa: PTH116
                by_size.setdefault(size, []).append((part, image.path))
    count, example = 0, ("", "")
    for size, files in by_size.items():
        # Empty files are broken, not copies.
        if size == 0 or len({part for part, _ in files}) < 2:
            continue
        first: dict[bytes, tuple[str, str]] = {}  # digest -> part and path of the first one
        for part, path in files:
            with contextlib.suppress(OSError):
                content = (root / path).read_bytes()
                digest = hashlib.blake2b(content, digest_size=16).digest()
                earlier_part, earlier = first.setdefault(digest, (part, path))
                if earlier_part != part:
                    count, example = count + 1, example if count else (earlier, path)
    if not count:
        return []
    several = f"{count:,} files are" if count > 1 else "a file is"
    pair = " and ".join(f"'{printable(path)}'" for path in example)
    return [
        f"'{printable(root)}': {several} in two {what} ({pair}), so results look better "
        "than they are; --mode=check finds them all"
    ]
