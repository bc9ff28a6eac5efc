"""The draws of each augmentation: distribution, and equality in every graph."""

import collections
import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data import augment
from efficientnetv2.data.default_ops import Op
from tests.efficientnetv2.data.draws import SIGMAS, chi_square, distance, over_seeds, photo

JITTER = (0.4, 0.4, 0.4, 0.1)
AUGMENTATIONS = {
    "rand_augment": lambda image, seed: augment.rand_augment(image, seed, magnitude=15),
    "rand_augment official": lambda image, seed: augment.rand_augment(
        image, seed, magnitude=15, num_layers=3, ops="official"
    ),
    "auto_augment": augment.auto_augment,
    "auto_augment official": lambda image, seed: augment.auto_augment(image, seed, ops="official"),
    "trivial_augment": augment.trivial_augment,
    "aug_mix": lambda image, seed: augment.aug_mix(image, seed, magnitude=15),
    "color_jitter": lambda image, seed: augment.color_jitter(image, seed, strengths=JITTER),
    "cutout": lambda image, seed: augment.cutout(image, seed, size=0.4),
    "random_erase": lambda image, seed: tf.cast(erased(tf.cast(image, tf.float32), seed), tf.uint8),
}


def erased(image, seed, probability=0.9):
    return augment.random_erase(image, seed, probability=probability, colour=(1.0, 2.0, 3.0))


@pytest.mark.slow
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_eager_and_dataset_map_give_the_same_image_for_the_same_seed(name, seed):
    function, image = AUGMENTATIONS[name], photo(33)
    mapped = over_seeds(function, image, count=30, seed=seed)
    again = over_seeds(function, image, count=30, seed=seed)
    eager = [function(image, tf.constant([seed, i], tf.int64)).numpy() for i in range(30)]
    np.testing.assert_array_equal(mapped, again)
    np.testing.assert_array_equal(mapped, eager)
    assert mapped.shape == (30, 33, 33, 3)
    assert mapped.dtype == np.uint8


@pytest.mark.parametrize(
    "name",
    ["rand_augment", "trivial_augment", "aug_mix", "color_jitter", "cutout", "random_erase"],
)
def test_different_seeds_give_different_images(name, seed):
    function, image = AUGMENTATIONS[name], photo(33)
    by_index = over_seeds(function, image, count=30, seed=seed)
    by_seed = over_seeds(function, image, count=30, seed=seed + 1)
    assert len(np.unique(by_index.reshape(30, -1), axis=0)) > 20
    assert sum(np.array_equal(a, b) for a, b in zip(by_index, by_seed)) < 6


def recorder(index, *, signed=False, placed=False):
    """An op that leaves behind its index, and its sign or its centre.

    Channel 0 takes the index as another hexadecimal digit, channel 1 the sign as another bit.
    """

    def record(image, sign, centre=None):
        ops, signs, place = tf.unstack(tf.cast(image[0, 0], tf.int32))
        if centre is not None:
            row, column = tf.unstack(tf.cast(centre * 16, tf.int32))
            place = row * 16 + column
        pixel = [ops * 16 + index, signs * 2 + tf.cast(sign > 0, tf.int32), place]
        return tf.cast(tf.stack([[pixel]]), tf.uint8)

    return Op(record, strength=lambda _: tf.constant(1.0), signed=signed, placed=placed)


@functools.cache
def recorded_draws(seed):
    table = {str(i): recorder(i, signed=i != 7, placed=i == 7) for i in range(16)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "OP_TABLES", {"default": augment.OpTable(table, table)})
        function = AUGMENTATIONS["rand_augment"]
        return over_seeds(function, [[[0, 0, 0]]], count=8000, seed=seed)[:, 0, 0].astype(int)


@pytest.fixture
def recorded(seed):
    """Draws ``[n, 3]`` of RandAugment with two layers, of 16 recording ops."""
    return recorded_draws(seed)


@pytest.mark.slow
def test_ops_are_drawn_uniformly_and_the_layers_independently(recorded):
    pairs = np.bincount(recorded[:, 0], minlength=256)  # first op times 16 plus second
    assert pairs.sum() == 8000
    assert chi_square(pairs) < SIGMAS
    assert chi_square(pairs.reshape(16, 16).sum(0)) < SIGMAS
    assert chi_square(pairs.reshape(16, 16).sum(1)) < SIGMAS


