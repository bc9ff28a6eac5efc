"""Provides tables of named rows that reject duplicates and suggest the nearest known name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from hparams.errors import UserError, listed, shown

T = TypeVar("T")
_LONGEST_NAME = 100  # characters of a name that are compared with known ones


class UnknownNameError(UserError, KeyError):
    """A name that is not in a table; the message suggests the nearest one that is."""

    def __str__(self) -> str:
        return str(self.args[0])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` if a known name is near, else a list of known names."""
    known = list(known)
    # The comparison takes time with the square of the length; no known name is that long.
    nearest = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=1, cutoff=0.6)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; known: {listed(known)}"


class Registry(Mapping[str, T], Generic[T]):
    """A table of named rows.

    Args:
      kind: what error messages call a row, such as "model".
      spelling: turns a name as people write it into the one in the table. By default lookup ignores
        case, because the official command line writes ``Imagenet`` as well as ``imagenet``.
    """

    def __init__(self, kind: str, *, spelling: Callable[[str], str] = str.lower) -> None:
        self._kind = kind
        self._spelling = spelling
        self._rows: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, row: T, *, aliases: Iterable[str] = ()) -> T:
        """Adds a row under a lower-case name and its aliases.

        Raises:
          ValueError: if the name or an alias is taken, or is not lower case.
        """
        names = (name, *aliases)
        for key in names:
            if key != key.lower():
                raise ValueError(f"{self._kind} names are lower case, got '{key}'")
            if key in self._rows or key in self._aliases or names.count(key) > 1:
                raise ValueError(f"{self._kind} '{key}' is already registered")
        self._rows[name] = row
        self._aliases.update(dict.fromkeys(aliases, name))
        return row

    def canonical(self, name: str) -> str:
        """Returns the registered spelling of ``name``, which may be an alias.

        Raises:
          UnknownNameError: if neither a row nor an alias has that name.
        """
        if not isinstance(name, str):
            raise UnknownNameError(
                f"the name of a {self._kind} is text such as '{next(iter(self._rows), 'x')}', got "
                f"{shown(name)}"
            )
        key = self._spelling(name)
        key = self._aliases.get(key, key)
        if key not in self._rows:
            hint = did_you_mean(key, [*self._rows, *self._aliases])
            raise UnknownNameError(f"unknown {self._kind} {shown(name)}{hint}")
        return key

    def matching(self, pattern: str | None = None) -> list[str]:
        """Returns the names that match a pattern such as ``*v2*``, in order; None: all."""
        if pattern is None:
            return list(self._rows)
        return [name for name in self._rows if fnmatch.fnmatch(name, pattern.lower())]

    def __getitem__(self, name: str) -> T:
        return self._rows[self.canonical(name)]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        key = self._spelling(name)
        return key in self._rows or key in self._aliases

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
