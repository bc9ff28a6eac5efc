"""Tests downloads from the stores of other projects, all from a server of this machine."""

import hashlib
import http.server
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest

from efficientnetv2.checkpoints import download
from efficientnetv2.checkpoints.download import fetch_remote
from efficientnetv2.checkpoints.file_settings import settings_of_weights
from hparams.errors import UserError, WeightsError
from hparams.remote_weights import find_remote, network_of_remote

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "hf://someone/network/model.bin"
PATH = "/someone/network/resolve/main/model.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a table of files; a file may be cut off, moved, slow, or come with a checksum."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        store, path = self.server.store, urllib.parse.urlsplit(self.path).path
        byte_range = self.headers.get("Range")
        store.requests.append((path, byte_range))
        if path in store.moved:
            self.send_response(302)
            self.send_header("Location", store.moved[path])
            if path in store.etags:
                self.send_header("X-Linked-Etag", f'"{store.etags[path]}"')
            self.end_headers()
            return
        if path not in store.files:
            self.send_error(404)
            return
        data = store.files[path]
        begin = int(byte_range.removeprefix("bytes=").removesuffix("-")) if byte_range else 0
        if begin >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if byte_range and store.takes_ranges else 200)
        part = data[begin:] if store.takes_ranges else data
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        length = store.cuts.pop(0) if store.cuts else None
        self.wfile.write(part[:length])
        self.wfile.flush()
        time.sleep(store.pause)

    def log_message(self, *_):
        """Logs nothing."""


class Store:
    """What the server has, and how it answers."""

    def __init__(self):
        self.files = {PATH: CONTENT}
        self.moved, self.etags, self.requests, self.cuts = {}, {}, [], []
        self.takes_ranges, self.pause = True, 0.0

    def ranges(self, path=PATH):
        """Returns the ranges that were asked of a file."""
        return [byte_range for name, byte_range in self.requests if name == path]


@pytest.fixture
def store(monkeypatch):
    """A server in place of all hosts."""
    store = Store()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.store = store
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("EFFICIENTNETV2_MIRROR", address)
        yield store
        server.shutdown()
        thread.join()


def fetch(cache, name=NAME, model_name="efficientnet-b0"):
    return fetch_remote(name, model_name=model_name, cache=cache)


