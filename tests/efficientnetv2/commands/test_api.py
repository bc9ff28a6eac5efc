"""Tests that the verbs in Python do what the command line does, and fit into a Python program."""

import gc
import json
import os
import random
import shlex
import signal
import threading

import numpy as np
import pytest
import tensorflow as tf

import efficientnetv2 as env2
from efficientnetv2.commands.flag_values import define_flags
from efficientnetv2.flags import parse
from hparams.overrides import read_overrides
from hparams.resolve import resolve

NETWORK = "model.blocks_args=[r1_k3_s2_e1_i32_o8_c1],model.feature_size=16"
SETTINGS = f"{NETWORK},train.stages=2,train.min_steps=0,train.ema_decay=0.9"
ARGUMENTS = {
    "model": "efficientnetv2-b0",
    "data": "digits",
    "epochs": 2,
    "image_size": 16,
    "batch_size": 128,
    "seed": 3,
    "overrides": SETTINGS,
}
TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_dir):
    """A working folder, with the settings of a tiny training on digits that are prepared."""
    ARGUMENTS["overrides"] = f"{SETTINGS},data.data_dir={data_dir}"
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def run(folder):
    return env2.train(**ARGUMENTS, validate=True, model_dir=folder / "run")


def untimed(records):
    return [{key: record[key] for key in record if key not in TIMES} for record in records]


@pytest.mark.slow
def test_both_languages_give_the_same_files_and_numbers(folder, run, main_tf2):
    flags = [f"--{name}={value}" for name, value in ARGUMENTS.items() if name != "overrides"]
    settings = f"--hparam_str={ARGUMENTS['overrides']}"
    command = ["train", *flags, settings, "--validate", "--model_dir=command"]
    result = main_tf2(*command, cwd=folder)
    assert result.returncode == 0, result.stderr
    other = env2.load_run(folder / "command")
    names = [sorted(p.name for p in r.path.iterdir()) for r in (run, other)]
    assert names[0] == names[1]
    assert untimed(run.history) == untimed(other.history)
    assert run.metrics == other.metrics
    assert run.config == other.config
    weights = zip(run.model.get_weights(), other.model.get_weights())
    assert all(np.array_equal(one, two) for one, two in weights)


@pytest.mark.slow
def test_a_training_leaves_no_graph_in_memory(folder, run):
    from tensorflow.python.framework.func_graph import FuncGraph

    def names_of_graphs():
        gc.collect()
        return sorted(o.name for o in gc.get_objects() if isinstance(o, FuncGraph))

    arguments = {**ARGUMENTS, "epochs": 1}
    env2.train(**arguments, model_dir=folder / "first")  # it may fill caches
    before = names_of_graphs()
    env2.train(**arguments, model_dir=folder / "second")
    assert names_of_graphs() == before


@pytest.mark.slow
def test_a_run_shows_what_it_recorded(run):
    assert [line["epoch"] for line in run.history] == [1, 2]
    assert [line["image_size"] for line in run.history] == [8, 16]
    assert set(run.metrics) == {"raw", "ema", "best"}
    assert 0 <= run.metrics["ema"]["top1"] <= 1 and run.metrics["raw"]["images"] == 360
    assert run.class_names == [str(digit) for digit in range(10)]
    assert run.config.train.epochs == 2
    assert run.model(tf.zeros([1, 16, 16, 3])).shape == (1, 10)
    assert str(run.path) in repr(run)
    assert "| ema |" in run._repr_markdown_()


@pytest.mark.slow
def test_a_run_is_evaluated_and_exported(folder, run, main_tf2, capfd):
    trained = run.metrics["ema"]["loss"]
    metrics = run.evaluate()
    assert metrics == run.metrics and metrics["ema"]["loss"] == trained
    main_tf2("eval", f"--model_dir={run.path}", "--eval_name=again", cwd=folder)
    again = json.loads((run.path / "eval_again.json").read_text())
    assert {name: again[name] for name in metrics} == metrics
    options = {"preprocessing": False, "logits": True, "calibrated": False}  # as run.model
    capfd.readouterr()
    path = run.export("keras", output_dir=folder / "files", **options)
    assert capfd.readouterr().out == ""
    assert path == folder / "files" / "efficientnetv2-b0.keras" and path.exists()
    exported = tf.keras.models.load_model(path)
    images = np.random.default_rng(1).normal(size=[2, 16, 16, 3]).astype(np.float32)
    np.testing.assert_allclose(exported(images), run.model(images), atol=1e-6)
    several = env2.export(["keras"], model_dir=run.path, output_dir=folder / "files", verbose=True)
    assert several == {"keras": path}
    assert f"written to {folder / 'files'}" in capfd.readouterr().out


