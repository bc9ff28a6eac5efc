"""Opens data sets of TensorFlow Datasets, and prepares them first if need be."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import pathlib
import textwrap
import urllib.parse

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from efficientnetv2.data.sources import digits
from hparams.errors import DataError

# Builders that make their files from an installed package, so that they need no network.
_LOCAL_BUILDERS = {"digits": digits.Digits}
_DEFAULT_DIR = pathlib.Path("~/tensorflow_datasets")
_RETRIES = 5  # TFDS's own 10 keep a machine without network waiting for more than 3 minutes
_REASON_LENGTH = 400  # characters


def open_builder(name: str, *, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set, which it downloads and prepares first if need be.

    Args:
      name: as in TensorFlow Datasets; ``NAME/CONFIG`` for one of several configurations.
      data_dir: folder of prepared data; None: ``~/tensorflow_datasets``.

    Raises:
      DataError: if TensorFlow Datasets does not know it, or it cannot be prepared.
    """
    where = str(pathlib.Path(data_dir or _DEFAULT_DIR).expanduser())
    try:
        local = _LOCAL_BUILDERS.get(name)
        builder = local(data_dir=where) if local else tfds.builder(name, data_dir=where)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(name, tfds.list_builders(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DataError(f"TensorFlow Datasets knows no data set '{name}'{hint}") from None
    except (ValueError, ImportError, OSError) as error:
        raise DataError(f"cannot open data set '{name}': {one_line(error)}") from None
    if not builder.is_prepared():
        _prepare(builder, name, where)
    return builder


def _prepare(builder: tfds.core.DatasetBuilder, name: str, where: str) -> None:
    downloader.MAX_RETRIES = _RETRIES
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would announce each retry
    advice = (
        f"; name the folder that holds it with --data_dir, or prepare it with "
        f"'tfds build {name} --data_dir={where}'"
    )
    with contextlib.ExitStack() as stack:
        if name in _LOCAL_BUILDERS:  # a matter of seconds
            advice = ""
            tfds.disable_progress_bar()
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        try:
            builder.download_and_prepare()
        except Exception as error:  # a builder is foreign code: it may raise anything
            said = f"data set '{name}' is not prepared in '{where}', and preparing it failed: "
            message = f"{said}{one_line(error)}{advice}"
            # TFDS says there what must be fetched by hand, and three times where: all is needed.
            raise DataError(message, limit=len(message)) from None


def one_line(error: Exception) -> str:
    """Shortens an error of TensorFlow Datasets, which may fill pages, to one line."""
    if isinstance(error, requests.ConnectionError) and error.request is not None:
        return f"no connection to {urllib.parse.urlsplit(str(error.request.url)).hostname}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return textwrap.shorten(text, _REASON_LENGTH, placeholder=" ...")
