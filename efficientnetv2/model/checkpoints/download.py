"""A release in; its checkpoint in a folder of this machine, downloaded once, out."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request

from efficientnetv2.model.checkpoints.errors import WeightsError
from hparams.weights import UNVERIFIED, Release

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 20
_LARGEST_ARCHIVE = 16 * 2**30  # bytes, unpacked


def cache_folder() -> pathlib.Path:
    """Returns where downloads are kept: EFFICIENTNETV2_CACHE, or ~/.cache/efficientnetv2."""
    given = os.environ.get("EFFICIENTNETV2_CACHE")
    return pathlib.Path(given) if given else pathlib.Path.home() / ".cache" / "efficientnetv2"


def fetch(release: Release, cache: pathlib.Path | None = None) -> pathlib.Path:
    """Returns the folder with the checkpoint of a release, downloading it where it is not there.

    A download that was cut off goes on where it ended. A file put there by hand is taken.

    Args:
      release: from ``hparams.weights``.
      cache: None: ``cache_folder()``.

    Raises:
      WeightsError: if it cannot be reached, does not match its checksum, or is no archive of a
        checkpoint.
    """
    cache = cache or cache_folder()
    archive = cache / release.url.rpartition("/")[2]
    folder = cache / archive.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    if any(folder.glob("**/*.index")):
        return _with_checkpoint(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            _download(release.url, archive)
        _verify(archive, release.sha256)
        _unpack(archive, folder)
    except OSError as error:
        raise WeightsError(f"cannot write to '{cache}': {error.strerror or error}") from None
    return _with_checkpoint(folder)


def _with_checkpoint(folder: pathlib.Path) -> pathlib.Path:
    found = sorted(folder.glob("**/*.index"))
    if not found:
        raise WeightsError(f"'{folder}' holds no TensorFlow checkpoint")
    return found[0].parent


def _download(url: str, archive: pathlib.Path) -> None:
    part = archive.with_name(f"{archive.name}.part")
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            goes_on = answer.status == 206  # a server may answer with the whole
            expected = answer.headers.get("Content-Length")
            with part.open("ab" if goes_on else "wb") as file:
                before = file.tell()
                shutil.copyfileobj(answer, file, _CHUNK_BYTES)
                received = file.tell() - before
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"cannot download {url} ({reason}); bring it by hand as '{archive}'"
        ) from None
    if expected is not None and received != int(expected):
        raise WeightsError(f"the download of {url} was cut off; start again, and it goes on")
    part.replace(archive)


def _verify(archive: pathlib.Path, sha256: str) -> None:
    if sha256 == UNVERIFIED:
        return
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise WeightsError(
            f"'{archive}' does not match its checksum ({digest.hexdigest()}, not {sha256}); "
            "remove it"
        )


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks plain files that stay inside, all of them or none."""
    draft = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if not member.isdir()]
            for member in members:
                path = pathlib.PurePosixPath(member.name)
                if not member.isfile() or path.is_absolute() or ".." in path.parts:
                    raise WeightsError(f"'{archive}' is refused: '{member.name}' leads out of it")
            if sum(member.size for member in members) > _LARGEST_ARCHIVE:
                raise WeightsError(f"'{archive}' is refused: it is too large for a checkpoint")
            for member in members:
                target = draft / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                if source is not None:
                    with target.open("wb") as file:
                        shutil.copyfileobj(source, file, _CHUNK_BYTES)
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"'{archive}' is no whole archive ({error}); remove it") from None
    finally:
        if not draft.is_dir() or not any(draft.glob("**/*.index")):
            shutil.rmtree(draft, ignore_errors=True)
    if not draft.is_dir():
        raise WeightsError(f"'{archive}' holds no TensorFlow checkpoint; remove it")
    shutil.rmtree(folder, ignore_errors=True)
    draft.replace(folder)
