"""Lists the files of a folder of images, and says which of them are left out."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import os
import pathlib
from collections.abc import Iterable, Mapping

from efficientnetv2.data.sources.file_names import printable
from efficientnetv2.data.sources.image_suffixes import (
    NPY_SUFFIX,
    OTHER_IMAGES,
    PILLOW_SUFFIXES,
    is_image,
    readable_suffixes,
)
from hparams.errors import DataError

_MAX_KINDS = 6  # kinds of files left out that a message names
_MAX_SUFFIX = 8  # what is longer is no suffix, but the end of a name with a full stop in it

# Folders that operating systems put beside the files of people; some hold small pictures.
_SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
HIDDEN = "hidden"
BROKEN_LINK = "broken link"
FOLDER_SEEN = "link to a folder that is read already"
SPECIAL = "FIFO, socket or device"
OUTSIDE = "image outside of the class folders"
_PLURALS = {
    BROKEN_LINK: "broken links",
    FOLDER_SEEN: "links to folders that are read already",
    SPECIAL: "FIFOs, sockets or devices",
    OUTSIDE: "images outside of the class folders",
}


@dataclasses.dataclass(frozen=True)
class FolderScan:
    """The files and folders below a folder.

    Attributes:
      folder: the folder.
      images: the image files, relative to the folder, in no particular order.
      others: the other regular files, likewise.
      folders: all folders, likewise.
      left_out: number of files left out, by what they are.
      arrays: whether ``.npy`` files are images.
    """

    folder: pathlib.Path
    images: list[str]
    others: list[str]
    folders: list[str]
    left_out: Mapping[str, int]
    arrays: bool = False


def scan_files(folder: pathlib.Path, *, arrays: bool = False) -> FolderScan:
    """Lists the files and folders below a folder, without hidden ones (``.x``).

    Links to files are followed. A folder is read once, however many links lead to it: where it
    stands itself, if that is below the folder, otherwise by the link whose path comes first. A link
    to a folder that it stands in is left out, too.

    Args:
      folder: the folder.
      arrays: whether ``.npy`` files are images.

    Raises:
      DataError: if there is no such folder, or it cannot be read.
    """
    if not folder.is_dir():
        what = "is a file; give the folder of the images" if folder.exists() else "does not exist"
        raise DataError(f"folder '{printable(folder)}' {what}")
    try:
        return _Scanner(folder, arrays=arrays).scan()
    except OSError as error:
        name = printable(error.filename or folder)
        raise DataError(f"cannot read '{name}': {error.strerror}") from None


class _Scanner:
    """Reads folders one after the other; links to folders after everything else."""

    def __init__(self, root: pathlib.Path, *, arrays: bool) -> None:
        self._root = root
        self._arrays = arrays
        self._files: list[str] = []
        self._folders: list[str] = []
        self._links: list[str] = []  # a heap: which link is followed must not depend on the disk
        self._seen: set[tuple[int, int]] = set()
        self._left_out: collections.Counter[str] = collections.Counter()

    def scan(self) -> FolderScan:
        self._read_tree("")
        while self._links:
            link = heapq.heappop(self._links)
            if _stands_in(self._root / link):
                self._left_out[FOLDER_SEEN] += 1
            elif self._read_tree(link):
                self._folders.append(link)
        images: list[str] = []
        others: list[str] = []
        for path in self._files:
            (images if is_image(path, arrays=self._arrays) else others).append(path)
        self._left_out.update(count_kinds(others))
        return FolderScan(
            self._root, images, others, self._folders, self._left_out, arrays=self._arrays
        )

    def _read_tree(self, top: str) -> bool:
        """Reads a folder and those below it; returns False if it has been read before."""
        if not self._is_new(top):
            self._left_out[FOLDER_SEEN] += 1
            return False
        folders = [top]
        for folder in folders:  # the loop appends to it
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if self._add(entry, path) and self._is_new(path):
                        folders.append(path)
        self._folders += folders[1:]
        return True

    def _is_new(self, folder: str) -> bool:
        status = os.stat(self._root / folder)  # noqa: PTH116
        identity = status.st_dev, status.st_ino
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def _add(self, entry: os.DirEntry[str], path: str) -> bool:
        """Notes a file or a link; returns whether the entry is a folder to be read now."""
        if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
            self._left_out[HIDDEN] += 1
        elif entry.is_symlink():
            self._add_link(entry, path)
        elif entry.is_dir():  # known without asking the disk again
            return True
        elif entry.is_file():
            self._files.append(path)
        else:  # reading a FIFO or a device may never end
            self._left_out[SPECIAL] += 1
        return False

    def _add_link(self, entry: os.DirEntry[str], path: str) -> None:
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
            exists = is_folder or is_file or pathlib.Path(entry.path).exists()
        except OSError:  # a link to itself
            is_folder = is_file = exists = False
        if is_folder:
            heapq.heappush(self._links, path)
        elif is_file:
            self._files.append(path)
        else:
            self._left_out[SPECIAL if exists else BROKEN_LINK] += 1


def _stands_in(link: pathlib.Path) -> bool:
    """Returns whether a link leads to a folder that the link itself stands in."""
    return link.resolve() in (link.parent.resolve(), *link.parent.resolve().parents)


def count_kinds(paths: Iterable[str]) -> collections.Counter[str]:
    """Counts files that are not read by what they are: by their suffixes."""
    return collections.Counter(map(_kind, paths))


def _kind(path: str) -> str:
    """Returns as what a file that is not read is counted: by its suffix."""
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122
    if not suffix:
        return "without a suffix"
    return printable(suffix) if len(suffix) <= _MAX_SUFFIX else "other files"


def left_out_notice(folder: pathlib.Path, left_out: Mapping[str, int]) -> list[str]:
    """Returns one line about the files of a folder that are left out, or none if all are used.

    Args:
      folder: the folder.
      left_out: their number by what they are, as in ``FolderScan``.
    """
    kinds = sorted(
        (kind for kind, count in left_out.items() if count),
        key=lambda kind: (not _is_unread_image(kind), -left_out[kind], kind),
    )
    if not kinds:
        return []
    images = [kind for kind in kinds if _is_unread_image(kind)]
    shown = images + [kind for kind in kinds if kind not in images][:_MAX_KINDS]
    rest = sum(left_out[kind] for kind in kinds if kind not in shown)
    parts = [
        f"{left_out[kind]:,} {kind if left_out[kind] == 1 else _PLURALS.get(kind, kind)}"
        for kind in shown
    ]
    if images:
        parts[len(images) - 1] += " (convert them to JPEG or PNG)"
    if rest:
        parts.append(f"{rest:,} others")
    return [f"folder '{printable(folder)}': left out {', '.join(parts)}"]


def _is_unread_image(kind: str) -> bool:
    return kind in OTHER_IMAGES or kind in PILLOW_SUFFIXES


def no_image(found: FolderScan) -> str:
    """Returns the end of the message about a folder without an image."""
    notice = "".join(left_out_notice(found.folder, found.left_out)).partition(": ")[2]
    known = ", ".join(readable_suffixes(arrays=found.arrays))
    if not found.arrays and found.left_out.get(NPY_SUFFIX):
        notice += "; .npy files are images of other numbers of channels than 3: model.channels"
    return f"holds no image ({known}){f'; {notice}' if notice else ''}"
