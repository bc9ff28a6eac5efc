"""A folder of checkpoints in; which is the newest whole one out. Files only, no TensorFlow.

A checkpoint is ``ckpt-<step>.index``, ``ckpt-<step>.data-*`` and ``ckpt-<step>.sha256``, the
checksums of the others (``sha256sum --check`` reads them). It is written in ``ckpt-<step>.tmp/``
and moved out of there when it is whole.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import re
import shutil
import sys
from collections.abc import Callable

from efficientnetv2.train.durable import replace_text, sync, writing
from efficientnetv2.train.run_directory import RunDirectory, RunError

_CHUNK_BYTES = 1 << 20
_NAMED = 2  # damaged checkpoints in an error


def latest_checkpoint(run: RunDirectory) -> str:
    """Returns the path prefix of the newest whole checkpoint of a run.

    Raises:
      RunError: if there is none.
    """
    latest = find_checkpoint(run)
    if latest is None:
        raise RunError(f"'{run.checkpoints}' holds no checkpoint; train first with --mode=train")
    return latest


def require_usable(run: RunDirectory) -> None:
    """Checks that a run has a whole checkpoint, or none at all.

    Raises:
      RunError: as ``find_checkpoint``.
    """
    _newest(run)


def find_checkpoint(run: RunDirectory) -> str | None:
    """Returns the path prefix of the newest whole checkpoint of a run, or None if it has none yet.

    Damaged ones that are newer are named on stderr. It goes by the files: TensorFlow's own note of
    the newest may be lost in copying a run, and a training that found none would begin anew.

    Raises:
      RunError: if all that there are are damaged.
    """
    path, damaged = _newest(run)
    for each in damaged if path else []:
        print(f"warning: checkpoint {each}; '{path}' is used", file=sys.stderr)
    return path


def _newest(run: RunDirectory) -> tuple[str | None, list[str]]:
    """The newest whole checkpoint, and what is wrong with those after it."""
    damaged: list[str] = []
    for step in reversed(steps(run.checkpoints)):
        path = str(run.checkpoints / f"ckpt-{step}")
        reason = problem(run.checkpoints, step)
        if reason is None:
            return path, damaged
        if not is_in_flux(run.checkpoints, step):
            damaged.append(f"'{path}' is damaged: {reason}")
    if damaged:
        more = f" (and {len(damaged) - _NAMED} more)" if len(damaged) > _NAMED else ""
        raise RunError(
            f"no checkpoint can be used: {'; '.join(damaged[:_NAMED])}{more}; bring a good copy, "
            "or begin anew in another --model_dir"
        )
    return None, []


def steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, whole or not, rising."""
    matches = (re.fullmatch(r"ckpt-(\d+)\.(index|data-.+|sha256)", p.name) for p in _all(folder))
    return sorted({int(match[1]) for match in matches if match})


def _all(folder: pathlib.Path) -> list[pathlib.Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def is_in_flux(folder: pathlib.Path, step: int) -> bool:
    """Returns whether a checkpoint is being written or was removed: not whole, not damaged."""
    return (folder / f"ckpt-{step}.tmp").exists() or not list(folder.glob(f"ckpt-{step}.*"))


def is_whole(path: str) -> bool:
    """Returns whether the checkpoint of a path prefix can be read."""
    prefix = pathlib.Path(path)
    return problem(prefix.parent, int(prefix.name.removeprefix("ckpt-"))) is None


def problem(folder: pathlib.Path, step: int) -> str | None:
    """Returns what is wrong with a checkpoint's files, in few words, or None if they are whole."""
    try:
        sums = _read_sums(folder, step)
        files = {file.name: file for file in folder.glob(f"ckpt-{step}.*") if file.is_file()}
        files.pop(f"ckpt-{step}.sha256", None)
        for name in sorted({*sums, *files, f"ckpt-{step}.index"}):
            if name not in files:
                return f"{name} is missing"
            if name not in sums:
                return f"{name} has no checksum"
            stat = files[name].stat()
            if _sha256(files[name], stat.st_size, stat.st_mtime_ns) != sums[name]:
                return f"{name} does not match its checksum"
    except (OSError, UnicodeDecodeError) as error:
        name = f"ckpt-{step}.sha256"
        if isinstance(error, FileNotFoundError):
            return f"{name} is missing"
        return f"it cannot be read ({getattr(error, 'strerror', None) or f'{name} is no text'})"
    return None


def _read_sums(folder: pathlib.Path, step: int) -> dict[str, str]:
    """File name -> checksum."""
    lines = (folder / f"ckpt-{step}.sha256").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("  ") for line in lines)
    return {name: checksum for checksum, _, name in pairs}


@functools.lru_cache(maxsize=64)  # a start looks twice: before TensorFlow is imported, and after
def _sha256(file: pathlib.Path, size: int, changed_ns: int) -> str:
    del size, changed_ns  # of the file that the kept answer is for
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write(folder: pathlib.Path, step: int, write_files: Callable[[str], object]) -> None:
    """Writes a checkpoint, in place of the one of the same step that may be there.

    Args:
      folder: made if missing.
      step: its number.
      write_files: writes all files of a checkpoint, given their path prefix.

    Raises:
      WriteError: if it cannot be written; the one that was there stays.
    """
    draft = folder / f"ckpt-{step}.tmp"
    try:
        with writing(folder / f"ckpt-{step}"):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            write_files(str(draft / f"ckpt-{step}"))
            lines = []
            for file in sorted(draft.iterdir()):
                sync(file)
                stat = file.stat()
                lines.append(f"{_sha256(file, stat.st_size, stat.st_mtime_ns)}  {file.name}\n")
            replace_text(draft / f"ckpt-{step}.sha256", "".join(lines))
    except Exception:  # of write_files, whatever writes
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _publish(draft)


def mend(folder: pathlib.Path) -> None:
    """Ends what a killed process began to write: finished if it was all there, else removed.

    Raises:
      WriteError: if the folder cannot be written to.
    """
    for draft in _all(folder):
        if draft.suffix == ".tmp":
            if (draft / f"{draft.stem}.sha256").exists():
                _publish(draft)
            else:
                with writing(draft):
                    shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


def _publish(draft: pathlib.Path) -> None:
    """Moves all files to their places; where it was killed, it can be done again."""
    folder, step = draft.parent, int(draft.stem.removeprefix("ckpt-"))
    sums = f"ckpt-{step}.sha256"
    with writing(folder / draft.stem):
        kept = {sums, *_read_sums(draft, step)}
        for old in folder.glob(f"ckpt-{step}.*"):
            if old.is_file() and old.name not in kept:
                old.unlink()
        # The checksums are last: as long as they are in the draft, ``mend`` does the rest.
        for file in sorted(draft.iterdir(), key=lambda file: file.name == sums):
            file.replace(folder / file.name)
        draft.rmdir()
        sync(folder)


def prune(folder: pathlib.Path, *, newest: int, keep: int) -> None:
    """Removes all but the newest checkpoints, and notes for TensorFlow's tools which these are.

    Args:
      folder: of the checkpoints.
      newest: step of the one that was written last; what has a later step is damaged, and counts
        for nothing.
      keep: how many stay, at least 1.

    Raises:
      WriteError: if the folder cannot be written to.
    """
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
    with writing(folder):
        for file in folder.glob(f"ckpt-{step}.*"):
            if file.is_file():
                file.unlink()