def test_neighbouring_images_are_drawn_independently(recorded):
    second = recorded[:, 0] % 16
    assert chi_square(np.bincount(second[:-1] * 16 + second[1:], minlength=256)) < SIGMAS


def test_signs_are_even_and_independent_of_the_op_and_the_layer(recorded):
    first, second = recorded[:, 0] // 16, recorded[:, 0] % 16
    both = (first != 7) & (second != 7)
    assert chi_square(np.bincount(recorded[both, 1], minlength=4)) < SIGMAS
    positive = np.bincount(second[both], weights=recorded[both, 1] % 2)
    assert chi_square(positive[np.arange(16) != 7]) < SIGMAS


def test_centres_cover_the_image_evenly(recorded):
    placed = recorded[recorded[:, 0] % 16 == 7, 2]
    assert len(placed) == pytest.approx(500, abs=SIGMAS * np.sqrt(500))
    assert chi_square(np.bincount(placed, minlength=256)) < SIGMAS


def test_only_the_drawn_op_runs():
    def fail(image):
        bad = tf.debugging.check_numerics(tf.constant(np.nan), "this op was not drawn")
        return image + tf.cast(bad, tf.uint8)

    table = (Op(tf.identity), Op(fail))
    how = (tf.constant(1.0, tf.float64), tf.constant(1.0), tf.zeros([2]))
    run = tf.function(lambda index: augment._apply(table, index, photo(4), *how))
    np.testing.assert_array_equal(run(tf.constant(0)), photo(4))
    with pytest.raises(tf.errors.InvalidArgumentError, match="this op was not drawn"):
        run(tf.constant(1))


@pytest.mark.parametrize("ops", ["default", "official"])
def test_a_new_magnitude_or_size_needs_no_new_graph(ops, seed):
    magnitude = tf.Variable(0.0)
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def run(image):
        traces.append(1)
        return augment.rand_augment(image, [seed, 5], magnitude=magnitude, num_layers=8, ops=ops)

    images = []
    for value in (0.0, 5.0, 15.0):
        magnitude.assign(value)
        images.append(run(photo(32)).numpy())
        eager = augment.rand_augment(photo(32), [seed, 5], magnitude=value, num_layers=8, ops=ops)
        np.testing.assert_array_equal(images[-1], eager)
    assert len(np.unique(np.reshape(images, [3, -1]), axis=0)) == 3
    assert run(photo(20)).shape == (20, 20, 3)
    assert len(traces) == 1


def test_no_layers_leave_the_image_alone(seed):
    ours = augment.rand_augment(photo(8), [seed, 1], magnitude=10, num_layers=0)
    np.testing.assert_array_equal(ours, photo(8))


def test_the_policy_is_the_official_one(golden):
    official = json.loads((golden / "augment.json").read_text())["policy_v0"]
    assert [[list(row[:3]), list(row[3:])] for row in augment.POLICY_V0] == official


def policy_outcomes(names):
    """Probability of every (ops applied in order, sum of their magnitudes) under policy v0."""
    outcomes = collections.Counter()
    for name1, p1, m1, name2, p2, m2 in augment.POLICY_V0:
        first, second = names.index(name1), names.index(name2)
        outcomes[(0, 0)] += (1 - p1) * (1 - p2) / 25
        outcomes[(first + 1, m1)] += p1 * (1 - p2) / 25
        outcomes[(second + 1, m2)] += (1 - p1) * p2 / 25
        outcomes[((first + 1) * 17 + second + 1, m1 + m2)] += p1 * p2 / 25
    return outcomes


