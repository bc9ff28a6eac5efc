"""Tests docs/trace.md: the dtype, shape and range of each row against real digits."""

import pathlib
import re

import pytest
import tensorflow as tf

from efficientnetv2.data import decode
from efficientnetv2.data.augment import rand_augment
from efficientnetv2.data.mix import mix
from efficientnetv2.data.preprocess import normalise
from efficientnetv2.data.targets import target_of
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.model.factory import build_model
from efficientnetv2.train.losses import softmax_cross_entropy
from efficientnetv2.train.progressive import build_settings, build_stages
from hparams import resolve

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "trace.md"
SIZES = {"S": 32, "B": 16, "K": 10}
SETTINGS = {
    "model.blocks_args": ["r1_k3_s1_e1_i8_o8_c1"],
    "model.feature_size": 16,
    "train.batch_size": SIZES["B"],
}


def rows():
    """Returns {row number: its cells} of the page's table."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    return {int(row[0]): row[1:] for row in cells}


@pytest.fixture(scope="module")
def tensors(digits):
    """{row number: the tensor that it describes}."""
    config = resolve("efficientnetv2-s", "digits", SETTINGS)
    plan = build_stages(config, num_images=1257)
    settings = build_settings(config, plan)
    phase = Phase(0, 0, plan[0].steps_per_epoch, SIZES["B"])
    last = settings.at(tf.constant(plan[-1].first_step, tf.int64))
    reference = next(iter(digits.references("train", seed=None, buffer=1)))
    _, encoded, label = digits.load(reference)
    seed = tf.constant([0, 0], tf.int64)
    crop = {"area": (0.7, 1.0), "aspect": (0.75, 1.33)}
    trained = decode.decode_training(
        encoded, seed, image_size=last.image_size, preprocess="v2", **crop
    )
    stream = build_training_input(config, digits, phases=[phase], settings=settings)
    images, targets = next(iter(stream.batches(start_step=plan[-1].first_step)))
    alphas = {"mixup_alpha": 0.5, "cutmix_alpha": 0.0}
    mixed, mixed_targets = mix(images, targets, seed, **alphas)
    logits = build_model(config.model)(mixed)
    return {
        1: encoded,
        2: last.image_size,
        3: decode.random_window(tf.constant([8, 8]), seed, **crop),
        4: trained,
        5: decode.decode_evaluation(encoded, image_size=SIZES["S"], preprocess="v2"),
        6: rand_augment(tf.cast(trained, tf.uint8), seed, magnitude=5.0),
        7: target_of(label, num_classes=SIZES["K"]),
        8: normalise(images * 128 + 128, "v2"),
        9: mixed,
        10: mixed_targets,
        11: logits,
        12: softmax_cross_entropy(logits, targets, label_smoothing=0.1, global_batch_size=16),
    }


@pytest.mark.parametrize("number", range(1, 13))
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


@pytest.mark.parametrize("number", range(1, 14))
def test_places_exist(number):
    where, function = rows()[number][:2]
    text = (PAGE.parent.parent / "efficientnetv2" / where).read_text()
    assert re.search(rf"(def|class) {function.rpartition('.')[2]}\b", text)
