"""Finds files with equal bytes in two splits, which every training can afford to look for."""

from __future__ import annotations

import contextlib
import hashlib
import os

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_splits import SPLITS, ImageSplits

_MOST_IMAGES = 200_000  # whose sizes are asked for: about two seconds


def leak_notice(splits: ImageSplits) -> list[str]:
    """Returns a line on files that lie in two splits, or none. No TensorFlow here.

    Only files of the same size are read. Nothing is done with more than 200,000 images.
    """
    if sum(len(images) for images in splits.images.values()) > _MOST_IMAGES:
        return []
    by_size: dict[int, list[tuple[str, str]]] = {}  # size -> split and path
    for split in SPLITS:
        for image in splits.images[split]:
            with contextlib.suppress(OSError):  # training will say it, or skip the image
                size = os.stat(splits.root / image.path).st_size  # noqa: PTH116
                by_size.setdefault(size, []).append((split, image.path))
    count, example = 0, ("", "")
    for files in by_size.values():
        if len({split for split, _ in files}) < 2:
            continue
        first: dict[bytes, tuple[str, str]] = {}  # digest -> split and path of the first one
        for split, path in files:
            with contextlib.suppress(OSError):
                content = (splits.root / path).read_bytes()
                digest = hashlib.blake2b(content, digest_size=16).digest()
                earlier_split, earlier = first.setdefault(digest, (split, path))
                if earlier_split != split:
                    count, example = count + 1, example if count else (earlier, path)
    if not count:
        return []
    several = f"{count:,} files are" if count > 1 else "a file is"
    pair = " and ".join(f"'{printable(path)}'" for path in example)
    return [
        f"'{printable(splits.root)}': {several} in two splits ({pair}), so results look better "
        "than they are; --mode=check finds them all"
    ]
