"""Tests downloads from a local server: complete, cut off, wrong, hostile, or without a network."""

import functools
import hashlib
import http.server
import io
import pathlib
import shutil
import tarfile
import threading

import pytest

from efficientnetv2.checkpoints.download import cache_folder, fetch, fetch_keras_file
from hparams.errors import UserError, WeightsError
from hparams.models import MODELS
from hparams.weights import (
    NAMES,
    RELEASES,
    UNVERIFIED,
    KerasRelease,
    Release,
    find_release,
    imagenet_classes,
)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, with ranges, and can cut one response off."""

    requests: list[str] = []  # noqa: RUF012 - one server at a time
    cut_at: list[int] = []  # noqa: RUF012

    def do_GET(self):
        data = (pathlib.Path(self.directory) / self.path.lstrip("/")).read_bytes()
        byte_range = self.headers.get("Range")
        self.requests.append(byte_range or "all")
        begin = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
        self.send_response(206 if byte_range else 200)
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        self.wfile.write(data[begin : self.cut_at.pop() if self.cut_at else None])

    def log_message(self, *_):
        """Logs nothing."""


@pytest.fixture
def server(tmp_path):
    """(folder that is served, its URL)."""
    folder = tmp_path / "served"
    folder.mkdir()
    Handler.requests.clear()
    Handler.cut_at.clear()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(golden, tmp_path):
    """An archive like the released ones: a folder with a checkpoint."""
    path = tmp_path / "tiny.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for file in (golden / "tiny" / "tf1_namebased").glob("model.*"):
            tar.add(file, f"tiny/{file.name}")
    return path


def release(address, name="tiny.tgz", sha256=UNVERIFIED):
    return Release(f"{address}/{name}", 10, "v2", sha256)


def test_a_release_is_downloaded_once(server, archive, tmp_path, build_tiny):
    folder, address = server
    shutil.copyfile(archive, folder / "tiny.tgz")
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    for _ in range(2):
        checkpoint = fetch(release(address, sha256=checksum), tmp_path / "cache")
        assert sorted(file.name for file in checkpoint.iterdir()) == [
            "model.data-00000-of-00001",
            "model.index",
        ]
    assert Handler.requests == ["all"]
    build_tiny(weights=checkpoint)


def test_a_download_that_was_cut_off_goes_on(server, archive, tmp_path):
    folder, address = server
    shutil.copyfile(archive, folder / "tiny.tgz")
    Handler.cut_at[:] = [1000]
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    fetch(release(address, sha256=checksum), tmp_path / "cache")
    assert Handler.requests == ["all", "bytes=1000-"]


def test_another_checksum(server, archive, tmp_path):
    folder, address = server
    shutil.copyfile(archive, folder / "tiny.tgz")
    with pytest.raises(
        WeightsError, match=r"has the SHA-256 checksum \w{64}, expected 00; delete it"
    ):
        fetch(release(address, sha256="00"), tmp_path / "cache")


def test_no_network(tmp_path):
    with pytest.raises(
        WeightsError, match=r"cannot download http.*; download it by hand and save it as '.*tiny"
    ):
        fetch(release("http://127.0.0.1:1"), tmp_path / "cache")


def test_a_file_of_keras_is_checked_and_downloaded_once(server, tmp_path, monkeypatch):
    folder, address = server
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (folder / "x.h5").write_bytes(b"good" * 1000)
    md5 = hashlib.md5(b"good" * 1000).hexdigest()
    file = KerasRelease(f"{address}/x.h5", md5)
    Handler.cut_at[:] = [1000]
    for _ in range(2):
        assert fetch_keras_file(file, tmp_path / "cache").read_bytes() == b"good" * 1000
    assert Handler.requests == ["all", "bytes=1000-"]
    (tmp_path / "cache" / "x.h5").write_bytes(b"damaged")
    with pytest.raises(
        WeightsError, match=rf"x\.h5' has the MD5 checksum \w{{32}}, expected {md5}; delete it"
    ):
        fetch_keras_file(file, tmp_path / "cache")


@pytest.mark.parametrize("content", [b"good", b"damaged"])
def test_the_copy_of_keras_is_used_if_it_is_good(tmp_path, monkeypatch, content):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.h5").write_bytes(content)
    file = KerasRelease("http://127.0.0.1:1/x.h5", hashlib.md5(b"good").hexdigest())
    if content == b"good":
        assert fetch_keras_file(file, tmp_path / "cache") == tmp_path / "models" / "x.h5"
    else:
        with pytest.raises(WeightsError, match="cannot download"):
            fetch_keras_file(file, tmp_path / "cache")


def test_a_file_brought_by_hand(archive, tmp_path):
    (tmp_path / "cache").mkdir()
    shutil.copyfile(archive, tmp_path / "cache" / "tiny.tgz")
    fetch(release("http://127.0.0.1:1"), tmp_path / "cache")


def member(name, **values):
    info = tarfile.TarInfo(name)
    info.size = 4
    for key, value in values.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "info",
    [
        member("../evil.index"),
        member("a/../../evil.index"),
        member("/evil.index"),
        member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        member("link", type=tarfile.LNKTYPE, linkname="../x", size=0),
        member("pipe", type=tarfile.FIFOTYPE, size=0),
    ],
)
def test_an_archive_that_leads_out_of_its_folder(tmp_path, info):
    cache = tmp_path / "a" / "cache"
    cache.mkdir(parents=True)
    with tarfile.open(cache / "tiny.tgz", "w:gz") as tar:
        tar.addfile(member("model.index"), io.BytesIO(b"1234"))
        tar.addfile(info, io.BytesIO(b"1234"))
    with pytest.raises(
        WeightsError, match=f"refusing to unpack .*: '{info.name}' is not a file inside it"
    ):
        fetch(release("http://127.0.0.1:1"), cache)
    assert [path.name for path in cache.iterdir()] == ["tiny.tgz"]
    assert list(tmp_path.rglob("evil*")) == []


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_what_is_no_archive_of_a_checkpoint(tmp_path, content):
    if content is None:
        with tarfile.open(tmp_path / "tiny.tgz", "w:gz") as tar:
            tar.addfile(member("readme.txt"), io.BytesIO(b"1234"))
    else:
        (tmp_path / "tiny.tgz").write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"(is not a complete archive|contains no TensorFlow checkpoint)"
    ):
        fetch(release("http://127.0.0.1:1"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.tgz"]


def test_the_cache_can_be_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("EFFICIENTNETV2_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EFFICIENTNETV2_CACHE")
    assert cache_folder() == pathlib.Path.home() / ".cache" / "efficientnetv2"


def test_no_two_releases_are_one_file():
    urls = [row.url for row in RELEASES.values()]
    assert len(set(urls)) == len(urls)
    assert {name for _, name in RELEASES} == set(NAMES)
    assert {model for model, _ in RELEASES} <= set(MODELS)
    for (_, name), row in RELEASES.items():
        assert row.num_classes == (21_843 if name == "imagenet21k" else 1000)
        assert row.sha256 == UNVERIFIED or len(row.sha256) == 64


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        ("efficientnetv2-xl", "imagenet", "known: imagenet21k, imagenet21k-ft1k"),
        ("efficientnetv2-s", "imagenet22k", "did you mean 'imagenet21k'"),
        ("resnet50", "imagenet", "there are no released weights for resnet50"),
    ],
)
def test_a_release_that_does_not_exist(model, name, message):
    with pytest.raises(UserError, match=message):
        find_release(model, name)


def test_names_of_the_classes():
    names = imagenet_classes()
    assert len(set(names)) == 1000
    known = {0: "tench", 134: "crane (bird)", 207: "golden retriever", 517: "crane (machine)"}
    known |= {698: "palace", 985: "daisy", 999: "toilet tissue"}
    assert {number: names[number] for number in known} == known