@pytest.mark.slow
def test_auto_augment_applies_each_sub_policy_with_its_probabilities(monkeypatch, seed):
    names = list(augment.OP_TABLES["default"].autoaugment)

    def recording(number):
        # Digits of base 17 over channels 0 and 1, the magnitudes added up in channel 2.
        def record(image, magnitude):
            low, high, total = tf.unstack(tf.cast(image[0, 0], tf.int32))
            code = (high * 256 + low) * 17 + number
            pixel = [code % 256, code // 256, total + tf.cast(magnitude, tf.int32)]
            return tf.cast(tf.stack([[pixel]]), tf.uint8)

        return Op(record, strength=tf.identity)

    table = {name: recording(i + 1) for i, name in enumerate(names)}
    monkeypatch.setattr(augment, "OP_TABLES", {"default": augment.OpTable(table, table)})
    count = 6000
    drawn = over_seeds(augment.auto_augment, [[[0, 0, 0]]], count=count, seed=seed)[:, 0, 0]
    drawn = drawn.astype(int)
    measured = collections.Counter(zip(drawn[:, 1] * 256 + drawn[:, 0], drawn[:, 2]))
    expected = policy_outcomes(names)
    assert set(measured) <= {outcome for outcome, p in expected.items() if p > 0}
    for outcome, probability in expected.items():
        tolerance = SIGMAS * np.sqrt(count * probability * (1 - probability)) + 1e-6
        assert measured[outcome] == pytest.approx(count * probability, abs=tolerance), outcome


@pytest.mark.parametrize(("size", "side"), [(0.25, 8), (0.5, 16), (0.4, 13), (1.0, 32)])
def test_cutout_has_the_stated_size_wherever_it_is(size, side, seed):
    white = np.full([32, 32, 3], 255)
    images = over_seeds(
        lambda image, seed: augment.cutout(image, seed, size=size), white, count=300, seed=seed
    )
    assert set(np.unique(images)) <= {128, 255}
    painted = (images == 128).all(-1)
    heights, widths = painted.any(2).sum(1), painted.any(1).sum(1)
    assert (painted.sum((1, 2)) == heights * widths).all()  # a rectangle
    assert heights.max() == widths.max() == side
    assert heights.min() >= side // 2  # its centre lies inside the image
    whole = ~(painted[:, [0, -1]].any((1, 2)) | painted[:, :, [0, -1]].any((1, 2)))
    assert (heights[whole] == side).all() and (widths[whole] == side).all()


@pytest.mark.slow
def test_cutout_centres_are_spread_evenly(seed):
    white = np.full([16, 16, 3], 255)
    dots = over_seeds(
        lambda image, seed: augment.cutout(image, seed, size=1 / 16), white, count=8000, seed=seed
    )
    counts = (dots[..., 0] == 128).sum(0)
    assert counts.sum() == 8000
    assert chi_square(counts) < SIGMAS


def test_trivial_augment_draws_operations_strengths_and_signs_evenly(monkeypatch, seed):
    def recording(number):
        def record(image, argument):
            pixel = [number, tf.abs(argument), argument > 0]
            pixel = tf.stack([tf.cast(value, tf.uint8) for value in pixel])
            return tf.reshape(pixel, [1, 1, 3]) + 0 * image

        # From 1, so that bin 0 has a sign, too.
        return Op(record, strength=lambda number: tf.cast(number, tf.float32) + 1, signed=True)

    monkeypatch.setattr(augment, "WIDE", {str(n): recording(n) for n in range(14)})
    drawn = over_seeds(augment.trivial_augment, [[[0, 0, 0]]], count=4000, seed=seed)[:, 0, 0]
    operations, bins, signs = drawn.astype(int).T
    assert bins.min() == 1
    assert chi_square(np.bincount(operations * 31 + bins - 1, minlength=14 * 31)) < SIGMAS
    assert chi_square(np.bincount(operations, minlength=14)) < SIGMAS
    assert chi_square(np.bincount(bins - 1, minlength=31)) < SIGMAS
    assert chi_square(np.bincount(operations * 2 + signs, minlength=28)) < SIGMAS


# ---------------------------------------------------------------------- random erasing


def reference_boxes(side, count, *, area, generator):
    """Boxes ``[n, 4]`` (top, left, height, width) by the paper's algorithm 1, one try at a time."""
    boxes = []
    for _ in range(count):
        for _ in range(10):
            pixels = generator.uniform(*area) * side * side
            aspect = np.exp(generator.uniform(np.log(0.3), np.log(3.3)))
            height, width = round(np.sqrt(pixels * aspect)), round(np.sqrt(pixels / aspect))
            if height < side and width < side:
                top = generator.integers(0, side - height + 1)
                left = generator.integers(0, side - width + 1)
                boxes.append((top, left, height, width))
                break
    return np.array(boxes)


def painted_boxes(painted):
    """The same of masks ``[n, S, S]``, each of which must hold one whole rectangle."""
    rows, columns = painted.any(2), painted.any(1)
    boxes = [rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)]
    np.testing.assert_array_equal(painted.sum((1, 2)), boxes[2] * boxes[3])
    return np.stack(boxes, 1)


