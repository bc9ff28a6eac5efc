"""``python -m efficientnetv2.model.checkpoints convert IN OUT``: weights of one format in another.

What was matched, what is missing and what is not used is printed. The formats that are read, and
how they are told apart, are those of ``reading.read_weights``; the ending of OUT says what is
written: .weights.h5 or .keras (Keras), .safetensors (timm's names), .index (official TF1 names).
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from efficientnetv2.quiet import import_tensorflow
from hparams.errors import UserError
from hparams.resolve import resolve_model


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Converts one file; returns the exit code."""
    parser = _Parser(prog="python -m efficientnetv2.model.checkpoints", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=["convert"])
    parser.add_argument("source", type=pathlib.Path, metavar="IN")
    parser.add_argument("target", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--model_name", required=True, help="efficientnetv2-s, ...")
    parser.add_argument("--num_classes", type=int, default=1000, help="of the file (default: 1000)")
    parser.add_argument("--overrides", default="", help='such as "round_down_limit=0.1"')
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
    import_tensorflow()  # which a wrong name does not need
    from efficientnetv2.model.checkpoints.writing import find_writer
    from efficientnetv2.model.factory import build_model
    from efficientnetv2.model.pretrained import load_pretrained, parts_of

    write = find_writer(arguments.target)
    model = build_model(config, num_classes=arguments.num_classes)
    report = load_pretrained(model, config, arguments.source)
    write(model, arguments.target, parts_of(config))
    print(f"{report}; missing: none\nwritten to {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
