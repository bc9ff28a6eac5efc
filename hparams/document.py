"""The table of configuration keys in; ``docs/hparams.md`` out (``python -m hparams.document``)."""

from __future__ import annotations

from hparams.base import KEYS
from hparams.key import Key


def markdown() -> str:
    """Returns the page, one table a section."""
    head = "# Configuration keys\n\nMade from `hparams/base.py` by `python -m hparams.document`.\n"
    sections: dict[str, list[str]] = {}
    for name, key in KEYS.items():
        default = "not set" if key.default is None else f"`{key.default!r}`"
        row = f"| `{name}` | {key.kind.__name__} | {default} | {key.meaning}{_limits(key)} |"
        sections.setdefault(name.split(".")[0], []).append(row)
    table = "| key | type | default | meaning |\n|---|---|---|---|\n"
    body = [f"\n## {name}\n\n{table}" + "\n".join(rows) + "\n" for name, rows in sections.items()]
    return head + "".join(body)


def _limits(key: Key) -> str:
    if key.choices:
        return f" ({', '.join(f'`{choice}`' for choice in key.choices)})"
    limits = [
        f"{sign} {value:g}"
        for sign, value in ((">=", key.low), (">", key.above), ("<=", key.high))
        if value is not None
    ]
    return f" ({', '.join(limits)})" if limits else ""


if __name__ == "__main__":
    print(markdown(), end="")