@pytest.mark.slow
@pytest.mark.parametrize("area", [(0.02, 0.33), (0.5, 1.5)], ids=["as it is", "often too large"])
def test_erased_boxes_are_distributed_as_by_the_papers_algorithm(area, monkeypatch, seed):
    monkeypatch.setattr(augment, "_ERASED_AREA", area)
    count, side = 3000, 40
    images = over_seeds(
        lambda image, seed: erased(tf.cast(image, tf.float32), seed, probability=1.0),
        np.full([side, side, 3], 255),
        count=count,
        seed=seed,
    )
    painted = (images == [1.0, 2.0, 3.0]).all(-1)
    assert (images[~painted] == 255).all()
    ours = painted_boxes(painted[painted.any((1, 2))])
    theirs = reference_boxes(side, 20_000, area=area, generator=np.random.default_rng(seed))
    share = len(theirs) / 20_000
    tolerance = SIGMAS * np.sqrt(share * (1 - share) / count) + 1e-9
    assert len(ours) / count == pytest.approx(share, abs=tolerance)
    limit = 2.2 * np.sqrt(1 / len(ours) + 1 / len(theirs))  # exceeded by chance once in 8,000
    for draw in (
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 2] / b[:, 3],
        lambda b: b[:, 0] + b[:, 2],
        lambda b: b[:, 1] + b[:, 3],
    ):
        assert distance(draw(ours), draw(theirs)) < limit


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_a_share_of_the_images_is_erased(probability, seed):
    images = over_seeds(
        lambda image, seed: erased(tf.cast(image, tf.float32), seed, probability=probability),
        np.full([16, 16, 3], 255),
        count=2000,
        seed=seed,
    )
    changed = (images != 255).any((1, 2, 3)).mean()
    deviation = np.sqrt(probability * (1 - probability) / 2000)
    assert changed == pytest.approx(probability, abs=SIGMAS * deviation)


def test_nothing_is_erased_if_no_shape_fits(monkeypatch, seed):
    monkeypatch.setattr(augment, "_ERASED_AREA", (3.5, 4.0))
    image = tf.cast(photo(12), tf.float32)
    np.testing.assert_array_equal(erased(image, [seed, 1], probability=1.0), image)


@pytest.mark.parametrize("probability", [-0.1, 1.5])
def test_random_erasing_refuses_what_is_no_probability(probability):
    with pytest.raises(ValueError, match=rf"in \[0, 1\], got {probability}"):
        erased(tf.cast(photo(8), tf.float32), [1, 2], probability=probability)


@pytest.mark.parametrize("size", [0, -0.1, 1.5])
def test_cutout_refuses_a_size_that_is_no_share(size):
    with pytest.raises(ValueError, match=rf"in \(0, 1\], got {size}"):
        augment.cutout(photo(8), [1, 2], size=size)


def test_an_unknown_table_is_answered_with_the_nearest_known_one(seed):
    with pytest.raises(KeyError, match="augmentation ops 'offical'; did you mean 'official'"):
        augment.rand_augment(photo(8), [seed, 1], magnitude=10, ops="offical")
    with pytest.raises(KeyError, match="augmentation ops 'tf'; known: default, official"):
        augment.auto_augment(photo(8), [seed, 1], ops="tf")


def test_the_streams_of_one_seed_differ(seed):
    streams = (
        *("randaug", "autoaug", "trivial", "augmix", "jitter"),
        *("vertical", "quarters", "rotate", "cutout", "erasing"),
    )
    draws = [augment._uniform([seed, 1], [4], stream=stream) for stream in streams]
    assert len(np.unique(draws)) == 40
