"""Reads the YAML file of a config: plain values, no key twice, and of a size that is a config's.

Numbers are those of ``hparams.scalars``: ``1_000``, ``0x10``, ``1:30`` and ``yes``, which YAML 1.1
reads as numbers and as true, stay the text that they are.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

import yaml

from hparams.errors import shortened, shown

_LARGEST_FILE = 65_536  # bytes; a config with every key has about 4,000
_LARGEST_TREE = 2_000  # values, after each alias (*name) is replaced by what it stands for
_TOO_MANY = f"stands for more than {_LARGEST_TREE} values, which no config does"
_DEEPEST = 8  # levels; a config has two, and a list in each

_TOO_DEEP = f"is nested more than {_DEEPEST} levels deep"


class YamlError(ValueError):
    """A YAML file that is no config; the message says why."""


class _Loader(yaml.SafeLoader):
    """Gives up at the first value too many: PyYAML takes seconds to read a long file to its end."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._count = 0

    def fetch_flow_collection_start(self, token_class: Any) -> None:
        """Reads a [ or {; PyYAML reads a thousand of them ahead of ``compose_node``."""
        if self.flow_level >= _DEEPEST:
            raise YamlError(_TOO_DEEP)
        super().fetch_flow_collection_start(token_class)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Reads one value and all inside it; PyYAML's own method, with limits."""
        self._level += 1
        self._count += 1
        if self._level > _DEEPEST:
            raise YamlError(_TOO_DEEP)
        if self._count > _LARGEST_TREE:
            raise YamlError(_TOO_MANY)
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:str":
            implicit = self.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]
            if node.tag != implicit:  # as !!int '1_000'
                tag = node.tag.replace("tag:yaml.org,2002:", "!!")
                raise YamlError(f"gives {shown(node.value)} the tag {shortened(tag)}; leave it out")
        return node


_Loader.yaml_implicit_resolvers = {}  # none of PyYAML's own
# Each is a part of what PyYAML's own pattern accepts, so that a text that looks like a value is
# quoted when it is saved.
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,99})", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]*([eE][-+][0-9]+)?", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"({_pattern})\\Z"), list(_first)
    )


def read_yaml(path: pathlib.Path) -> Any:
    """Returns what a YAML file holds: nested mappings and lists of plain values; None if empty.

    Raises:
      OSError: if the file cannot be read.
      YamlError: if it is not YAML, is too large for a config, gives a key twice, or refers to
        itself.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise YamlError(f"holds more than {_LARGEST_FILE} bytes, which no config does")
    loader = None
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        root = loader.get_single_node()
        if root is None:
            return None
        _require_small(root)
        return loader.construct_document(root)
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"is not YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _require_small(root: yaml.Node) -> None:
    """Checks a document before aliases are followed: few lines may stand for billions of values."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size_of(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise YamlError(f"refers to itself in line {node.start_mark.line + 1}")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            sizes[id(node)] = 1 + sum(size_of(child) for child in _children(node))
            open_nodes.remove(id(node))
        if sizes[id(node)] > _LARGEST_TREE:
            raise YamlError(_TOO_MANY)
        return sizes[id(node)]

    size_of(root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    """Returns the nodes inside a node.

    Raises:
      YamlError: if a mapping gives a key twice; PyYAML would silently take the last one.
    """
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    if not isinstance(node, yaml.MappingNode):
        return []
    names: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in names:
                raise YamlError(f"gives the key {shown(key.value)} twice")
            names.add(key.value)
    return [child for pair in node.value for child in pair]
