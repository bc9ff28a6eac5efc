"""Downloads released checkpoints and files of Keras into a local cache, once each."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import tarfile
import urllib.error
import urllib.request

from efficientnetv2.runtime.atomic_write import draft_of
from hparams.errors import WeightsError
from hparams.weights import UNVERIFIED, KerasRelease, Release

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 20
_LARGEST_ARCHIVE = 16 * 2**30  # bytes, unpacked


def cache_folder() -> pathlib.Path:
    """Returns the download folder: EFFICIENTNETV2_CACHE, or ~/.cache/efficientnetv2."""
    folder = os.environ.get("EFFICIENTNETV2_CACHE")
    return pathlib.Path(folder) if folder else pathlib.Path.home() / ".cache" / "efficientnetv2"


def fetch(release: Release, cache: pathlib.Path | None = None) -> pathlib.Path:
    """Returns the folder with the checkpoint of a release, and downloads it if needed.

    An interrupted download continues where it stopped. An archive that was saved in the cache by
    hand is used too.

    Args:
      release: from ``hparams.weights``.
      cache: folder of the downloads; None: ``cache_folder()``.

    Raises:
      WeightsError: if the release cannot be downloaded, does not match its checksum, or is not an
        archive of a checkpoint.
    """
    cache = cache or cache_folder()
    archive = cache / release.url.rpartition("/")[2]
    folder = cache / archive.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    if any(folder.glob("**/*.index")):
        return _checkpoint_folder(folder)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            _download(release.url, archive)
        if release.sha256 != UNVERIFIED:
            _verify(archive, release.sha256, algorithm="sha256")
        _unpack(archive, folder)
    except OSError as error:
        raise WeightsError(f"cannot write to '{cache}': {error.strerror or error}") from None
    return _checkpoint_folder(folder)


def fetch_keras_file(file: KerasRelease, cache: pathlib.Path | None = None) -> pathlib.Path:
    """Returns the path of a file of Keras, and downloads it if needed.

    One that Keras itself has downloaded is used where it is.

    Args:
      file: from ``hparams.weights``.
      cache: folder of the downloads; None: ``cache_folder()``.

    Raises:
      WeightsError: if the file cannot be downloaded, or does not match its checksum.
    """
    cache = cache or cache_folder()
    path = cache / file.url.rpartition("/")[2]
    own = _keras_folder() / path.name
    try:
        if not path.is_file() and own.is_file() and _digest(own, "md5") == file.md5:
            return own
        cache.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _download(file.url, path)
        _verify(path, file.md5, algorithm="md5")
    except OSError as error:
        raise WeightsError(f"cannot write to '{cache}': {error.strerror or error}") from None
    return path


def _keras_folder() -> pathlib.Path:
    """Returns the folder to which ``keras.applications`` downloads."""
    home = os.environ.get("KERAS_HOME")
    return (pathlib.Path(home) if home else pathlib.Path.home() / ".keras") / "models"


def _checkpoint_folder(folder: pathlib.Path) -> pathlib.Path:
    indexes = sorted(folder.glob("**/*.index"))
    if not indexes:
        raise WeightsError(f"'{folder}' contains no TensorFlow checkpoint")
    return indexes[0].parent


def _download(url: str, archive: pathlib.Path) -> None:
    partial = archive.with_name(f"{archive.name}.part")
    offset = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            continues = response.status == 206  # a server may send the whole file instead
            expected = response.headers.get("Content-Length")
            with partial.open("ab" if continues else "wb") as file:
                before = file.tell()
                shutil.copyfileobj(response, file, _CHUNK_BYTES)
                received = file.tell() - before
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(
            f"cannot download {url} ({reason}); download it by hand and save it as '{archive}'"
        ) from None
    if expected is not None and received != int(expected):
        raise WeightsError(f"the download of {url} was cut off; run again to continue it")
    partial.replace(archive)


_CHECKSUMS = {"sha256": "SHA-256", "md5": "MD5"}


def _verify(path: pathlib.Path, expected: str, *, algorithm: str) -> None:
    digest = _digest(path, algorithm)
    if digest != expected:
        raise WeightsError(
            f"'{path}' has the {_CHECKSUMS[algorithm]} checksum {digest}, expected {expected}; "
            "delete it to download it again"
        )


def _digest(path: pathlib.Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks all files or none; refuses links and paths that lead out of the folder."""
    try:
        with draft_of(folder) as draft, tarfile.open(archive) as tar:
            _unpack_into(draft, tar, archive)
    except (tarfile.TarError, EOFError) as error:
        raise WeightsError(
            f"'{archive}' is not a complete archive ({error}); delete it to download it again"
        ) from None


def _unpack_into(folder: pathlib.Path, tar: tarfile.TarFile, archive: pathlib.Path) -> None:
    members = [member for member in tar.getmembers() if not member.isdir()]
    for member in members:
        path = pathlib.PurePosixPath(member.name)
        if not member.isfile() or path.is_absolute() or ".." in path.parts:
            raise WeightsError(
                f"refusing to unpack '{archive}': '{member.name}' is not a file inside it"
            )
    if sum(member.size for member in members) > _LARGEST_ARCHIVE:
        raise WeightsError(f"refusing to unpack '{archive}': too large for a checkpoint")
    if not any(member.name.endswith(".index") for member in members):
        raise WeightsError(f"'{archive}' contains no TensorFlow checkpoint; delete it")
    for member in members:
        target = folder / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tar.extractfile(member)
        if source is not None:
            with target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK_BYTES)
