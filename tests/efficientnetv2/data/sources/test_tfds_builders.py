"""Opening data sets of TensorFlow Datasets: prepared, not yet prepared, unknown, impossible."""

import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from efficientnetv2.data.sources.tfds_builders import open_builder
from hparams.errors import DataError


def raising(error):
    def prepare(*_, **__):
        raise error

    return prepare


def test_digits_are_prepared_in_silence_and_once(tmp_path, monkeypatch, capfd):
    tf.constant(0)  # TensorFlow greets when it is first used
    capfd.readouterr()
    builder = open_builder("digits", data_dir=str(tmp_path))
    assert builder.info.splits["test"].num_examples == 360
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(type(builder), "download_and_prepare", raising(RuntimeError("twice")))
    assert open_builder("digits", data_dir=str(tmp_path)).is_prepared()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonesuch", "TensorFlow Datasets knows no data set 'nonesuch'$"),
        ("cifar01", "knows no data set 'cifar01'; did you mean 'cifar10.*'"),
        ("mnist/foo", "cannot open data set 'mnist/foo': .*BuilderConfig foo not found"),
        ("foo bar", "cannot open data set 'foo bar': "),
    ],
)
def test_a_name_that_is_not_known_is_an_error_of_one_line(name, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        open_builder(name, data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [4, 120, 200])
def test_a_set_that_must_be_fetched_by_hand_says_how(length, tmp_path):
    folder = tmp_path / ("x" * length)
    with pytest.raises(DataError) as caught:
        open_builder("imagenet2012", data_dir=str(folder))
    message = str(caught.value)
    assert f"'imagenet2012' is not prepared in '{folder}', and preparing it failed: " in message
    assert "ILSVRC2012_img_train.tar" in message or length == 200
    assert f"'tfds build imagenet2012 --data_dir={folder}'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            requests.ConnectionError(
                "pages\nof text", request=requests.Request("GET", "https://a.org/x").prepare()
            ),
            r"preparing it failed: no connection to a\.org; name the folder .* 'tfds build mnist ",
        ),
        (OSError(28, "No space left on device"), "failed: No space left on device; name the"),
        (ImportError("No module named 'x'"), "failed: No module named 'x'; name the"),
        (AssertionError("a\n  b"), "failed: a b; name the"),
        (KeyError(), "failed: KeyError; name the"),
        (ValueError("long " * 1000), r"failed: (long )+\.\.\.; name the"),
    ],
)
def test_why_a_set_cannot_be_prepared_is_said_in_one_line(error, message, tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", raising(error))
    with pytest.raises(DataError, match=message) as caught:
        open_builder("mnist", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_without_network_it_does_not_try_for_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr(downloader, "MAX_RETRIES", 10)
    retries = []
    monkeypatch.setattr(
        tfds.core.DatasetBuilder,
        "download_and_prepare",
        lambda *_, **__: retries.append(downloader.MAX_RETRIES),
    )
    open_builder("mnist", data_dir=str(tmp_path))
    assert 1 < sum(0.2 * 2**n for n in range(1, retries[0])) < 10  # seconds of waiting in all


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(DataError, match=f"'digits' is not prepared in '{blocked}', .*: Not a dir"):
        open_builder("digits", data_dir=str(blocked))
