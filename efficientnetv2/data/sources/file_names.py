"""Checks and shows names of files and folders, which may be any bytes."""

from __future__ import annotations

import os
import pathlib
import unicodedata

from hparams.errors import visible


def is_plain_text(name: str) -> bool:
    """Returns whether a name is UTF-8, and stays one line in every file that lists names.

    Whether it is UTF-8 does not depend on the locale.
    """
    if name.isascii() and name.isprintable():  # nearly all are, and there may be millions
        return True
    try:
        text = os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return False
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def printable(path: str | bytes | pathlib.Path) -> str:
    r"""Returns a path as one line of text: bytes and line breaks as ``\xe9`` and ``\n``."""
    return visible(os.fsencode(path).decode("utf-8", "backslashreplace"))
