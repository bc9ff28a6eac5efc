"""Writes a web page that classifies photos and the camera's pictures in the browser.

The page is a folder: the templates in ``web/``, and the network as a LiteRT file, which carries the
class names and everything else that the page has to know. LiteRT.js runs it. Importing this module
does not import TensorFlow.
"""

from __future__ import annotations

import base64
import hashlib
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import efficientnetv2
from hparams.errors import UserError

if TYPE_CHECKING:
    from efficientnetv2.export.servable import Servable
    from hparams.config import Config

MODEL = "model.tflite"  # the network in the folder of a page
LOCAL_RUNTIME = "runtime"  # the folder of LiteRT.js in that of a page, if it is not loaded
VERSION = "2.5.3"  # of the packages of LiteRT.js
CDN = "https://cdn.jsdelivr.net/npm/"
_TEMPLATES = pathlib.Path(__file__).with_name("web")


class RuntimeFile(NamedTuple):
    """A file of LiteRT.js.

    Attributes:
      package: of npm.
      path: in the package.
      sha384: of its content, in base64.
    """

    package: str
    path: str
    sha384: str


# The names are those that network.js uses. Browsers without relaxed SIMD take the compat files.
RUNTIME = {
    "core": RuntimeFile(
        "@litertjs/core",
        "dist/index.js",
        "MapSVJ/DPwvaWpp7q+Bid9O3uY1oB0KOU1QRMP+Mm5zdz5oMme/BUyX6dVAMWnPg",
    ),
    "utils": RuntimeFile(
        "@litertjs/wasm-utils",
        "dist/bundle.js",
        "exsfV8ctw1NXqXHEB/yQp2EVZPXaMZmlYhZSap8S+DUdtZ0Sq+W7JAtw7WyXvjen",
    ),
    "script": RuntimeFile(
        "@litertjs/core",
        "wasm/litert_wasm_internal.js",
        "NB/Wc4iozynQO5jzJ2VFoMKbqMvwwFGWxJL/o63IJT6W2JfZbsSLxA2cF6H/mLpQ",
    ),
    "binary": RuntimeFile(
        "@litertjs/core",
        "wasm/litert_wasm_internal.wasm",
        "AZ/Ak4CbDpjqpSr8WsnoL3Dcx6bDFA/k9b/jahok1TGHZ2OqIRjLBMiEmiNedhlC",
    ),
    "compat_script": RuntimeFile(
        "@litertjs/core",
        "wasm/litert_wasm_compat_internal.js",
        "oh4nb8zDq6eVOpGeZE5gwDOJ16QujHLL8k/HEXt3XiPxr+8zn3YnkXP8P3BlJET1",
    ),
    "compat_binary": RuntimeFile(
        "@litertjs/core",
        "wasm/litert_wasm_compat_internal.wasm",
        "glAZ6WjS7tLRt89pbTPXvLC1c7DCaVSfL2ngn5gZJiUuPs76fWYJy7ZeFaD0PJXx",
    ),
}
_RUNTIME_BYTES = 9_700_000  # what a browser loads of it, for the progress bar
_INSTALL = f"npm install --prefix FOLDER @litertjs/core@{VERSION} @litertjs/wasm-utils@{VERSION}"


def find_runtime(folder: str | None) -> dict[str, pathlib.Path] | None:
    """Returns the files of LiteRT.js in a folder that npm has written, by the names of ``RUNTIME``.

    Args:
      folder: of ``npm install --prefix``, or its ``node_modules``; None: the result is None.

    Raises:
      UserError: if a file is missing, or is of another version than the page was tested with.
    """
    if folder is None:
        return None
    root = pathlib.Path(folder)
    if (root / "node_modules").is_dir():
        root = root / "node_modules"
    files = {name: root / file.package / file.path for name, file in RUNTIME.items()}
    for name, path in files.items():
        if not path.is_file():
            raise UserError(
                f"--web_runtime={folder} has no {path.relative_to(root)} of LiteRT.js; give the "
                f"FOLDER of: {_INSTALL}"
            )
        digest = base64.b64encode(hashlib.sha384(path.read_bytes()).digest()).decode()
        if digest != RUNTIME[name].sha384:
            raise UserError(
                f"--web_runtime={folder}: {path.relative_to(root)} is not that of LiteRT.js "
                f"{VERSION}; give the FOLDER of: {_INSTALL}"
            )
    return files


def write_page(
    folder: pathlib.Path,
    model: bytes,
    servable: Servable,
    config: Config,
    *,
    runtime: dict[str, pathlib.Path] | None,
) -> None:
    """Writes the folder of a page.

    Args:
      folder: the folder to make.
      model: the network as a LiteRT file with float input and output.
      servable: the same network.
      config: names the data, for the page's title.
      runtime: the files of LiteRT.js, which are copied into the folder; None: the page loads them
        from a public server, by version and hash.
    """
    import jinja2

    folder.mkdir()
    (folder / MODEL).write_bytes(model)
    if runtime is not None:
        (folder / LOCAL_RUNTIME).mkdir()
        for path in runtime.values():
            (folder / LOCAL_RUNTIME / path.name).write_bytes(path.read_bytes())
    for name in ("style.css", "pixels.js", "network.js", "page.js"):
        (folder / name).write_bytes((_TEMPLATES / name).read_bytes())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    description = servable.description
    template = environment.from_string((_TEMPLATES / "index.html").read_text(encoding="utf-8"))
    page = template.render(
        title=servable.model_name if servable.is_own else _title(config),
        subtitle=f"{description[0].upper()}{description[1:]}. Show it a photo.",
        version=f"efficientnetv2 {efficientnetv2.__version__}",
        config=_page_config(len(model), is_local=runtime is not None),
    )
    (folder / "index.html").write_text(page, encoding="utf-8", errors="backslashreplace")


def _title(config: Config) -> str:
    """Returns the name of the data that the network has learnt."""
    data_dir = config.data.data_dir
    if config.data.source == "folder" and data_dir:
        return pathlib.Path(data_dir).resolve().stem
    return config.data.ds_name


def _page_config(model_bytes: int, *, is_local: bool) -> dict[str, Any]:
    """Returns what the page has to know before it has read the network's own description."""

    def entry(file: RuntimeFile) -> dict[str, str]:
        url = f"{CDN}{file.package}@{VERSION}/{file.path}"
        if is_local:
            url = f"{LOCAL_RUNTIME}/{pathlib.PurePosixPath(file.path).name}"
        return {"url": url, "integrity": f"sha384-{file.sha384}"}

    return {
        "model": MODEL,
        "bytes": model_bytes + _RUNTIME_BYTES,
        "runtime": {name: entry(file) for name, file in RUNTIME.items()},
    }
