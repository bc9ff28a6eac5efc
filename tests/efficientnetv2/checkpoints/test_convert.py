"""Tests that weights survive conversion from format to format, and that errors are one line."""

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.checkpoints.__main__ import main

OVERRIDES = "blocks_args=[{}],feature_size=32"


@pytest.fixture
def arguments(tiny_golden):
    blocks = ",".join(tiny_golden[0]["blocks_args"])
    overrides = f"--overrides={OVERRIDES.format(blocks)}"
    return ["--model_name=efficientnetv2-b0", "--num_classes=10", overrides]


def test_from_format_to_format(golden, tiny_golden, build_tiny, arguments, tmp_path, capsys):
    source = golden / "tiny" / "tf1_namebased"
    for name in ("a.safetensors", "b.weights.h5", "model.index", "c.keras", "d.safetensors"):
        assert main(["convert", str(source), str(tmp_path / name), *arguments]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("94 weights from '")
        assert f"; missing: none\nwritten to {tmp_path / name}" in printed
        source = tmp_path / name
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "d.safetensors").read_bytes()
    _, arrays = tiny_golden
    logits = build_tiny(weights=source)(arrays["x"])
    np.testing.assert_allclose(logits, arrays["logits_ema"], atol=1e-4, rtol=0)


def test_official_names_are_those_of_the_released_files(golden, arguments, tmp_path):
    source = golden / "tiny" / "tf1_namebased" / "model"
    assert main(["convert", str(source), str(tmp_path / "model.index"), *arguments]) == 0
    released = set(tf.train.load_checkpoint(str(source)).get_variable_to_shape_map())
    ours = set(tf.train.load_checkpoint(str(tmp_path / "model")).get_variable_to_shape_map())
    assert ours == released - {"global_step"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["convert", "in", "out.h5"], "'out.h5' must end in .weights.h5, .keras, .safetensors"),
        (["convert", "nowhere", "out.keras"], "there are no weights 'nowhere'"),
        (["convert", "in"], "the following arguments are required: OUT"),
        (["transform", "in", "out"], "invalid choice: 'transform'"),
        (["convert", "in", "out", "--model_name=b9"], "unknown model 'b9'"),
        (["convert", "in", "out", "--num_classes=0"], "--num_classes must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_one_line(command, message, capsys):
    has_model_name = any(text.startswith("--model_name") for text in command)
    try:
        code = main([*command, *([] if has_model_name else ["--model_name=efficientnetv2-b0"])])
    except SystemExit as error:
        code = error.code
    assert code == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert message in printed
