"""Tests the wheel: what it installs, what works with that alone, and who must install more."""

import importlib.metadata
import pathlib
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from efficientnetv2.commands import EXTRAS, MODES, PACKAGE, require_extra
from hparams.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
PREDICT = """
import numpy as np
from efficientnetv2 import get_model
model = get_model(
    "EfficientNetV2B0",
    num_classes=7,
    include_preprocessing=True,
    overrides={"blocks_args": ["r1_k3_s1_e1_i8_o8_c1"], "feature_size": 8},
)
model.save_weights("tiny.weights.h5")
print(model.predict(np.zeros([1, 32, 32, 3]), verbose=0).shape)
import efficientnetv2 as env2
try:
    env2.training_data("digits", "efficientnetv2-b0")
except env2.UserError as error:
    print(error)
"""


def requirements(lines):
    """Returns requirements in one spelling, without comments and references to own extras."""
    found = (re.sub(r"[\s'\"]", "", line.partition("#")[0]).rstrip(",") for line in lines)
    return {line for line in found if line and not line.startswith((PACKAGE, "-r"))}


def test_requirements_are_the_package_and_all_its_extras():
    text = (ROOT / "pyproject.toml").read_text()
    lists = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    quoted = re.findall(r'"([^"]+)"', lists)
    # The extra openvino is for two export formats; tests have it, requirements.txt does not.
    all_of, dev = (
        requirements((ROOT / name).read_text().splitlines())
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert requirements(quoted) == all_of | {line for line in dev if line.startswith("openvino")}
    assert len(requirements(quoted) - all_of) == 1
    assert {extra for row in MODES.values() for extra in row.extras} == {*EXTRAS}


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(EXTRAS, "search", ("no_such_module",))
    with pytest.raises(UserError) as error:
        require_extra("search", "--mode=search")
    assert str(error.value) == (
        "--mode=search needs the package no_such_module, which is not installed: "
        f"pip install '{PACKAGE}[search]'"
    )


def link_requirements(wheel, site):
    """Links into a folder what a wheel requires without extras, and what these require, and so on.

    They are the packages of this Python, whose versions must be among those required. So the folder
    is what pip would install, without fetching and unpacking gigabytes.
    """
    (metadata,) = importlib.metadata.distributions(name=PACKAGE, path=[str(wheel)])
    pending, seen = [(metadata, "")], set()
    while pending:
        parent, extra = pending.pop()
        for needed in map(Requirement, parent.requires or ()):
            if needed.marker and not needed.marker.evaluate({"extra": extra}):
                continue
            package = importlib.metadata.distribution(needed.name)
            assert needed.specifier.contains(package.version, prereleases=True), str(needed)
            new = {(package.name, name) for name in ("", *needed.extras)} - seen
            seen |= new
            pending += [(package, name) for _, name in new]
            for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
                if not (site / top).exists():
                    (site / top).symlink_to(package.locate_file(top))


@pytest.mark.slow
def test_the_wheel_with_its_own_requirements_builds_and_predicts(golden, tmp_path):
    def run(*command, code=0):
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=900
        )
        assert result.returncode == code, result.stderr
        return result

    python = tmp_path / "venv" / "bin" / "python"
    command = tmp_path / "venv" / "bin" / "efficientnetv2"
    pip = [sys.executable, "-m", "pip"]
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    run(*pip, "wheel", "--no-deps", "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-compile", wheel)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    link_requirements(wheel, site)
    shape, answer = run(python, "-c", PREDICT).stdout.splitlines()
    assert shape == "(1, 7)"
    assert answer.startswith("efficientnetv2.training_data needs the package ")
    assert answer.endswith("[train]'")
    settings = "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=8,eval.isize=32"
    infer = [command, "infer", ROOT / "docs" / "images" / "digits", "--model=efficientnetv2-b0"]
    infer += ["--weights=tiny.weights.h5", f"--hparam_str={settings}", "--output=all.csv"]
    assert "class" in run(*infer).stdout
    assert (tmp_path / "all.csv").read_text().count("\n") > 2
    for mode in ("train", "search", "export", "eval"):
        error = run(command, mode, code=2).stderr
        assert error.startswith(f"efficientnetv2: --mode={mode} needs the package "), error
        assert error.endswith("[train]'\n") and error.count("\n") == 1
    assert "[train]" in run(*infer, "--explain", "--output_dir=out", code=2).stderr
    assert "efficientnetv2-s" in run(command, "models").stdout