def left_in(cache):
    """Returns the files of a cache, without the empty ones of the locks."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_file_is_downloaded_once(store, tmp_path):
    for _ in range(2):
        path = fetch(tmp_path)
        assert path == tmp_path / "hf" / "someone" / "network" / "model.bin"
        assert path.read_bytes() == CONTENT
    assert store.ranges() == [None]


def test_a_connection_that_breaks_is_taken_up_again(store, tmp_path):
    store.cuts = [1000, 5000]
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert store.ranges() == [None, "bytes=1000-", "bytes=6000-"]


def test_a_connection_that_brings_nothing_is_given_up_and_goes_on_in_the_next_call(store, tmp_path):
    store.cuts = [1000, 0]
    with pytest.raises(WeightsError, match="was cut off; run again to continue it"):
        fetch(tmp_path)
    assert left_in(tmp_path) == ["model.bin.part"]
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert store.ranges() == [None, "bytes=1000-", "bytes=1000-"]


@pytest.mark.parametrize("error", [OSError(113, "No route to host"), TimeoutError("timed out")])
def test_any_error_of_the_network_is_taken_up_again(store, tmp_path, monkeypatch, error):
    """TLS and routes raise plain OSErrors, which must not look like those of the disk."""
    errors, read = [error], download._read

    def fail_once(response):
        if errors:
            response.read = lambda size: (_ for _ in ()).throw(errors.pop())
        return read(response)

    monkeypatch.setattr(download, "_read", fail_once)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert len(store.ranges()) == 2


def test_a_config_that_is_not_there_is_asked_for_once(store, tmp_path):
    for _ in range(2):
        fetch(tmp_path)
    assert [path.rpartition("/")[2] for path, _ in store.requests] == ["config.json", "model.bin"]


def test_a_server_without_ranges_sends_the_file_anew(store, tmp_path):
    store.takes_ranges, store.cuts = False, [1000]
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert store.ranges() == [None, "bytes=1000-"]


def test_what_is_longer_than_the_file_is_downloaded_anew(store, tmp_path):
    folder = tmp_path / "hf" / "someone" / "network"
    folder.mkdir(parents=True)
    (folder / "model.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_the_checksum_of_the_hub(store, tmp_path):
    store.moved[PATH] = "/elsewhere"
    store.files["/elsewhere"] = b"damaged"
    store.etags[PATH] = SHA256
    digest = hashlib.sha256(b"damaged").hexdigest()
    message = f"is damaged: its SHA-256 checksum is {digest}, expected {SHA256}; run again"
    with pytest.raises(WeightsError, match=message):
        fetch(tmp_path)
    assert left_in(tmp_path) == []
    store.files["/elsewhere"] = CONTENT
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_the_checksum_in_the_name_of_a_file_of_torchvision(store, tmp_path):
    name, path = "torchvision:EfficientNet_V2_S", "/models/efficientnet_v2_s-dd5fe13b.pth"
    store.files[path] = CONTENT
    with pytest.raises(WeightsError, match=rf"checksum is {SHA256}, expected dd5fe13b\.\.\.; run"):
        fetch(tmp_path, name, "efficientnetv2-s")
    assert left_in(tmp_path) == []


def test_a_file_of_keras_has_its_md5(store, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    path = "/tensorflow/keras-applications/efficientnet_v2/efficientnetv2-b0_notop.h5"
    store.files[path] = CONTENT
    with pytest.raises(
        WeightsError, match=r"checksum .*, expected 893217f2bb855e2983157299931e43ff"
    ):
        fetch(tmp_path / "cache", "keras:EfficientNetV2B0_notop", "efficientnetv2-b0")


def test_a_file_that_is_not_there(store, tmp_path):
    store.files.clear()
    with pytest.raises(
        WeightsError, match=r"cannot download http.*model\.bin \(HTTP 404 Not Found\)"
    ):
        fetch(tmp_path)
    assert left_in(tmp_path) == []


def test_a_server_that_does_not_answer(store, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.2)
    store.pause, store.cuts = 1.0, [0, 0]
    with pytest.raises(WeightsError, match=r"was cut off|timed out"):
        fetch(tmp_path)


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        (
            "http://127.0.0.1:1",
            r"cannot download http://127.0.0.1:1/.* \(.*refused\); download t",
        ),
        ("ftp://127.0.0.1", "EFFICIENTNETV2_MIRROR must begin with http:// or https://, got 'ftp"),
        ("http://", "cannot download http:/"),
    ],
)
def test_no_network_and_wrong_mirrors(tmp_path, monkeypatch, mirror, message):
    monkeypatch.setenv("EFFICIENTNETV2_MIRROR", mirror)
    with pytest.raises(WeightsError, match=message):
        fetch(tmp_path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "model.weights.h5"])
@pytest.mark.parametrize("has_config", [True, False])
def test_a_folder_of_the_hub(store, tmp_path, weights, has_config):
    start = "/timm/efficientnet_b0.ra_in1k/resolve/main"
    store.files[f"{start}/{weights}"] = CONTENT
    if has_config:
        store.files[f"{start}/config.json"] = b'{"architecture": "efficientnet_b0"}'
    for _ in range(2):
        folder = fetch(tmp_path, "timm:efficientnet_b0.ra_in1k")
        assert left_in(folder) == ["config.json"] * has_config + [weights]
    assert len(store.requests) == len({path for path, _ in store.requests})  # each asked once


def test_a_folder_without_weights(store, tmp_path):
    with pytest.raises(WeightsError, match=r"has no weights: none of model\.safetensors, pytorch"):
        fetch(tmp_path, "hf://someone/empty")


def test_the_settings_of_a_network_come_with_it(store, tmp_path, golden, monkeypatch):
    import tarfile

    monkeypatch.setenv("EFFICIENTNETV2_CACHE", str(tmp_path))
    start = "/timm/efficientnet_b0.ra_in1k/resolve/main"
    with tarfile.open(golden / "torch_networks.tar.xz") as archive:
        for name in ("config.json", "model.safetensors"):
            store.files[f"{start}/{name}"] = archive.extractfile(f"timm_v1/{name}").read()
    for weights in ("timm:efficientnet_b0.ra_in1k", "hf://timm/efficientnet_b0.ra_in1k"):
        settings = settings_of_weights(weights, model_name="efficientnet-b0")
        assert (settings["model.padding"], settings["eval.crop_pct"]) == ("torch", 0.875)


SCRIPT = """
import pathlib, sys
from efficientnetv2.checkpoints.download import fetch_remote
path = fetch_remote(sys.argv[1], model_name="efficientnet-b0", cache=pathlib.Path(sys.argv[2]))
print(len(path.read_bytes()))
"""


def test_two_processes_at_once(store, tmp_path):
    store.pause = 0.5  # the second comes while the first waits for the end of the file
    command = [sys.executable, "-c", SCRIPT, NAME, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in started] == [f"{len(CONTENT)}\n"] * 2
    assert store.ranges() == [None]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:efficientnet_v2_t", "torchvision has no weights of 'efficientnet_v2_t'"),
        ("torchvision:efficientnet_b1.v3", "no weights 'v3' of efficientnet_b1; known: IMAGENET1K"),
        ("timm:resnet50", "timm's 'resnet50' is none of the networks here"),
        ("timm:efficientnetv2_rw_s.ra2_in1k", "timm's 'efficientnetv2_rw_s.ra2_in1k' is none of"),
        ("keras:efficientnet-b8", "Keras has no weights of 'efficientnet-b8'; did you mean"),
        ("hf://someone", "no address of weights: 'hf://someone'; give hf://OWNER/NAME"),
        ("hf://../x/y", "no address of weights: 'hf://../x/y'"),
        ("hf://a/b/../../c", "no address of weights"),
        ("hf://a/b?c=d", "no address of weights"),
        ("torchvision:efficientnet_b0", "is for efficientnet-b0, not for efficientnetv2-s"),
        ("timm:tf_efficientnet_b0", "is for efficientnet-b0, not for efficientnetv2-s"),
    ],
)
def test_names_that_no_store_has(name, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?").replace("..", r"\.\.")):
        find_remote(name, model_name="efficientnetv2-s")


def test_the_network_of_a_name():
    assert network_of_remote("timm:tf_efficientnetv2_s.in21k_ft_in1k") == "efficientnetv2-s"
    assert network_of_remote("torchvision:efficientnet_b7") == "efficientnet-b7"
    assert network_of_remote("hf://timm/efficientnet_b3.ra2_in1k") == "efficientnet-b3"
    assert network_of_remote("hf://google/efficientnet-b7") is None
    assert network_of_remote("imagenet") is None
    second = find_remote("torchvision:efficientnet_b1.IMAGENET1K_V1")
    assert second.url.endswith("/models/efficientnet_b1_rwightman-bac287d4.pth")
