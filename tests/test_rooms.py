"""Tests the structure of the code: import order of the packages, names, docstrings and sizes."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# In import order. docs/developing.md says what is in each.
ROOMS = (
    "hparams",
    "efficientnetv2.runtime",
    "efficientnetv2.data",
    "efficientnetv2.model",
    "efficientnetv2.int8",
    "efficientnetv2.checkpoints",
    "efficientnetv2.applications",
    "efficientnetv2.train",
    "efficientnetv2.evaluation",
    "efficientnetv2.export",
    "efficientnetv2.reporting",
    "efficientnetv2.search",
    "efficientnetv2.commands",
    "efficientnetv2.flags",
    "efficientnetv2.cli",
    "main_tf2",
    "main",
)
STRANGERS = {("efficientnetv2.model", "efficientnetv2.data")}  # (a room, one it must not know)
LARGEST_FILE, LARGEST_FUNCTION = 500, 45  # lines


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATTERNS = ("hparams/**/*.py", "efficientnetv2/**/*.py", "main*.py")
FILES = {module_name(path): path for pattern in PATTERNS for path in ROOT.glob(pattern)}


def room_of(module):
    rooms = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return rooms[0] if rooms else None


def imported(path):
    """Returns the modules of this repository that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            children = {f"{node.module}.{alias.name}" for alias in node.names}
            names.update(children & set(FILES) or {node.module})
    return {name for name in names if name in FILES}


def test_nothing_lies_outside_of_the_rooms():
    assert [name for name in FILES if room_of(name) is None] == ["efficientnetv2"]
    folder = ROOT / "efficientnetv2"
    names = {path.name for path in folder.glob("*.py")}
    assert names == {"__init__.py", "applications.py", "cli.py", "flags.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room):
    known = ROOMS[: ROOMS.index(room) + 1]
    for module, path in FILES.items():
        if room_of(module) == room:
            others = {room_of(name) for name in imported(path)} - {None}
            assert others <= set(known), f"{module} imports from {others - set(known)}"
            assert not {(room, other) for other in others} & STRANGERS, module


def test_names_are_nouns_and_no_two_are_the_same():
    names = [path.stem for path in FILES.values() if not path.stem.startswith("_")]
    assert [name for name in names if re.search(r"(ing|ed)$", name)] == []
    assert sorted(names) == sorted(set(names))


def test_no_two_public_classes_share_a_name():
    classes = {}
    for module, path in FILES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(module)
    assert {name: where for name, where in classes.items() if len(where) > 1} == {}


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield text.splitlines()[0]


def test_docstrings_say_what_a_thing_is_for():
    for path in [*FILES.values(), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        riddles = [line for line in docstrings(path) if re.search(r"\bin; .*\bout\b", line)]
        assert riddles == [], path


@pytest.mark.parametrize(
    "statement",
    [
        "import hparams",
        "from efficientnetv2 import list_models",
        "import efficientnetv2.cli",
        "from efficientnetv2.applications import EfficientNetV2S, decode_predictions",
        "import pkgutil, efficientnetv2.commands as c; "
        "[__import__(f'{c.__name__}.{m.name}') for m in pkgutil.iter_modules(c.__path__)]",
    ],
)
def test_tensorflow_stays_away(statement):
    code = f"{statement}; import sys; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_files_and_functions_stay_small():
    for path in [*FILES.values(), *ROOT.glob("tests/**/*.py")]:
        text = path.read_text()
        assert len(text.splitlines()) < LARGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= LARGEST_FUNCTION, f"{path}: {node.name} has {lines} lines"
