"""Runs the code of docs/python.md and of the docstrings behind its reference."""

import doctest
import pathlib
import re

import pytest

import efficientnetv2 as env2
from benchmarks.photos import make_photos
from efficientnetv2.commands.api_document import reference

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "python.md"
GUIDE = PAGE.read_text(encoding="utf-8").partition("## Reference\n")[0]
README = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
# A tiny network, and few steps, for the sake of time.
NETWORK = {"model.blocks_args": ["r1_k3_s2_e1_i32_o8_c1"], "model.feature_size": 16}
SETTINGS = {**NETWORK, "train.isize": 32, "data.ibase": 16, "eval.isize": 32, "train.stages": 2}
SETTINGS.update({"train.min_steps": 0, "train.batch_size": 8})


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with ``photos`` of two classes, and ``settings.yaml``."""
    folder = tmp_path_factory.mktemp("workshop")
    make_photos(folder / "photos", crops=20)
    lines = [f"{key}: {value}\n" for key, value in SETTINGS.items()]
    (folder / "settings.yaml").write_text("".join(lines))
    return folder


def test_the_reference_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == GUIDE + reference()
    assert str.__doc__.split("\n")[0] not in reference()  # of the default of a field


@pytest.mark.slow
def test_the_examples_of_the_docstrings(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    # The training first: the others use its run.
    names = sorted(env2.__all__, key=lambda name: (name != "train", name))
    examples = 0
    for name in names:
        item = getattr(env2, name)
        for test in finder.find(item, name, extraglobs={"env2": env2}):
            examples += len(test.examples)
            runner.run(test)
    assert runner.failures == 0 and examples > 10


def block_of(text, call):
    (code,) = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if call in b]
    return code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        (
            README,
            {'preset="fast"': f'preset="fast", epochs=1, image_size=32, overrides={NETWORK}'},
        ),
        (
            GUIDE,
            {
                "epochs=20": "epochs=1",
                "image_size=96": "image_size=32",
                '"data.augname": "randaug"': f'"data.augname": "randaug", **{NETWORK}',
            },
        ),
    ],
)
def test_the_code_of_the_pages(text, shorter, workshop, monkeypatch, tmp_path_factory):
    code = block_of(text, "env2.train(")
    for long, short in shorter.items():
        assert long in code
        code = code.replace(long, short)
    folder = tmp_path_factory.mktemp("pages")
    (folder / "photos").symlink_to(workshop / "photos")
    monkeypatch.chdir(folder)
    variables = {}
    exec(code, variables)
    run = variables["run"]
    assert (run.path / "export" / "efficientnetv2-b0_int8.tflite").exists()
    assert run.class_names == ["china", "flower"]
