"""Downloads released checkpoints and files of Keras into a local cache, once each."""

from __future__ import annotations

import hashlib
import http.client
import os
import pathlib
import re
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from efficientnetv2.checkpoints.weight_files import CONFIG, FILES, KERAS_HUB_TASK, file_in_folder
from efficientnetv2.runtime.atomic_write import draft_of
from efficientnetv2.runtime.lock import exclusive_lock
from hparams.errors import WeightsError, shown
from hparams.remote_weights import find_remote
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


def fetch_remote(
    weights: str, *, model_name: str, cache: pathlib.Path | None = None
) -> pathlib.Path:
    """Returns the file or folder of weights of a store, and downloads it if needed.

    A folder of Hugging Face's hub is read from its ``config.json``, if it has one, and the first of
    ``weight_files.FILES`` that it has.

    Args:
      weights: a name of ``hparams.remote_weights``.
      model_name: the network that they are for.
      cache: folder of the downloads; None: ``cache_folder()``.

    Raises:
      UserError: if the store has no such weights, or they are for another network.
      WeightsError: if they cannot be downloaded, or do not match their checksum.
    """
    remote = find_remote(weights, model_name=model_name)
    cache = cache or cache_folder()
    path = cache.joinpath(*remote.place)
    if remote.md5:
        return fetch_keras_file(KerasRelease(remote.url, remote.md5), cache)
    try:
        if not remote.is_folder:
            if remote.place[0] == "hf" and not path.is_file():  # what it says of the network
                beside = "/".join((remote.url.rpartition("/")[0], CONFIG))
                _download(beside, path.with_name(CONFIG), is_optional=True)
            _download(remote.url, path, sha256=remote.sha256)
            return path
        if file_in_folder(path) == path:
            _download(f"{remote.url}/{CONFIG}", path / CONFIG, is_optional=True)
            _download(f"{remote.url}/{KERAS_HUB_TASK}", path / KERAS_HUB_TASK, is_optional=True)
            if not any(
                _download(f"{remote.url}/{name}", path / name, is_optional=True) for name in FILES
            ):
                raise WeightsError(f"{remote.url} has no weights: none of {', '.join(FILES)}")
    except OSError as error:
        raise WeightsError(f"cannot write to '{cache}': {error.strerror or error}") from None
    return path


def _mirrored(url: str) -> str:
    """Returns the address at EFFICIENTNETV2_MIRROR, which replaces the host, if it is set."""
    mirror = os.environ.get("EFFICIENTNETV2_MIRROR")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise WeightsError(
            f"EFFICIENTNETV2_MIRROR must begin with http:// or https://, got {shown(mirror)}"
        )
    return mirror.rstrip("/") + urllib.parse.urlsplit(url).path


def _download(
    url: str, target: pathlib.Path, *, sha256: str = "", is_optional: bool = False
) -> bool:
    """Downloads a file, unless it is there; a second process waits for the first.

    What was received before a connection broke is kept, and the download goes on from there, in
    this call as long as each try brings something, and in the next.

    Args:
      url: its address.
      target: where to save it; only a complete file gets this name.
      sha256: the checksum's first digits; "": those that the server says, if it does.
      is_optional: whether a file that the server does not have is no error.

    Returns:
      Whether the file is there now.

    Raises:
      WeightsError: if it cannot be downloaded, or does not match its checksum.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file():
        return True
    url = _mirrored(url)
    with exclusive_lock(target.with_name(f".{target.name}.lock"), is_required=False):
        if target.is_file():  # by the process that had the lock
            return True
        partial = target.with_name(f"{target.name}.part")
        told, size = None, -2
        while told is None:
            before, size = size, partial.stat().st_size if partial.exists() else -1
            if size <= before:  # the last try brought nothing
                raise WeightsError(f"the download of {url} was cut off; run again to continue it")
            try:
                told = _receive(url, partial)
            except _UnreachableError as error:
                if error.status == http.HTTPStatus.NOT_FOUND and is_optional:
                    return False
                by_hand = f"download it by hand and save it as '{target}'"
                if is_optional:
                    by_hand = f"download the weights and {CONFIG} by hand, into '{target.parent}'"
                raise WeightsError(
                    f"cannot download {url} ({error}); {by_hand}, or set EFFICIENTNETV2_MIRROR to "
                    "the address of a mirror"
                ) from None
        _require_digest(partial, sha256 or told, url)
        partial.replace(target)
    return True


class _UnreachableError(Exception):
    """A file that the server does not give; ``status`` is its answer, or None."""

    def __init__(self, reason: object, status: int | None = None) -> None:
        super().__init__(str(reason))
        self.status = status


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the checksum that Hugging Face's hub sends with the first."""

    def __init__(self) -> None:
        self.sha256 = ""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> Any:
        """Notes the checksum, and follows."""
        self.sha256 = self.sha256 or _sha256_of(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _sha256_of(headers: Any) -> str:
    """Returns the SHA-256 checksum that the hub sends as the ETag of a large file, or ""."""
    etag = str(headers.get("X-Linked-Etag") or "").strip('"').lower()
    return etag if re.fullmatch("[0-9a-f]{64}", etag) else ""


def _receive(url: str, partial: pathlib.Path) -> str | None:
    """Receives a file, or what is missing of it.

    Returns:
      The checksum that the server said, "" if none; None: the connection was cut off.
    """
    redirects = _Redirects()
    offset = partial.stat().st_size if partial.exists() else 0
    with _open(url, offset, redirects) as response:
        told = redirects.sha256 or _sha256_of(response.headers)
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT  # or it sends all again
        expected = response.headers.get("Content-Length")
        with partial.open("ab" if continues else "wb") as file:
            before = file.tell()
            try:
                for chunk in iter(lambda: _read(response), b""):
                    file.write(chunk)
            except _CutOffError:
                return None
            received = file.tell() - before
    return told if expected is None or received == int(expected) else None


class _CutOffError(Exception):
    """A connection broke; other than an error of the disk, this is tried again."""


def _read(response: Any) -> bytes:
    try:
        return bytes(response.read(_CHUNK_BYTES))
    except (OSError, http.client.HTTPException):  # of the network: TLS, a route, a time limit
        raise _CutOffError from None


def _open(url: str, offset: int, redirects: _Redirects) -> Any:
    """Returns the answer to a request for a file, from a byte on."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})
    try:
        return urllib.request.build_opener(redirects).open(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return _open(url, 0, redirects)  # what was received is no beginning of the file
        raise _UnreachableError(f"HTTP {error.code} {error.reason}", error.code) from None
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        raise _UnreachableError(getattr(error, "reason", None) or error) from None


def _require_digest(partial: pathlib.Path, sha256: str, url: str) -> None:
    """Removes a download that does not have its checksum; ``sha256`` may be its first digits."""
    if not sha256:
        return
    digest = _digest(partial, "sha256")
    if not digest.startswith(sha256):
        partial.unlink()
        raise WeightsError(
            f"the download of {url} is damaged: its SHA-256 checksum is {digest}, expected "
            f"{sha256}{'' if len(sha256) == len(digest) else '...'}; run again to download it anew"
        )


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
