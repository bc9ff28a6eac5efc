"""Checks the values of the benchmarks' flags, for ``argparse``: one line says what is wrong."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Collection


def names_of(known: Collection[str], *, separator: str = ",") -> Callable[[str], list[str]]:
    """Returns a type of flag: some names of a table, with a separator between them."""

    def names(text: str) -> list[str]:
        given = text.split(separator)
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no '{name}'; give {f'{separator} '.join(known)}")
        return given

    return names


def existing_folder(text: str) -> pathlib.Path:
    """Returns the path of a folder, which must exist."""
    if not pathlib.Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"folder '{text}' does not exist")
    return pathlib.Path(text)
