"""Every command of README and docs/recipes.md is one that the program takes."""

import importlib.util
import pathlib
import re
import shlex

import pytest

from efficientnetv2.asked import dataset_name, overrides
from efficientnetv2.commands import COMMANDS, _models
from efficientnetv2.flags import MODES, define_flags, parse
from hparams.resolve import require_trainable, resolve

ROOT = pathlib.Path(__file__).parents[1]
FILES = ("README.md", "docs/recipes.md")
# Not to be resolved: what a shell or an earlier command would put there.
_VARIABLE = re.compile(r"\$\w+")


def _lines():
    """Shell lines of the files' code blocks; a line that ends with a backslash goes on."""
    for name in FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
            yield from block.replace("\\\n", " ").splitlines()


LINES = list(_lines())
PROGRAMS = [
    command
    for line in LINES
    for command in re.findall(r"\bmain(?:_tf2)?\.py [^&|#\n]*(?:\"[^\"]*\"[^&|#\n]*)*", line)
]
MODULES = sorted({name for line in LINES for name in re.findall(r"python -m ([\w.]+)", line)})


def test_they_are_found():
    assert len(PROGRAMS) > 25
    assert "hparams.scaling" in MODULES
    for mode in ("train", "traineval", "eval", "infer", "export", "preview", "benchmark"):
        assert any(f"--mode={mode}" in command for command in PROGRAMS), mode
    assert set(COMMANDS) == set(MODES)


@pytest.mark.parametrize("command", dict.fromkeys(PROGRAMS))
def test_a_command_resolves(command, monkeypatch):
    weights = ROOT / "tests" / "golden" / "forward_b0.npz"  # any file
    argv = shlex.split(_VARIABLE.sub(str(weights), command))
    values = parse(define_flags({}), argv)
    if values.hparam_str.endswith(".yaml"):
        values.hparam_str = ""
    names = _models(values) if values.mode == "benchmark" else [values.model_name]
    for name in names:
        values.model_name = name
        config = resolve(name, dataset_name(values), *overrides(values))
        if values.mode in ("train", "traineval"):
            require_trainable(config)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_there(module):
    if module not in ("venv", "pip", "pytest"):
        assert importlib.util.find_spec(module), module
