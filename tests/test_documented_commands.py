"""Tests that the program accepts every command in README and docs/."""

import importlib.util
import pathlib
import re
import shlex

import pytest

from efficientnetv2.checkpoints.weight_files import FILES as FILES_OF_HUB
from efficientnetv2.commands import MODES
from efficientnetv2.commands.benchmark import models_from_flags
from efficientnetv2.commands.config_from_flags import dataset_from_flags, overrides_from_flags
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import parse
from hparams.remote_weights import find_remote, is_remote
from hparams.resolve import require_trainable, resolve

ROOT = pathlib.Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A shell variable: its value comes from the shell or an earlier command.
# A variable, or the run that another command makes.
_WEIGHTS = re.compile(r"\$\w+|(?<=--weights=)runs/\S+")


def _lines():
    """Yields the shell lines of all code blocks, with continued lines joined."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
            yield from block.replace("\\\n", " ").splitlines()


LINES = list(_lines())
PROGRAMS = [
    command
    for line in LINES
    for command in re.findall(r"\bmain(?:_tf2)?\.py [^&|#\n\"]*(?:\"[^\"]*\"[^&|#\n\"]*)*", line)
]
MODULES = sorted({name for line in LINES for name in re.findall(r"python -m ([\w.]+)", line)})


def test_they_are_found():
    assert len(PROGRAMS) > 25
    assert "hparams.scale" in MODULES
    for mode in MODES:
        assert any(f"--mode={mode}" in command for command in PROGRAMS), mode


@pytest.mark.parametrize("command", dict.fromkeys(PROGRAMS))
def test_a_command_resolves(command, monkeypatch, tmp_path):
    weights = ROOT / "tests" / "golden" / "forward_b0.npz"  # any file
    argv = shlex.split(_WEIGHTS.sub(str(weights), command))
    values = parse(define_flags({}), argv)
    if values.hparam_str.endswith(".yaml"):
        values.hparam_str = ""
    if is_remote(values.weights):  # as if they had been downloaded
        monkeypatch.setenv("EFFICIENTNETV2_CACHE", str(tmp_path))
        remote = find_remote(values.weights)
        file = tmp_path.joinpath(*remote.place, *(FILES_OF_HUB[:1] if remote.is_folder else ()))
        file.parent.mkdir(parents=True)
        file.touch()
    names = models_from_flags(values) if values.mode == "benchmark" else [values.model_name]
    for name in names:
        values.model_name = name
        # An 8-bit training takes its image size from its run.
        of_run = {"train.isize": 64, "eval.isize": 64} if values.quantise else None
        config = resolve(name, dataset_from_flags(values), of_run, *overrides_from_flags(values))
        if values.mode in ("train", "traineval"):
            require_trainable(config)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_there(module):
    if module not in ("venv", "pip", "pytest"):
        assert importlib.util.find_spec(module), module


def test_the_readme_stays_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 120
