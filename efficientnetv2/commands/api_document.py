"""Writes the reference of the Python API at the end of docs/python.md, from the docstrings.

python -m efficientnetv2.commands.api_document
"""

from __future__ import annotations

import dataclasses
import inspect
import pathlib
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import efficientnetv2
from efficientnetv2.runtime.atomic_write import replace_text

_PAGE = pathlib.Path(__file__).parents[2] / "docs" / "python.md"
_HEAD = "## Reference\n"
_SECTION = re.compile(r"(Args|Returns|Raises|Attributes|Yields):(.*)", re.DOTALL)
_WIDTH = 100  # characters of a line of a signature


def reference() -> str:
    """Returns the section of docs/python.md, with an entry for each public name."""
    command = "python -m efficientnetv2.commands.api_document"
    parts = [_HEAD, f"Written by `{command}` from the docstrings, whose examples are tests.\n"]
    parts.append("All names are those of `import efficientnetv2 as env2`.\n")
    for name in sorted(efficientnetv2.__all__, key=str.lower):
        item = getattr(efficientnetv2, name)
        parts.append(f"### {name}\n")
        if not (inspect.isclass(item) and issubclass(item, Exception)):
            parts.append(f"```python\n{_signature(name, item)}\n```\n")
        parts.append(_markdown(inspect.getdoc(item) or ""))
        if inspect.isclass(item):
            parts += _members(item)
    return "\n".join(parts)


def _members(item: type) -> Iterator[str]:
    """Yields the documented attributes and methods of a class."""
    # The default of a field has a docstring, too: that of its type.
    fields = (
        {field.name for field in dataclasses.fields(item)}
        if dataclasses.is_dataclass(item)
        else set()
    )
    for name, member in vars(item).items():
        text = inspect.getdoc(member)
        if name.startswith("_") or name in fields or text is None:
            continue
        title = f"{name}()" if inspect.isfunction(member) else name
        yield f"**`{title}`**: {_markdown(text)}"


def _signature(name: str, item: Any) -> str:
    """Returns how it is called, over several lines where one is too long."""
    signature = inspect.signature(item)
    parameters = [
        re.sub(r": '(.*?)'( =|$)", r": \1\2", str(one)) for one in signature.parameters.values()
    ]
    kinds = [one.kind for one in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        parameters.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    is_function = not inspect.isclass(item) and signature.return_annotation is not signature.empty
    result = f" -> {signature.return_annotation}" if is_function else ""
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= _WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in parameters), f"){result}"])


def _markdown(text: str) -> str:
    """Returns a docstring in Google's style as Markdown."""
    return "\n".join(_block(block) for block in re.split(r"\n\n+(?=\S)", text))


def _block(block: str) -> str:
    if block.startswith(">>>"):
        return f"```python\n{block}\n```\n"
    block = block.replace("``", "`")
    match = _SECTION.fullmatch(block)
    if match is None:
        return f"{' '.join(block.split())}\n"
    title, body = match.groups()
    body = textwrap.dedent(body.strip("\n")).strip()
    if title in ("Returns", "Yields"):
        return f"{title}: {' '.join(body.split())}\n"
    rows = re.split(r"\n(?=\S)", body)
    items = [re.sub(r"^([\w*, ]+):", r"`\1`:", " ".join(row.split())) for row in rows]
    return f"{title}:\n\n" + "".join(f"- {item}\n" for item in items)


def main() -> None:
    """Replaces the section in docs/python.md."""
    guide = _PAGE.read_text(encoding="utf-8").split(_HEAD)[0]
    replace_text(_PAGE, guide + reference())


if __name__ == "__main__":
    main()
