"""Runs a program's work: turns errors and signals into one line on stderr and an exit code.

Exit codes: 0 for success; 2 for an error that the user can fix, in one line on stderr; 128 + N if
signal N stopped the program, with its state saved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator

from efficientnetv2.runtime.console import steady_console
from efficientnetv2.runtime.signals import Stopped, StopRequest
from hparams.errors import UserError, shortened, visible

# Errors of a full or read-only disk, and of a path that the system does not take.
_USER_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
)
_SHOWN = 80  # characters of a path in a message


def run_program(name: str, work: Callable[[StopRequest], int]) -> int:
    """Runs ``work`` to its end, whatever becomes of the console; see ``steady_console``.

    Args:
      name: of the program, which error messages begin with.
      work: does everything, with the signals that may stop it; returns an exit code.

    Returns:
      The exit code.
    """
    with steady_console() as out:
        code = _run(name, work)
        out.flush()
        if out.was_left:  # as `| head` does
            return code or 128 + signal.SIGPIPE
        if out.error is not None:
            print(f"{name}: cannot print: {out.error.strerror}", file=sys.stderr)
            return code or 2
        return code


def _run(name: str, work: Callable[[StopRequest], int]) -> int:
    try:
        with StopRequest().listening() as stop, system_errors():
            return work(stop)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{name}: {stopped}", file=sys.stderr)
        return 128 + stopped.number


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """Within the context, an error of a disk or path that the user can mend is a ``UserError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _USER_ERRORS:
            raise
        raise UserError(_describe(error)) from error


def _describe(error: OSError) -> str:
    if error.filename is None:
        return f"cannot write: {error.strerror}"
    path = shortened(visible(os.fsdecode(error.filename)), limit=_SHOWN)
    return f"cannot use '{path}': {error.strerror}"
