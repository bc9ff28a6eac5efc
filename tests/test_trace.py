"""docs/trace.md is true: each row's dtype, shape and range are what real digits show."""

import pathlib
import re

import pytest
import tensorflow as tf

from efficientnetv2.data import decode
from efficientnetv2.data.pipeline import build_training_input
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.sources import open_source
from efficientnetv2.model.factory import build_model
from efficientnetv2.train.losses import softmax_cross_entropy
from hparams import resolve

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "trace.md"
SIZES = {"S": 32, "B": 16, "K": 10}
SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "train.batch_size": SIZES["B"],
}


def rows():
    """{row number: its cells} of the page's table."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {int(row[0]): row[1:] for row in cells}


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """{row number: the tensor that it describes}."""
    config = resolve("efficientnetv2-s", "digits", SETTINGS)
    source = open_source("digits", data_dir=str(tmp_path_factory.mktemp("tfds")))
    encoded, _ = next(iter(source.examples("train")))
    seed = tf.constant([0, 0], tf.int64)
    crop = {"area": (0.7, 1.0), "aspect": (0.75, 1.33)}
    options = {"image_size": SIZES["S"], "preprocess": "v2"}
    trained = decode.decode_training(encoded, seed, **options, **crop)
    stream = build_training_input(config, source)
    images, labels = next(iter(stream.batches(image_size=SIZES["S"], start_step=0)))
    logits = build_model(config.model)(images)
    return {
        1: encoded,
        2: decode.random_window(decode.image_shape(encoded), seed, **crop),
        3: trained,
        4: decode.decode_evaluation(encoded, **options),
        5: normalise(trained, "v2"),
        6: images,
        7: labels,
        8: logits,
        9: softmax_cross_entropy(logits, labels, label_smoothing=0.1, global_batch_size=16),
    }


@pytest.mark.parametrize("number", range(1, 10))
def test_row(number, tensors):
    _, _, _, dtype, shape, limits = rows()[number]
    tensor = tensors[number]
    sizes = [SIZES.get(part) or int(part) for part in shape.strip("[]").split(",") if part]
    assert tensor.dtype.name == dtype
    assert tensor.shape == tuple(sizes)
    if limits:
        low, high = (float(limit) for limit in limits.split(".."))
        assert low <= float(tf.reduce_min(tensor)) and float(tf.reduce_max(tensor)) <= high
        spread = float(tf.reduce_max(tensor)) - float(tf.reduce_min(tensor))
        assert spread > 0.5 * (high - low), "the range is wider than what is in it"


@pytest.mark.parametrize("number", range(1, 11))
def test_places_exist(number):
    where, function = rows()[number][:2]
    text = (PAGE.parent.parent / "efficientnetv2" / where).read_text()
    assert re.search(rf"(def|class) {function.rpartition('.')[2]}\b", text)
