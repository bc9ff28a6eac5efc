"""Turns SIGINT and SIGTERM into a ``Stopped`` exception, at once or at the next safe point."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.01  # after which a finaliser has probably ended


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

    Args:
      kills: False: a second signal does what it did before the context; for use as a library.

    Attributes:
      number: of the signal that was received, or None.
    """

    def __init__(self, *, kills: bool = True) -> None:
        self.number: int | None = None
        self._at_once = True
        self._kills = kills
        self._before: dict[int, Any] = {}
        self._hook: Any = None
        self._is_listening = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Installs the signal handlers within the context, where it is that of the main thread."""
        if self._is_listening or threading.current_thread() is not threading.main_thread():
            yield self
            return
        self._before = {number: signal.signal(number, self._request) for number in _SIGNALS}
        self._hook, sys.unraisablehook = sys.unraisablehook, self._not_raised
        self._is_listening = True
        try:
            yield self
        finally:
            self._is_listening = False
            sys.unraisablehook = self._hook
            for number, handler in self._before.items():
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
            second = signal.SIG_DFL if self._kills else self._before[signal_number]
            signal.signal(signal_number, second)
        if self._at_once:
            raise Stopped(number)

    def _not_raised(self, unraisable: Any) -> None:
        """Raises ``Stopped`` again if Python ignored it, as it does inside finalisers.

        These run at any time, as memory is freed, and no exception can leave them.
        """
        if self.number is None or not issubclass(unraisable.exc_type, Stopped):
            self._hook(unraisable)
            return
        signal.signal(self.number, self._request)
        threading.Timer(_AGAIN_SECONDS, self._send_again, [self.number]).start()

    def _send_again(self, number: int) -> None:
        if self._is_listening:
            os.kill(os.getpid(), number)
