"""Reads how much memory this process can still take, in a container with a limit too."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

# Of a hierarchy of control groups: file of the limit, of the usage, and the entry of memory.stat
# for cached files that the kernel gives up when others need the memory.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def available_bytes(
    *,
    proc: pathlib.Path = pathlib.Path("/proc"),
    groups: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> int:
    """Returns the bytes of memory that are free, or used only by caches.

    It is what the machine has and what the limits of the control groups of this process leave,
    whichever is less.

    Args:
      proc: where the kernel describes processes and memory.
      groups: where it describes control groups, of version 1 or 2.
    """
    return min(_of_machine(proc), *_of_groups(proc, groups), 1 << 62)


def _of_machine(proc: pathlib.Path) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError):
        text = (proc / "meminfo").read_text(encoding="ascii")
        sizes = dict(line.split(":", 1) for line in text.splitlines())
        return int(sizes["MemAvailable"].split()[0]) * 1024  # it is in kB
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(proc: pathlib.Path, groups: pathlib.Path) -> Iterator[int]:
    """Yields what the limit of each group of this process, and of those around it, leaves."""
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                root, files = groups, _VERSION_2
            elif "memory" in controllers.split(","):
                root, files = groups / "memory", _VERSION_1
            else:
                continue
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                # In a container, a group may be known by a path that only the host has.
                with contextlib.suppress(OSError, ValueError):
                    yield _left(folder, *files)
                if folder == root:
                    break


def _left(folder: pathlib.Path, limit: str, usage: str, cache: str) -> int:
    """Returns what the limit of a group leaves; raises ValueError if it has none ("max")."""
    total = int((folder / limit).read_text(encoding="ascii"))
    used = int((folder / usage).read_text(encoding="ascii"))
    with contextlib.suppress(OSError, KeyError):
        text = (folder / "memory.stat").read_text(encoding="ascii")
        used -= int(dict(line.split() for line in text.splitlines())[cache])
    return max(total - used, 0)
