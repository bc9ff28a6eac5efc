"""Tests that weights survive conversion from format to format, and that errors are one line."""

import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.checkpoints import reader, writer
from efficientnetv2.cli import main as run_command
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams import resolve

SETTINGS = "model.blocks_args=[{}],model.feature_size=32,model.num_classes=10"


def main(arguments):
    """Runs ``efficientnetv2`` with arguments in this process."""
    return run_command(["efficientnetv2", *arguments])


@pytest.fixture
def arguments(tiny_golden):
    blocks = ",".join(tiny_golden[0]["blocks_args"])
    return ["--model_name=efficientnetv2-b0", f"--hparam_str={SETTINGS.format(blocks)}"]


@pytest.mark.slow
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
        (["convert", ".", "out.h5"], "'out.h5' must end in .weights.h5, .keras, .safetensors"),
        (["convert", ".", "nowhere/a.keras"], "cannot write 'nowhere/a.keras': No such file"),
        (["convert", ".", "/proc/a.keras"], "cannot write '/proc/a.keras': No such file"),
        (["convert", ".", f"{'a' * 300}.keras"], "a.keras': File name too long"),
        (["convert", "nowhere", "out.keras"], "there are no weights 'nowhere'"),
        (["convert", "in"], "--output is missing; give --mode=convert --weights=IN --output=OUT"),
        (["convert", "--output=a.keras"], "--weights is missing; give --mode=convert --weights=IN"),
        (["convert", "in", "out", "more"], "unexpected argument 'more'"),
        (["convert", "random", "a.keras"], "--weights=random has no weights to convert"),
        (["convert", ".", "a.keras", "--epochs=3"], "--epochs belongs to --mode=train, traineval"),
        (["convert", ".", "a.keras", "--num-classes=3"], '--hparam_str="model.num_classes=N"'),
        (["convert", "in", "out", "--model_name=b9"], "unknown model 'b9'"),
        (
            ["convert", "in", "out", "--hparam_str=model.num_classes=0"],
            "model.num_classes must be at least 1, got 0",
        ),
        (["convert", "in", "out", "--hparam_str=train.epochs=3"], "'train.epochs' is not a model"),
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


def test_a_file_is_not_converted_to_itself(tmp_path, capsys):
    file = tmp_path / "a.keras"
    file.write_text("mine")
    (tmp_path / "b.keras").symlink_to(file)
    for target in (file, tmp_path / "b.keras"):
        assert main(["convert", str(file), str(target), "--model_name=efficientnetv2-b0"]) == 2
        assert "--weights and --output are the same file" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_run_says_which_network_it_is(golden, tiny_golden, arguments, tmp_path, capsys):
    blocks = ",".join(tiny_golden[0]["blocks_args"])
    config = resolve("efficientnetv2-b0", "digits", SETTINGS.format(blocks))
    run = RunDirectory(tmp_path / "run")
    run.start(config, [str(digit) for digit in range(10)])
    shutil.copytree(golden / "tiny" / "tf1_namebased", run.best)
    target = tmp_path / "a.safetensors"
    assert main(["convert", str(run.best), str(target)]) == 0
    assert main(["convert", str(run.best), str(tmp_path / "b.safetensors"), *arguments]) == 0
    assert target.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


FORMATS = ("a.safetensors", "a.weights.h5", "a.index", "a.keras")


@pytest.mark.parametrize("name", FORMATS)
def test_on_a_full_disk_the_old_file_stays(
    name, golden, arguments, tmp_path, capsys, files_no_larger_than
):
    source = str(golden / "tiny" / "tf1_namebased")
    (tmp_path / name).write_text("old")
    with files_no_larger_than(20_000):
        assert main(["convert", source, str(tmp_path / name), *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "cannot write '" in printed
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "old")]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_writes_leaves_the_old_file(
    number, name, golden, arguments, tmp_path, capsys, monkeypatch
):
    read = reader.read_weights

    def interrupted(path, *others, **options):
        if path.parent != tmp_path and path.name == name:  # what was written is being read again
            os.kill(os.getpid(), number)
        return read(path, *others, **options)

    monkeypatch.setattr(reader, "read_weights", interrupted)
    source = str(golden / "tiny" / "tf1_namebased")
    (tmp_path / name).write_text("old")
    assert main(["convert", source, str(tmp_path / name), *arguments]) == 128 + number
    assert capsys.readouterr().err.endswith(f": stopped by {number.name}\n")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "old")]


def test_what_cannot_be_read_again_is_not_kept(golden, arguments, tmp_path, capsys, monkeypatch):
    write = writer.WRITERS[".safetensors"]

    def damaged(model, path, *arguments):
        write(model, path, *arguments)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setitem(writer.WRITERS, ".safetensors", damaged)
    source = str(golden / "tiny" / "tf1_namebased")
    assert main(["convert", source, str(tmp_path / "a.safetensors"), *arguments]) == 2
    assert "is not what was written; check the disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
