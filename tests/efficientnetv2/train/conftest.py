"""What breaks a process at a chosen touch of the file system."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

_EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir")


class Killed(BaseException):
    """As if the process ended here: no clean-up takes notice of it."""


class Killer:
    """Acts at the n-th touch of a path, as Python's audit events tell of them."""

    def __init__(self) -> None:
        self._left: int | None = None
        self._where = ""
        self._act: Callable[[], None] = self.kill
        sys.addaudithook(self._see)

    @staticmethod
    def kill() -> None:
        raise Killed

    def _see(self, event: str, arguments: tuple) -> None:
        if self._left is None or event not in _EVENTS or self._where not in str(arguments[0]):
            return
        self._left -= 1
        if self._left < 0:
            self._left = None
            self._act()

    def survives(
        self,
        work: Callable[[], object],
        *,
        touch: int = 0,
        where: str = "",
        act: Callable[[], None] | None = None,
    ) -> bool:
        """Runs ``work``; returns whether it came to its end.

        Args:
          work: what is killed.
          touch: it is at this touch, from 0, of a path that has
          where: in it.
          act: is called instead of killing.
        """
        self._left, self._where, self._act = touch, where, act or self.kill
        try:
            work()
        except Killed:
            return False
        finally:
            self._left = None
        return True


_KILLER = Killer()  # an audit hook cannot be taken off


@pytest.fixture
def killer() -> Killer:
    return _KILLER
