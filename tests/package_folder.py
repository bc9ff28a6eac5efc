"""Installs packages for single tests into folders of their own, apart from those of the program."""

import os
import pathlib
import subprocess
import sys


def install_apart(folder: pathlib.Path, *requirements: str) -> pathlib.Path:
    """Installs packages, without those that they require, into a folder for ``PYTHONPATH``.

    For packages whose requirements do not go together with TensorFlow's, or that only a test uses.
    What they import must be in the folder or among the packages of the program. As the tests of the
    wheel, this needs the package index.
    """
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--no-compile"]
    command += ["--disable-pip-version-check", "--target", str(folder), *requirements]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    return folder


def run_apart(folder: pathlib.Path, program: str, *arguments: object) -> str:
    """Runs a Python program with such a folder in a process; returns what it prints.

    Raises:
      AssertionError: if it fails; the message is its stderr.
    """
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
