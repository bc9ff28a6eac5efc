"""Runs command lines in the process of the tests, which has imported TensorFlow already."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys

import pytest
from PIL import Image

from efficientnetv2 import get_model
from efficientnetv2.cli import main

from .page_browser import npm_packages


@contextlib.contextmanager
def started_in(folder, argv):
    before = pathlib.Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = argv
    try:
        yield
    finally:
        os.chdir(before[0])
        sys.argv = before[1]


@pytest.fixture(scope="session")
def main_tf2():
    """Runs ``main_tf2.py`` with arguments in a folder; returns exit code, stdout and stderr.

    What only a process shows (signals, limits, the output of native code) needs a real one.
    """

    def run(*arguments, cwd):
        argv = ["main_tf2.py", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        redirected = contextlib.redirect_stdout(out), contextlib.redirect_stderr(err)
        with started_in(cwd, argv), redirected[0], redirected[1]:
            code = main(argv)
        return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes of grey images of 28 px: 40 to train on, 8 of val, 8 of test."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for part, count in (("train", 20), ("val", 4), ("test", 4)):
        for shade, name in ((60, "dark"), (200, "light")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.new("L", (28, 28), shade + number)
                image.save(folder / part / name / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """A file of random weights of an EfficientNetV2-B0 of one small block, with 7 classes."""
    overrides = {"blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "feature_size": 8}
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    get_model("efficientnetv2-b0", num_classes=7, overrides=overrides).save_weights(path)
    return path


@pytest.fixture(scope="session")
def litert_js():
    """The folder of npm's packages of LiteRT.js."""
    return npm_packages()
