"""Fixtures for all tests. TensorFlow is not imported here: tests of ``hparams`` run without it."""

import gc
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"
FORK_SERVER = pathlib.Path(__file__).with_name("fork_server.py")
ROOT = pathlib.Path(__file__).parent.parent
# Counts the pictures that do not load, and how far a page is wider than the window.
COUNT_PICTURES = """<script>addEventListener("load", () => {
const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth);
const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.title = `${document.images.length} pictures, ${broken.length} broken, ${wide} too wide`;
})</script></body>"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the files with slow tests first, so that no process ends long after the others."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keeps the objects of the imports out of garbage collections, and makes these rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)  # tracing makes many objects, and little garbage


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of reference values from the official code; see tests/golden/README.md."""
    return GOLDEN


@pytest.fixture
def seed() -> int:
    return 2104


@pytest.fixture(autouse=True, scope="module")
def verbosity():
    """Restores the log level after each test file: commands lower it within the process."""
    from absl import logging

    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """The folder in which the digits are prepared, once for all tests."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def digits(data_dir):
    from efficientnetv2.data.sources import build_source
    from hparams import resolve

    return build_source(resolve("efficientnetv2-s", "digits", {"data.data_dir": data_dir}))


class ForkedProcess:
    """A process that the fork server started, with what tests need of ``subprocess.Popen``.

    Attributes:
      pid: process id.
      stdout: what it prints, as a text file.
      stderr: as stdout; None if stdout has both.
      returncode: exit code, -N after signal N; None until ``wait`` or ``poll`` has seen its end.
    """

    def __init__(self, control, arguments, *, cwd, env, file_size_limit, has_stderr):
        self._reply, their_reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes = [os.pipe() for _ in range(1 + has_stderr)]
        request = {
            "arguments": [str(argument) for argument in arguments],
            "cwd": str(cwd),
            "env": dict(os.environ if env is None else env),
            "file_size_limit": file_size_limit,
        }
        written = [pipe[1] for pipe in pipes]
        descriptors = [written[0], written[-1], their_reply.fileno()]
        socket.send_fds(control, [json.dumps(request).encode()], descriptors)
        their_reply.close()
        for descriptor in written:
            os.close(descriptor)
        streams = [os.fdopen(pipe[0], encoding="utf-8") for pipe in pipes]
        self.stdout, self.stderr = streams[0], streams[1] if has_stderr else None
        self.returncode = None
        self.pid = int(self._reply.recv(100))

    def wait(self, timeout=None):
        """Returns the exit code; subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            self._reply.settimeout(timeout)
            try:
                self.returncode = int(self._reply.recv(100))
            except (BlockingIOError, socket.timeout) as error:
                raise subprocess.TimeoutExpired("a fork", timeout) from error
        return self.returncode

    def poll(self):
        """Returns the exit code, or None while the process runs."""
        try:
            return self.wait(timeout=0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout=None):
        """Returns the rest of stdout and stderr after the end of the process."""
        streams = [stream for stream in (self.stdout, self.stderr) if stream]
        texts = {}
        readers = [
            threading.Thread(target=lambda s=s: texts.update({s: s.read()}), daemon=True)
            for s in streams
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return texts[self.stdout], texts.get(self.stderr)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def close(self):
        self.kill()
        for opened in (self._reply, self.stdout, self.stderr):
            if opened:
                opened.close()


@pytest.fixture(scope="session")
def start_process():
    """Starts a program with TensorFlow at hand; see tests/fork_server.py.

    Its arguments are those after ``python``: a program file, or ``-c`` and its text, and others.
    ``cwd`` is its folder, ``env`` its environment if not this one, ``file_size_limit`` the largest
    file in bytes that it can write; without ``has_stderr``, its errors come in its stdout. What
    happens before TensorFlow is imported is to be tested with ``subprocess``.
    """
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(FORK_SERVER), str(there.fileno())]
    started = []

    def start(*arguments, cwd=ROOT, env=None, file_size_limit=None, has_stderr=True):
        options = {"env": env, "file_size_limit": file_size_limit, "has_stderr": has_stderr}
        started.append(ForkedProcess(here, arguments, cwd=cwd, **options))
        return started[-1]

    with subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL):
        there.close()
        yield start
        for process in started:
            process.close()
        here.close()


@pytest.fixture(scope="session")
def run_process(start_process):
    """Runs a program to its end; arguments as for ``start_process``."""

    def run(*arguments, **options):
        process = start_process(*arguments, **options)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    return run


@pytest.fixture(scope="session")
def seen_in_browser(tmp_path_factory):
    """Opens a page in Chromium; returns ``N pictures, N broken, N too wide``, and its errors.

    A width of 400 pixels is that of a phone.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--enable-logging=stderr")

    def look(page, *, width):
        copy = tmp_path_factory.mktemp("page") / "page.html"
        text = page.read_text(encoding="utf-8")
        copy.write_text(text.replace("</body>", COUNT_PICTURES), encoding="utf-8")
        command = [program, *flags, f"--window-size={width},900", copy.as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        title = result.stdout.partition("<title>")[2].partition("</title>")[0]
        return title, [line for line in result.stderr.splitlines() if "CONSOLE" in line]

    return look
