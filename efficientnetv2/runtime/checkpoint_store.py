"""Manages checkpoint files: finds the newest intact one, writes, repairs and prunes.

A checkpoint is ``ckpt-<step>.index``, ``ckpt-<step>.data-*`` and ``ckpt-<step>.sha256``, the
checksums of the others (``sha256sum --check`` reads them). It is written in ``ckpt-<step>.tmp/``
and moved out of there once it is complete. This module deals with files only and imports no
TensorFlow.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import re
import shutil
import sys
from collections.abc import Callable

from efficientnetv2.runtime.atomic_write import (
    remove_all_drafts,
    replace_text,
    sync,
    write_error_for,
)
from efficientnetv2.runtime.run_directory import RunDirectory, RunError

_CHUNK_BYTES = 1 << 20
_MAX_LISTED = 2  # damaged checkpoints that an error message lists


def latest_checkpoint(run: RunDirectory) -> str:
    """Returns the path prefix of the newest intact checkpoint of a run.

    Raises:
      RunError: if there is none.
    """
    latest = find_checkpoint(run)
    if latest is None:
        raise RunError(f"'{run.checkpoints}' holds no checkpoint; train first with --mode=train")
    return latest


def require_usable(run: RunDirectory) -> None:
    """Checks that a run has an intact checkpoint, or none at all.

    Raises:
      RunError: as ``find_checkpoint``.
    """
    _find_newest(run)


def find_checkpoint(run: RunDirectory) -> str | None:
    """Returns the path prefix of the newest intact checkpoint of a run, or None if it has none yet.

    Prints a warning to stderr for each newer one that is damaged. The files themselves decide, not
    TensorFlow's ``checkpoint`` file: that may get lost when a run is copied, and training would
    then start over.

    Raises:
      RunError: if there are checkpoints, but all are damaged.
    """
    path, damaged = _find_newest(run)
    for description in damaged if path else []:
        print(f"warning: checkpoint {description}; using '{path}' instead", file=sys.stderr)
    return path


def _find_newest(run: RunDirectory) -> tuple[str | None, list[str]]:
    """Returns the newest intact checkpoint, and descriptions of the damaged ones after it."""
    damaged: list[str] = []
    for step in reversed(steps(run.checkpoints)):
        path = str(run.checkpoints / f"ckpt-{step}")
        damage = find_damage(run.checkpoints, step)
        if damage is None:
            return path, damaged
        if not is_in_flux(run.checkpoints, step):
            damaged.append(f"'{path}' is damaged: {damage}")
    if damaged:
        more = f" (and {len(damaged) - _MAX_LISTED} more)" if len(damaged) > _MAX_LISTED else ""
        raise RunError(
            f"no checkpoint can be used: {'; '.join(damaged[:_MAX_LISTED])}{more}; restore an "
            "intact copy, or start over in another --model_dir"
        )
    return None, []


def step_of(checkpoint: str) -> int:
    """Returns the number of steps after which the checkpoint of a path prefix was saved."""
    return int(checkpoint.rpartition("-")[2])


def steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of all checkpoints in a folder, intact or not, in ascending order."""
    names = [path.name for path in _list_files(folder)]
    matches = (re.fullmatch(r"ckpt-(\d+)\.(index|data-.+|sha256)", name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


def _list_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def is_in_flux(folder: pathlib.Path, step: int) -> bool:
    """Returns whether a checkpoint is just being written or was removed, so is not damaged."""
    return (folder / f"ckpt-{step}.tmp").exists() or not list(folder.glob(f"ckpt-{step}.*"))


def is_whole(path: str) -> bool:
    """Returns whether all files of a checkpoint, given by its path prefix, are intact."""
    prefix = pathlib.Path(path)
    return find_damage(prefix.parent, int(prefix.name.removeprefix("ckpt-"))) is None


def find_damage(folder: pathlib.Path, step: int) -> str | None:
    """Returns a short description of what is wrong with a checkpoint's files, or None if intact."""
    try:
        checksums = _read_checksums(folder, step)
        files = {file.name: file for file in folder.glob(f"ckpt-{step}.*") if file.is_file()}
        files.pop(f"ckpt-{step}.sha256", None)
        for name in sorted({*checksums, *files, f"ckpt-{step}.index"}):
            if name not in files:
                return f"{name} is missing"
            if name not in checksums:
                return f"{name} has no checksum"
            stat = files[name].stat()
            if _sha256(files[name], stat.st_size, stat.st_mtime_ns) != checksums[name]:
                return f"{name} does not match its checksum"
    except (OSError, UnicodeDecodeError) as error:
        name = f"ckpt-{step}.sha256"
        if isinstance(error, FileNotFoundError):
            return f"{name} is missing"
        reason = getattr(error, "strerror", None) or f"{name} is not a text file"
        return f"it cannot be read ({reason})"
    return None


def _read_checksums(folder: pathlib.Path, step: int) -> dict[str, str]:
    """Returns file name -> checksum."""
    lines = (folder / f"ckpt-{step}.sha256").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("  ") for line in lines)
    return {name: checksum for checksum, _, name in pairs}


# Cached because each start checks twice: before TensorFlow is imported, and after.
@functools.lru_cache(maxsize=64)
def _sha256(file: pathlib.Path, size: int, changed_ns: int) -> str:
    del size, changed_ns  # part of the cache key only: a changed file is read again
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write(folder: pathlib.Path, step: int, write_files: Callable[[str], object]) -> None:
    """Writes a checkpoint, replacing an existing one of the same step.

    Args:
      folder: of the checkpoints; created if missing.
      step: number of finished steps.
      write_files: called with a path prefix; writes all files of the checkpoint there.

    Raises:
      WriteError: if it cannot be written; an existing one stays as it was.
    """
    draft = folder / f"ckpt-{step}.tmp"
    try:
        with write_error_for(folder / f"ckpt-{step}"):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            write_files(str(draft / f"ckpt-{step}"))
            lines = []
            for file in sorted(draft.iterdir()):
                sync(file)
                stat = file.stat()
                lines.append(f"{_sha256(file, stat.st_size, stat.st_mtime_ns)}  {file.name}\n")
            replace_text(draft / f"ckpt-{step}.sha256", "".join(lines))
    except Exception:  # write_files may raise anything
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _publish(draft)


def repair(folder: pathlib.Path) -> None:
    """Completes a write that a killed process left unfinished, or removes its incomplete files.

    Raises:
      WriteError: if the folder cannot be written to.
    """
    remove_all_drafts(folder)
    for draft in _list_files(folder):
        if re.fullmatch(r"ckpt-\d+\.tmp", draft.name):
            if (draft / f"{draft.stem}.sha256").exists():
                _publish(draft)
            else:
                with write_error_for(draft):
                    shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def _publish(draft: pathlib.Path) -> None:
    """Moves all files out of the draft folder; after a kill it can simply be called again."""
    folder, step = draft.parent, int(draft.stem.removeprefix("ckpt-"))
    checksum_file = f"ckpt-{step}.sha256"
    with write_error_for(folder / draft.stem):
        names = {checksum_file, *_read_checksums(draft, step)}
        for old in folder.glob(f"ckpt-{step}.*"):
            if old.is_file() and old.name not in names:
                old.unlink()
        # The checksums move last: as long as they are in the draft, ``repair`` can do the rest.
        for file in sorted(draft.iterdir(), key=lambda file: file.name == checksum_file):
            file.replace(folder / file.name)
        draft.rmdir()
        sync(folder)


def prune(folder: pathlib.Path, *, newest: int, keep: int) -> None:
    """Removes all but the newest checkpoints, and lists these in TensorFlow's ``checkpoint`` file.

    Args:
      folder: of the checkpoints.
      newest: step of the checkpoint that was written last; later ones are damaged and are ignored.
      keep: number of checkpoints to keep, at least 1.

    Raises:
      WriteError: if the folder cannot be written to.
    """
    remove_all_drafts(folder)
    past = [step for step in steps(folder) if step <= newest]
    for step in past[:-keep]:
        _remove(folder, step)
    lines = [f'model_checkpoint_path: "ckpt-{newest}"\n']
    lines += [f'all_model_checkpoint_paths: "ckpt-{step}"\n' for step in past[-keep:]]
    replace_text(folder / "checkpoint", "".join(lines))


def keep_only(folder: pathlib.Path, step: int) -> None:
    """Removes every other checkpoint of a folder.

    Raises:
      WriteError: if the folder cannot be written to.
    """
    for other in steps(folder):
        if other != step:
            _remove(folder, other)


def _remove(folder: pathlib.Path, step: int) -> None:
    with write_error_for(folder):
        for file in folder.glob(f"ckpt-{step}.*"):
            if file.is_file():
                file.unlink()
