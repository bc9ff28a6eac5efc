"""Runs the command line: parses the flags, runs the mode, returns the exit code.

Exit codes: 0 for success; 2 for an error that the user can fix, in one line on stderr; 128 + N if
signal N stopped the program, with its state saved. TensorFlow is imported after everything that can
be checked without it.
"""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.commands import run_mode
from efficientnetv2.flags import define_flags, help_text, parse
from efficientnetv2.runtime.signals import Stopped, StopRequest
from hparams.errors import UserError

# Errors of a full or read-only disk.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def main(argv: Sequence[str], defaults: Mapping[str, Any] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the program's name, then its arguments.
      defaults: flag name -> default, where it differs from that of ``define_flags``.

    Returns:
      The exit code.
    """
    values = define_flags(defaults or {})
    program = pathlib.Path(argv[0]).name
    try:
        with StopRequest().listening():
            parse(values, argv)
            if values.help or values.helpfull:
                print(help_text(values, program=program), flush=True)
                return 0
            return run_mode(values)
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        print(f"{program}: cannot write: {error.strerror}", file=sys.stderr)
        return 2
