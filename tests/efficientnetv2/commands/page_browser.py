"""Opens exported pages in a headless Chromium, and uses them there; see web_page_driver.js."""

import http.server
import json
import pathlib
import shutil
import subprocess
import tempfile
import threading

import numpy as np
import pytest

from efficientnetv2.export import web_page

DRIVER = pathlib.Path(__file__).with_name("web_page_driver.js")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-port=0",  # so that it stays until it is ended
    "--window-size=400,900",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


def npm_packages():
    """Returns the folder of npm's packages of LiteRT.js, kept for the next time."""
    folder = pathlib.Path(tempfile.gettempdir()) / f"efficientnetv2-litert-js-{web_page.VERSION}"
    npm = shutil.which("npm")
    if npm is None and not folder.is_dir():
        pytest.skip("npm is not installed")
    if not folder.is_dir():
        packages = {f"{file.package}@{web_page.VERSION}" for file in web_page.RUNTIME.values()}
        with tempfile.TemporaryDirectory(dir=folder.parent) as new:
            command = [npm, "install", "--prefix", new, "--no-audit", "--no-fund", *packages]
            result = subprocess.run(command, capture_output=True, text=True, timeout=300)
            if result.returncode:
                pytest.skip(f"npm cannot install LiteRT.js: {result.stderr[-500:]}")
            shutil.copytree(new, folder, dirs_exist_ok=True)
    return folder


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves folders, puts the driver into pages, and keeps what it sends."""

    def do_GET(self):
        site, (path, _, _) = self.server, self.path.partition("?")
        if path == "/plan.json":
            return self._answer(json.dumps(site.plan).encode(), "application/json")
        place, _, rest = path[1:].partition("/")
        if place not in site.folders:
            return self.send_error(404)
        file = site.folders[place] / (rest.replace(f"@{web_page.VERSION}/", "/") or "index.html")
        if not file.is_file():
            return self.send_error(404)
        content = file.read_bytes()
        if file.name == "index.html":
            script = f"<script>{DRIVER.read_text()}</script></body>"
            text = content.decode().replace("</body>", script)
            content = text.replace(web_page.CDN, site.runtime_address).encode()
        return self._answer(content, self.guess_type(str(file)))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        site, (_, kind, *rest) = self.server, self.path.split("/")
        if kind == "pixels":
            site.pixels[int(rest[0])] = np.frombuffer(body, np.float32)
            return self._answer(b"", "text/plain")
        site.seen.append(json.loads(body))
        left = site.pages[len(site.seen) :]
        self._answer((left[0] if left else "").encode(), "text/plain")
        if not left:
            site.done.set()
        return None

    def _answer(self, content, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def browse(pages, folders, plan, *, profile):
    """Opens pages one after another, in one browser, and uses each.

    Args:
      pages: their addresses, such as ``/name/``; with a query, all that a page has is used.
      folders: name -> folder that is served, among them ``images`` and ``npm``.
      plan: what the driver is told: ``names`` of images to choose, ``cases`` and ``readings``.
      profile: an empty folder.

    Returns:
      The server: ``seen`` has what each page showed, ``pixels`` those of the cases.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed")
    server = http.server.ThreadingHTTPServer(("localhost", 0), _Handler)
    address = f"http://localhost:{server.server_port}"
    server.runtime_address = f"http://127.0.0.1:{server.server_port}/npm/"  # another origin
    server.folders, server.pages, server.plan = folders, pages, plan
    server.pixels, server.seen, server.done = {}, [], threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [program, *CHROMIUM_FLAGS, f"--user-data-dir={profile}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, f"{address}{pages[0]}"], **quiet) as browser:
        is_done = server.done.wait(300)
        browser.terminate()
    server.shutdown()
    server.server_close()
    assert is_done, server.seen
    return server