@pytest.mark.slow
def test_more_epochs_are_answered_with_a_command_whatever_holds_the_settings(run):
    settings = read_overrides(ARGUMENTS["overrides"])[0]
    settings["model.blocks_args"] = ["r1_k3_s2_e1_i32_o8_c1"]
    for overrides in (ARGUMENTS["overrides"], settings):
        arguments = {**ARGUMENTS, "epochs": 4, "overrides": overrides}
        with pytest.raises(env2.UserError, match="of 2 epochs, not 4") as error:
            env2.train(**arguments, validate=True, model_dir=run.path)
        command = shlex.split(str(error.value).partition("in a new directory: ")[2])
        values = parse(define_flags({}), command)
        assert command[0] == "efficientnetv2"
        written = resolve("efficientnetv2-b0", "digits", values.hparam_str)
        assert written == resolve("efficientnetv2-b0", "digits", overrides)
        assert (values.epochs, values.weights) == ("2", str(run.path))


@pytest.mark.slow
def test_two_trainings_in_one_process_are_the_same_and_leave_no_trace(folder, run):
    random.seed(5)
    np.random.seed(5)
    tf.random.set_seed(5)
    expected = random.Random(5).random(), np.random.RandomState(5).rand()
    policy = tf.keras.config.dtype_policy().name
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    again = env2.train(**ARGUMENTS, validate=True, model_dir=folder / "again")
    assert (random.random(), np.random.rand()) == expected
    drawn = tf.random.uniform([])
    tf.random.set_seed(5)
    assert drawn == tf.random.uniform([])
    assert policy == tf.keras.config.dtype_policy().name
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    weights = zip(run.model.get_weights(), again.model.get_weights())
    assert all(np.array_equal(one, two) for one, two in weights)
    assert untimed(run.history) == untimed(again.history)


@pytest.mark.slow
def test_an_interrupted_training_is_saved_and_goes_on_in_another_thread(folder, run, wait_until):
    records = folder / "interrupted" / "metrics.jsonl"

    def interrupt():
        wait_until(lambda: records.exists() and records.read_text().strip())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    arguments = {**ARGUMENTS, "validate": True, "model_dir": folder / "interrupted"}
    with pytest.raises(KeyboardInterrupt, match="saved"):
        env2.train(**arguments)
    thread.join()
    stopped = env2.load_run(folder / "interrupted")
    assert len(stopped.history) == 1 and stopped.metrics == {}
    assert stopped.model.count_params() > 0
    ended = []
    thread = threading.Thread(target=lambda: ended.append(env2.train(**arguments)))
    thread.start()
    thread.join()
    weights = zip(run.model.get_weights(), ended[0].model.get_weights())
    assert all(np.array_equal(one, two) for one, two in weights)
    assert ended[0].metrics["raw"]["loss"] == run.metrics["raw"]["loss"]


# Call -> the command that is refused in the same words.
MISTAKES = {
    "train('efficientnet-b9')": "train --model=efficientnet-b9",
    "train('efficientnetv2-b0', epochs=-1)": "train --model=efficientnetv2-b0 --epochs=-1",
    "train(epochs='many')": "train --epochs=many",
    "train(data='nowhere')": "train nowhere",
    "train(data='no/where')": "train no/where",
    "train(overrides={'train.epoch': 3})": "train --hparam_str=train.epoch=3",
    "train(epochs=2, overrides='train.epochs=3')": "train --epochs=2 --hparam_str=train.epochs=3",
    "train(model_dir='file')": "train --model_dir=file",
    "train(model_dir='')": "train --model_dir=",
    "train(weights='missing.h5')": "train --weights=missing.h5",
    "evaluate(model_dir='missing')": "eval --model_dir=missing",
    "export('tflight', model_dir='missing')": "export --format=tflight --model_dir=missing",
    "export('tflite', 'efficientnetv2-b0', weights='imagenet')": (
        "export --format=tflite --model=efficientnetv2-b0 --weights=imagenet"
    ),
    "benchmark([])": "benchmark --models=",
    "benchmark(steps=0)": "benchmark --steps=0",
    "benchmark(['efficientnetv2-b0', 'b0'])": "benchmark --models=efficientnetv2-b0,b0",
    "preview(image_size=0)": "preview --image_size=0",
    "find_lr(steps=20, epochs=0)": "find_lr --steps=20 --epochs=0",
    "find_lr(steps=3)": "find_lr --steps=3",
    "search(epochs=0)": "search --epochs=0",
    "load_run('missing')": "eval --model_dir=missing",
}


