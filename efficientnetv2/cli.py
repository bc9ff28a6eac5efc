"""The command line: flags in; a resolved configuration, then the mode's work; an exit code out.

Exit codes: 0 done; 2 something that the user can mend, in one line on stderr; 128 + N stopped by
signal N, saved. TensorFlow is imported after everything that can be checked without it.
"""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.commands import COMMANDS
from efficientnetv2.flags import define_flags, help_text, parse
from efficientnetv2.train.stopping import Stopped, StopRequest
from hparams.errors import UserError

# Errors of a disk that takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def main(argv: Sequence[str], defaults: Mapping[str, Any] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the program's name and its arguments.
      defaults: flags whose default differs from ``define_flags``'s.

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
            return COMMANDS[values.mode](values)
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(f"{program}: {stopped}", file=sys.stderr)
        return 128 + stopped.number
    except BrokenPipeError:  # nobody reads on, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _FULL:
            raise
        print(f"{program}: cannot write: {error.strerror}", file=sys.stderr)
        return 2
