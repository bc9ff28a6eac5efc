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

from efficientnetv2.runtime.tensorflow_import import import_tensorflow
from hparams.errors import UserError
from hparams.resolve import resolve_model


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
    try:
        return _convert(arguments)
    except (UserError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _convert(arguments: argparse.Namespace) -> int:
    config = resolve_model(arguments.model_name, arguments.overrides)
    if arguments.num_classes < 1:
        raise UserError(f"--num_classes must be at least 1, got {arguments.num_classes}")
    import_tensorflow()  # only now: wrong arguments are reported without it
    from efficientnetv2.checkpoints.pretrained_model import layer_map_of, load_pretrained
    from efficientnetv2.checkpoints.writer import find_writer
    from efficientnetv2.model.factory import build_model

    write = find_writer(arguments.target)
    model = build_model(config, num_classes=arguments.num_classes)
    report = load_pretrained(model, config, arguments.source)
    write(model, arguments.target, layer_map_of(config))
    print(f"{report}; missing: none\nwritten to {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
