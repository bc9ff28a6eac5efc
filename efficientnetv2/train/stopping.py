"""SIGINT and SIGTERM in; a ``Stopped`` out, at once or where nothing is lost by it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Raised when a signal asked to stop; no ``except Exception`` swallows it.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopRequest:
    """Listens to signals; the first one is granted, a second one ends the process as it stands.

    Attributes:
      number: of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = True
        self._is_listening = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Within the context, signals come here. Only the main thread may listen."""
        if self._is_listening:
            yield self
            return
        before = {number: signal.signal(number, self._request) for number in _SIGNALS}
        self._is_listening = True
        try:
            yield self
        finally:
            self._is_listening = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def renew(self) -> None:
        """Takes the signals back from a library that has begun to listen to them itself."""
        if self._is_listening and self.number is None:
            for number in _SIGNALS:
                signal.signal(number, self._request)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the context, a signal is only noted; ``check`` grants it."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the context, which changes nothing that is saved, a signal raises ``Stopped``."""
        before, self._at_once = self._at_once, True
        try:
            self.check()
            yield
        finally:
            self._at_once = before

    def check(self) -> None:
        """Raises ``Stopped`` if a signal came."""
        if self.number is not None:
            raise Stopped(self.number)

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        # By the system's own action the second one acts in the middle of a long write, too.
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self._at_once:
            raise Stopped(number)
