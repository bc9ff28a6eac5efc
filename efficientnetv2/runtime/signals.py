"""Turns SIGINT and SIGTERM into a ``Stopped`` exception, at once or at the next safe point."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Raised when a signal asks the program to stop; ``except Exception`` does not catch it.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopRequest:
    """Handles stop signals: the first one raises ``Stopped``, a second one kills the process.

    Attributes:
      number: of the signal that was received, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = True
        self._is_listening = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Installs the signal handlers within the context. Works in the main thread only."""
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

    def reinstall_handlers(self) -> None:
        """Installs the handlers again after a library has replaced them by its own."""
        if self._is_listening and self.number is None:
            for number in _SIGNALS:
                signal.signal(number, self._request)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within the context, a signal is only recorded; ``check`` raises ``Stopped`` for it."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within the context, a signal raises ``Stopped`` at once; for work that saves nothing."""
        before, self._at_once = self._at_once, True
        try:
            self.check()
            yield
        finally:
            self._at_once = before

    def check(self) -> None:
        """Raises ``Stopped`` if a signal has been received."""
        if self.number is not None:
            raise Stopped(self.number)

    def _request(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number
        # The system's default action ends the process even in the middle of a long native call.
        for signal_number in _SIGNALS:
            signal.signal(signal_number, signal.SIG_DFL)
        if self._at_once:
            raise Stopped(number)
