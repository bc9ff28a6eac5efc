"""Tests what a finished training answers to more epochs, and that ``--extend`` adds them."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.commands.extension import _with_epochs
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import parse
from efficientnetv2.runtime.run_directory import RunDirectory
from hparams.overrides import checked, read_overrides

TINY = (
    "model.blocks_args=[r1_k3_s1_e1_i8_o8_c1],model.feature_size=16,train.batch_size=256,"
    "train.isize=16,data.ibase=16,eval.isize=16,train.lr_warmup_epoch=0,train.optimizer=adam,"
    "runtime.save_checkpoint_epochs=1"
)


@pytest.fixture
def train(main_tf2, data_dir, tmp_path):
    """Trains the tiny network in the test's folder; returns exit code, stdout and stderr."""

    def run(*flags, settings="train.stages=1,train.lr_sched=constant"):
        return main_tf2(
            "--mode=train",
            "--dataset_cfg=digits",
            f"--data_dir={data_dir}",
            f"--hparam_str={TINY},{settings}",
            *flags,
            cwd=tmp_path,
        )

    return run


def checkpoint(folder):
    """Reads every tensor of the newest checkpoint: weights, moving average, optimizer, step."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints"))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def records(folder):
    clock = ("seconds", "images_per_second")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in lines]


def command_in(message):
    return shlex.split(re.search(r"in a new directory: (.*)$", message.strip())[1])


@pytest.mark.slow
def test_an_extended_training_has_the_bits_of_a_longer_one(train, killer, tmp_path):
    assert train("--epochs=4", "--model_dir=whole").returncode == 0
    assert train("--epochs=2", "--model_dir=run").returncode == 0
    longer = ("--epochs=4", "--model_dir=run", "--extend")
    for where, touch in (("config.yaml", 2), ("checkpoints/ckpt-12.tmp", 0)):
        assert not killer.survives(lambda: train(*longer), where=where, touch=touch)
        assert RunDirectory(tmp_path / "run").config().train.epochs in (2, 4)
    result = train(*longer)
    assert result.returncode == 0, result.stderr
    assert checkpoint(tmp_path / "run") == checkpoint(tmp_path / "whole")
    assert records(tmp_path / "run") == records(tmp_path / "whole")
    results = [json.loads((tmp_path / n / "eval.json").read_text()) for n in ("run", "whole")]
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_run_in_stages_is_answered_with_a_command_that_runs(train, main_tf2, tmp_path):
    settings = "train.stages=2,train.lr_sched=cosine,data.ibase=8,train.isize=16,train.patience=0"
    settings = settings.replace("data.ibase=8,train.isize=16,", "")
    assert train("--epochs=2", "--model_dir=run", settings=settings).returncode == 0
    for flags in ([], ["--extend"]):
        result = train("--epochs=5", "--model_dir=run", *flags, settings=settings)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    command = command_in(result.stderr)
    assert {"--weights=run", "--model_dir=run-5", "--epochs=3"} <= set(command)
    prefix = [command[0], "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(prefix, capture_output=True, text=True).stdout == f"{sys.prefix}\n"
    assert command[1] == "main_tf2.py"
    again = main_tf2(*command[2:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "starting from" in again.stdout
    assert [line["epoch"] for line in records(tmp_path / "run-5")] == [1, 2, 3]


@pytest.fixture
def finished(train, tmp_path):
    """A run of 2 epochs with a cosine schedule and one stage."""
    assert train("--epochs=2", "--model_dir=run", settings=COSINE).returncode == 0
    return tmp_path / "run"


COSINE = "train.stages=1,train.lr_sched=cosine"


@pytest.mark.slow
def test_a_cosine_is_extended_as_a_warm_start(train, finished):
    result = train("--epochs=4", "--model_dir=run", settings=COSINE)
    assert result.returncode == 2
    assert "2 epochs, not 4; to train on in place, as a warm start" in result.stderr
    command = shlex.split(re.search(r"give --extend: (.*) ; to go on", result.stderr)[1])
    assert command[2] == "--mode=train" and "--extend" in command
    result = train(*command[2:], settings=COSINE)
    assert result.returncode == 0, result.stderr
    assert "from 2 to 4 epochs as a warm start: the learning rate goes from" in result.stdout
    rates = [line["learning_rate"] for line in records(finished)]
    assert len(rates) == 4 and rates[1] < rates[2] > rates[3]
    again = train("--epochs=4", "--model_dir=run", "--extend", settings=COSINE)
    assert again.returncode == 0 and "epoch" not in again.stdout.split("writing to")[1]
    result = train("--epochs=3", "--model_dir=run", "--extend", settings=COSINE)
    assert result.returncode == 2
    assert "a training of 4 epochs, which cannot become 3" in result.stderr


def test_there_must_be_something_to_extend(train, tmp_path):
    result = train("--epochs=4", "--model_dir=run", "--extend")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "'run' holds no training to extend; leave --extend out" in result.stderr
    assert not (tmp_path / "run").exists()


def test_settings_of_a_yaml_file_are_written_out_for_more_epochs(tmp_path):
    """Its own epochs and weights would contradict those of the command."""
    path = tmp_path / "my.yaml"
    path.write_text(
        "train: {epochs: 20, ft_init_ckpt: imagenet, lr_scales: [stem:0.1, 'block[12]:0.3']}\n"
        "data: {flip: false}\n"
    )
    arguments = ["main_tf2.py", "train", f"--hparam_str={path}"]
    changes = _with_epochs(parse(define_flags({}), arguments), 10)
    text = changes["hparam_str"]
    assert changes.get("epochs") is None and "ft_init_ckpt" not in text
    values, problems = read_overrides(text)
    assert not problems
    assert values["train.epochs"] == "10" and values["data.flip"] == "false"
    assert checked("train.lr_scales", values["train.lr_scales"]) == ["stem:0.1", "block[12]:0.3"]


def test_several_machines_do_not_extend(train, tmp_path, monkeypatch):
    cluster = {"worker": ["127.0.0.1:12345", "127.0.0.1:12346"]}
    task = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    result = train("--epochs=4", "--model_dir=run", "--extend")
    assert result.returncode == 2 and "--extend is for one machine" in result.stderr
    assert not (tmp_path / "run").exists()