@pytest.mark.parametrize("call", MISTAKES)
def test_errors_are_those_of_the_command_line(call, tmp_path, monkeypatch, main_tf2):
    (tmp_path / "file").write_text("")
    result = main_tf2(*shlex.split(MISTAKES[call]), cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    monkeypatch.chdir(tmp_path)
    with pytest.raises(env2.UserError) as error:
        eval(f"env2.{call}")
    assert result.stderr == f"main_tf2.py: {error.value}\n"
    assert isinstance(error.value, ValueError)


def test_a_name_that_is_missing_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'fit'"):
        env2.fit  # noqa: B018
    assert {"train", "Run", "get_model"} <= set(dir(env2))


@pytest.mark.parametrize("name", ["export", "search", "train"])
def test_a_verb_is_a_function_though_a_room_has_its_name(name):
    function = getattr(env2, name)
    assert function.__module__.startswith("efficientnetv2.commands.api") and function.__doc__


class Odd:
    pass


# Call -> how its answer begins.
WRONG_TYPES = {
    "train('b0', model_dir=3)": "model_dir must be text or a path, got 3",
    "train('b0', model_dir={})": "model_dir must be text or a path, got {}",
    "train(b'b0')": "model must be text or a path, got b'b0'",
    "train('b0', ['digits'])": "data must be text or a path, got ['digits']",
    "train('b0', epochs=[3])": "epochs must be a number or a name, got [3]",
    "train('b0', epochs=True)": "epochs must be a number or a name, got True",
    "train('b0', epochs=np.arange(3))": "epochs must be a number or a name, got array([0, 1, 2])",
    "train('b0', seed={})": "seed must be a number or a name, got {}",
    "train('b0', validate='yes')": "validate must be True or False, got 'yes'",
    "train('b0', weights=np.zeros(2))": "weights must be text or a path, got array([0., 0.])",
    "train('b0', overrides=np.zeros(2))": "overrides must be text, a path or a dictionary, got arr",
    "train('b0', eval_name=3)": "eval_name must be text or a path, got 3",
    "train('b0', 'a' * 5000)": "cannot use 'aaaa",
    "train('b0', extend=2)": "extend must be True or False, got 2",
    "predict(None)": "images must be a path, or paths, got None",
    "predict(np.zeros([2, 2]))": "images must be paths, got array([0., 0.])",
    "predict([None])": "images must be paths, got None",
    "predict(b'x')": "images must be paths, got 120",
    "predict('x', top_k=[3])": "top_k must be a number or a name, got [3]",
    "predict('x', output=3)": "output must be text or a path, got 3",
    "find_lr('b0', steps=[3])": "steps must be a number or a name, got [3]",
    "export([3])": "format must be text or a path, got 3",
    "export(None)": "",
    "load_run(None)": "path must be text or a path, got None",
    "load_run(['x'])": "path must be text or a path, got ['x']",
    "list_models(3)": "pattern must be text or a path, got 3",
    "benchmark([Odd()])": "models must be text or a path, got <",
    "training_data(None, 'b0')": "data must be text or a path, got None",
    "training_data('digits', ['b0'])": "model_name must be text or a path, got ['b0']",
    "training_data('digits', 'b0', epochs={})": "epochs must be a number or a name, got {}",
    "training_data('a' * 5000, 'b0')": "cannot use 'aaaa",
    "training_data('digits', 'b0', model_dir=3)": "model_dir must be text or a path, got 3",
}


@pytest.mark.parametrize("call", WRONG_TYPES)
def test_a_wrong_type_is_named_and_leaves_nothing(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(env2.UserError) as error:
        eval(f"env2.{call}")
    assert str(error.value).startswith(WRONG_TYPES[call])
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_boolean_flag_with_a_value_says_what_it_takes(tmp_path, main_tf2):
    result = main_tf2("train", "--extend=5", cwd=tmp_path)
    assert result.returncode == 2
    message = "--extend=5 is neither true nor false; give --extend or --noextend"
    assert result.stderr == f"main_tf2.py: {message}\n"
