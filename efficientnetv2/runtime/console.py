"""Prints without ever ending the work: the terminal, pipe or file that is printed to may fail.

A pipe whose reader has gone (``| head -1``), a full disk (``> file``), a stream that was closed
(``>&-``) and a terminal that cannot show a letter must not cost anybody the results.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from hparams.errors import visible

# C0, DEL and C1, and the letters that turn the direction of text.
_CONTROL = [
    chr(code)
    for codes in (range(32), range(127, 160), range(0x202A, 0x202F), range(0x2066, 0x206A))
    for code in codes
]


class SteadyStream(io.TextIOBase):
    """Passes text on to a stream until that fails, then drops it.

    Control characters, which names of files and classes may hold, are shown as escape sequences: a
    terminal would obey them.

    Args:
      stream: of the console; None: it was closed before the program started.
      allowed: the control characters that are passed on.

    Attributes:
      error: why text was dropped; None: all of it was written.
    """

    def __init__(self, stream: TextIO | None, *, allowed: str = "\n\t") -> None:
        self._stream = stream
        self._control = {
            ord(letter): visible(letter) for letter in _CONTROL if letter not in allowed
        }
        self.error: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):  # a letter that it cannot show is escaped
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Writes text; returns its length."""
        if self._stream is not None and self.error is None:
            with self._noting_errors():
                self._stream.write(text.translate(self._control))
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        if self._stream is not None and self.error is None:
            with self._noting_errors():
                self._stream.flush()

    def isatty(self) -> bool:
        """Returns whether a person is looking at it."""
        return self._stream is not None and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the stream, such as its encoding."""
        return getattr(self.__dict__["_stream"], name)

    def fileno(self) -> int:
        """Returns the number of the stream's file.

        Raises:
          io.UnsupportedOperation: if it has none.
        """
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @contextlib.contextmanager
    def _noting_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            with contextlib.suppress(OSError, ValueError):
                # What is left in its buffer would fail once more when the interpreter ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())

    @property
    def was_left(self) -> bool:
        """Whether the reader of a pipe has gone."""
        return self.error is not None and self.error.errno == errno.EPIPE


def _open_closed_files() -> None:
    """Opens the null device for standard streams that were closed.

    Otherwise the next file that is opened would take their number, and what native code prints
    would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


@contextlib.contextmanager
def steady_console() -> Iterator[SteadyStream]:
    """Within the context, printing does not raise; yields what stands for standard output."""
    before = sys.stdout, sys.stderr
    _open_closed_files()
    out = SteadyStream(sys.stdout)
    err = SteadyStream(sys.stderr, allowed="\n\t\r")  # progress bars go back to the line's start
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


class _Muted(io.TextIOBase):
    """Drops what some threads print; what other threads print passes.

    Attributes:
      stream: that other threads print to.
      threads: identifier of a thread -> how many contexts mute it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.threads: collections.Counter[int] = collections.Counter()

    def write(self, text: str) -> int:
        """Writes text of other threads; returns its length."""
        if threading.get_ident() not in self.threads:
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        self.stream.flush()


_MUTING = threading.Lock()


@contextlib.contextmanager
def muted(is_muted: bool = True) -> Iterator[None]:
    """Within the context, this thread prints nothing to standard output.

    Args:
      is_muted: False: it does, as everywhere else.
    """
    if not is_muted:
        yield
        return
    thread = threading.get_ident()
    with _MUTING:  # threads share one stream, so that they may end in any order
        muting = sys.stdout if isinstance(sys.stdout, _Muted) else _Muted(sys.stdout)
        muting.threads[thread] += 1
        sys.stdout = muting
    try:
        yield
    finally:
        with _MUTING:
            muting.threads[thread] -= 1
            muting.threads += collections.Counter()  # without those that are 0
            if not muting.threads and sys.stdout is muting:
                sys.stdout = muting.stream


def in_notebook() -> bool:
    """Returns whether this is the kernel of a notebook, which can show pictures."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def open_bar(iterable: Any = None, **options: Any) -> Any:
    """Returns a progress bar on standard error, or in the notebook; else one that shows nothing.

    Args:
      iterable: what to iterate over; None: the caller moves the bar.
      **options: those of ``tqdm.tqdm``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in a notebook without ipywidgets it is a line of text
        import tqdm.auto
    is_seen = in_notebook() or sys.stderr.isatty()
    return tqdm.auto.tqdm(iterable, leave=False, disable=not is_seen, **options)
