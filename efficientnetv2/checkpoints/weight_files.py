"""Tells which files hold weights, by their place in a folder and by how they begin."""

from __future__ import annotations

import pathlib
import zipfile

H5_START = b"\x89HDF\r\n\x1a\n"
# Members of a .keras file.
KERAS_WEIGHTS, KERAS_CONFIG = "model.weights.h5", "config.json"
KERAS_SETTINGS = "efficientnetv2.json"  # written by --mode=convert: what the network needs besides
CONFIG = "config.json"  # beside the weights, in a folder of Hugging Face's hub
# The files of a network in its folder, the one that is preferred first.
KERAS_HUB_BACKBONE, KERAS_HUB_TASK = "model.weights.h5", "task.weights.h5"
FILES = ("model.safetensors", "pytorch_model.bin", KERAS_HUB_BACKBONE)


def file_in_folder(path: pathlib.Path) -> pathlib.Path:
    """Returns the file of weights in a folder; the path itself if it is no such folder."""
    if path.is_dir():
        for name in FILES:
            if (path / name).is_file():
                return path / name
    return path


def is_keras_zip(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is a .keras file."""
    return {KERAS_WEIGHTS, KERAS_CONFIG} <= set(archive.namelist())


def is_keras_file(path: pathlib.Path) -> bool:
    """Whether a file is one that Keras writes: HDF5 or .keras."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        if stream.read(len(H5_START)) == H5_START:
            return True
    try:
        with zipfile.ZipFile(path) as archive:
            return is_keras_zip(archive)
    except zipfile.BadZipFile:
        return False
