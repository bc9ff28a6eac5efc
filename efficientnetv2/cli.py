"""Runs the command line: parses the flags, runs the mode, returns the exit code.

TensorFlow is imported after everything that can be checked without it.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from efficientnetv2.commands import run_mode
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import help_text, parse
from efficientnetv2.runtime.program import run_program
from efficientnetv2.runtime.signals import StopRequest
from efficientnetv2.runtime.tensorflow_import import hide_retracing_warnings


def main(argv: Sequence[str], defaults: Mapping[str, Any] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: the program's name, then its arguments.
      defaults: flag name -> default, where it differs from that of ``define_flags``.

    Returns:
      The exit code; see ``runtime.program``.
    """
    program = pathlib.Path(argv[0]).name

    def work(stop: StopRequest) -> int:
        values = parse(define_flags(defaults or {}), argv)
        if values.help or values.helpfull:
            started = f"python {program}" if program.endswith(".py") else program
            print(help_text(values, program=started), flush=True)
            return 0
        if values.version:
            from efficientnetv2.commands.version import version_text  # --help need not wait for it

            print(version_text(), flush=True)
            return 0
        with hide_retracing_warnings():
            return run_mode(values, stop).code

    return run_program(program, work)


def console() -> int:
    """Runs the command ``efficientnetv2``."""
    return main(sys.argv)
