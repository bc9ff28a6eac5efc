"""Prints the files generated from the table of config keys: docs/hparams.md and hparams/config.py.

python -m hparams.document > docs/hparams.md
python -m hparams.document --types  (writes hparams/config.py)
"""

from __future__ import annotations

import pathlib
import sys

from hparams.errors import shown
from hparams.factors import Key
from hparams.keys import DATA_SET_KEYS, KEYS
from hparams.overrides import limit_text


def markdown() -> str:
    """Returns the text of docs/hparams.md, with one table per section."""
    head = (
        "# Configuration keys\n\n"
        "Generated from `hparams/keys.py` by `python -m hparams.document`.\n"
    )
    sections: dict[str, list[str]] = {}
    for name, key in KEYS.items():
        default = "not set" if key.default is None else f"`{key.default!r}`"
        row = f"| `{name}` | {key.kind.__name__} | {default} | {key.meaning}{_limits(key)} |"
        sections.setdefault(name.split(".")[0], []).append(row)
    table = "| key | type | default | meaning |\n|---|---|---|---|\n"
    body = [f"\n## {name}\n\n{table}" + "\n".join(rows) + "\n" for name, rows in sections.items()]
    return head + "".join(body)


def _limits(key: Key) -> str:
    if key.table:  # a new row changes this page as little as any other file
        module, _, name = key.table.partition(".")
        return f" (a row of [{name}](../hparams/{module}.py))"
    if key.choices:
        return f" ({', '.join(f'`{choice}`' for choice in key.choices)})"
    limits = [
        f"{sign} {limit_text(value)}"
        for sign, value in ((">=", key.low), (">", key.above), ("<=", key.high))
        if value is not None
    ]
    return f" ({', '.join(limits)})" if limits else ""


def types() -> str:
    """Returns the text of hparams/config.py, with one class per section."""
    head = '''"""The types of a config's sections, for editors and mypy.

Written by ``python -m hparams.document --types``. At run time a config is an immutable
``ml_collections.FrozenConfigDict``, which knows no types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol


class Section(Protocol):
    """What all sections have in common."""

    def __getitem__(self, key: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...

    def items(self) -> Any:
        """Returns pairs of key and value."""

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts."""
'''
    sections: dict[str, list[str]] = {}
    for name, key in KEYS.items():
        section, field = name.split(".")
        sections.setdefault(section, []).append(f"    {field}: {_type(name, key)}\n")
    classes = [
        f"\n\nclass {section.capitalize()}Section(Section, Protocol):\n"
        f'    """The keys {section}.*; see ``hparams.keys``."""\n\n{"".join(fields)}'
        for section, fields in sections.items()
    ]
    fields = "".join(f"    {section}: {section.capitalize()}Section\n" for section in sections)
    config = f'\n\nclass Config(Section, Protocol):\n    """A whole config."""\n\n{fields}'
    return head + "".join(classes) + config


def _type(name: str, key: Key) -> str:
    kind = key.item if key.kind is list else key.kind
    text = kind.__name__
    if key.choices and not key.table:
        text = f"Literal[{', '.join(repr(choice) for choice in key.choices)}]".replace("'", '"')
    if key.kind is list:
        text = f"tuple[{text}, ...]"
    is_optional = key.default is None and name not in DATA_SET_KEYS
    return f"{text} | None" if is_optional else text


def main() -> None:
    """Prints docs/hparams.md or, with ``--types``, writes hparams/config.py."""
    if sys.argv[1:] not in ([], ["--types"]):
        print(f"takes no argument but --types, got {shown(sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)
    if sys.argv[1:]:
        pathlib.Path(__file__).with_name("config.py").write_text(types(), encoding="utf-8")
    else:
        print(markdown(), end="")


if __name__ == "__main__":
    main()
