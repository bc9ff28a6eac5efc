"""Converts pretrained weights from one file format to another.

    python -m efficientnetv2.checkpoints convert IN OUT --model_name=efficientnetv2-s

Prints how many weights were loaded, which are missing and which are not used. IN may be a
TensorFlow checkpoint, a run directory, .weights.h5, .h5, .keras, .pth or .safetensors; its format
is recognised by its content. The ending of OUT selects what is written: .weights.h5 or .keras
(Keras), .safetensors (timm's names), .index (official TF1 names).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from efficientnetv2.checkpoints.writer import find_writer, write_weights
from efficientnetv2.runtime.atomic_write import require_writable_file
from efficientnetv2.runtime.program import run_program
from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.errors import UserError
from hparams.resolve import resolve_model
from hparams.weights import require_weights


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints the error in one line, without the usage, and exits with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Converts one file; returns the exit code."""
    parser = _Parser(prog="python -m efficientnetv2.checkpoints", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=["convert"])
    parser.add_argument("source", type=pathlib.Path, metavar="IN", help="weights to read")
    parser.add_argument("target", type=pathlib.Path, metavar="OUT", help="file to write")
    parser.add_argument("--model_name", required=True, help="for example efficientnetv2-s")
    parser.add_argument("--num_classes", type=int, default=1000, help="of IN (default: 1000)")
    parser.add_argument("--overrides", default="", help="config keys, such as round_down_limit=0.1")
    arguments = parser.parse_args(argv)
    return run_program(parser.prog, lambda _: _convert(arguments))


def _convert(arguments: argparse.Namespace) -> int:
    source, target = (path.expanduser() for path in (arguments.source, arguments.target))
    config = resolve_model(arguments.model_name, arguments.overrides)
    if arguments.num_classes < 1:
        raise UserError(f"--num_classes must be at least 1, got {arguments.num_classes}")
    require_weights(source, model_name=config.model_name)
    find_writer(target)
    require_writable_file(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"IN and OUT are the same file, '{target}'")
    import_tensorflow()  # only now: wrong arguments are reported without it
    from efficientnetv2.checkpoints.pretrained_model import layer_map_of, load_pretrained
    from efficientnetv2.model.factory import build_model

    model = build_model(config, num_classes=arguments.num_classes)
    report = load_pretrained(model, config, source)
    write_weights(model, target, layer_map_of(config))
    print(f"{report}; missing: none\nwritten to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
