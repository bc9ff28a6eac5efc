"""Installs packages for single tests into folders of their own, apart from those of the program."""

import json
import os
import pathlib
import subprocess
import sys

# The tasks need no TensorFlow, and import it where they find it.
_CLASSIFY = """
import json, pathlib, sys
sys.modules["tensorflow"] = None
import mediapipe as mp, numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions

folder = pathlib.Path(sys.argv[1])
images = [mp.Image(mp.ImageFormat.SRGB, image) for image in np.load(folder / "images.npy")]
found = {}
for path in folder.glob("*.tflite"):
    options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    try:
        with ImageClassifier.create_from_options(options) as classifier:
            results = [classifier.classify(image).classifications for image in images]
        found[path.stem] = [
            {entry.category_name: entry.score for entry in head.categories} for head, in results
        ]
    except (RuntimeError, ValueError) as error:
        found[path.stem] = str(error)
print(json.dumps(found))
"""


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


def classify_with_mediapipe(folder: pathlib.Path, files: pathlib.Path) -> dict:
    """Shows images to MediaPipe's image classifier.

    Args:
      folder: where mediapipe is installed.
      files: holds ``images.npy``, uint8 ``[N, H, W, 3]``, and LiteRT files.

    Returns:
      Name of a file without its ending -> for each image, class name -> score; or the error.
    """
    return json.loads(run_apart(folder, _CLASSIFY, files).splitlines()[-1])
