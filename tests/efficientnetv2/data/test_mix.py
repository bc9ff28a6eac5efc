"""mixup and CutMix by pixels: hand-written images, given draws, the official values, many seeds."""

import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from efficientnetv2.data import mix as mixing
from efficientnetv2.data.mix import MIXERS, cutmix, mix, mixup
from hparams.registry import UnknownNameError

MIXUP, CUTMIX, BOTH = (0.4, 0.0), (0.0, 1.0), (0.4, 1.0)
OFFICIAL = {"mixup": MIXUP, "cutmix": CUTMIX, "mixing": BOTH}  # as the golden file names them


@pytest.fixture
def key(seed):
    return tf.constant([seed, 7], tf.int64)


def mixed(batch, key, alphas, **options):
    parts = mix(*batch, key, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], **options)
    return [part.numpy() for part in parts]


def numbered(count, *, size):
    """Image i is full of i, and its target says so: results show who was mixed with whom."""
    numbers = tf.range(count, dtype=tf.float32)[:, None, None, None]
    return tf.ones([count, size, size, 3]) * numbers, tf.eye(count)


def textured(count, *, size, seed):
    """Noise with multi-hot targets."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(-1, 1, [count, size, size, 3])
    targets = rng.integers(0, 2, [count, 6])
    return tf.constant(images, tf.float32), tf.constant(targets, tf.float32)


def partners_of(weights):
    """The other image in each row of targets that began as an identity matrix; -1 where none."""
    others = weights * (1 - np.eye(len(weights)))
    assert ((others > 0).sum(1) <= 1).all()
    return np.where(others.any(1), others.argmax(1), -1)


def paste(own, other, centre, half):
    box = {"centre": tf.constant(centre, tf.float32), "half": tf.constant(half, tf.float32)}
    parts = mixing.paste(own, other, **box, target_weights=mixing.own_area)
    return [part.numpy() for part in parts]


def black_and_white(count, *, size):
    """Black images of target 0 and white ones of target 1."""
    return [(tf.fill([count, size, size, 1], v), tf.fill([count, 1], v)) for v in (0.0, 1.0)]


def test_blend_by_hand():
    own = tf.constant([[[[0.0], [4.0]]], [[[8.0], [8.0]]]]), tf.constant([[1.0, 0, 0], [0, 1, 1]])
    other = own[0][::-1], own[1][::-1]
    images, targets = mixing.blend(own, other, weight=[0.25, 0.5])
    assert images.numpy().tolist() == [[[[2.0], [5.0]]], [[[4.0], [6.0]]]]
    assert targets.numpy().tolist() == [[0.75, 0.25, 0.25], [0.5, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("centre", "half", "rows", "columns"),
    [
        ((2.0, 1.0), (1.0, 1.0), slice(1, 3), slice(0, 2)),
        ((0.0, 3.9), (1.5, 1.5), slice(0, 1), slice(2, 4)),  # over the border: clipped
        ((2.2, 2.6), (0.5, 1.0), slice(2, 3), slice(2, 4)),  # only centres, 0.5, 1.5 ..., count
        ((2.0, 2.0), (0.5, 2.0), slice(0, 0), slice(0, 4)),  # no pixel's centre lies inside
        ((0.1, 3.9), (9.0, 9.0), slice(0, 4), slice(0, 4)),
    ],
)
def test_paste_by_hand(centre, half, rows, columns):
    own = tf.reshape(tf.range(48.0), [1, 4, 4, 3]), tf.constant([[1.0, 0.0]])
    other = own[0] + 100, tf.constant([[0.0, 1.0]])
    images, targets = paste(own, other, np.transpose([centre]), np.transpose([half]))
    expected = own[0].numpy()
    expected[0, rows, columns] += 100
    np.testing.assert_array_equal(images, expected)
    share = np.mean(expected >= 100)
    assert targets.tolist() == [[1 - share, share]]


def test_boxes_have_the_given_area_and_centre():
    size, area = tf.constant([20.0, 40.0]), tf.constant([0.25, 0.13])
    uniforms = tf.constant([[0.5, 0.01], [0.26, 0.99]])
    centre, half = mixing.real_box(size, area, uniforms=uniforms)
    np.testing.assert_allclose(centre, [[10, 0.2], [10.4, 39.6]], rtol=1e-6)
    np.testing.assert_allclose(half, [[5, 3.6055513], [10, 7.2111026]], rtol=1e-6)
    centre, half = mixing.even_box(size, area, uniforms=uniforms)
    assert centre.numpy().tolist() == [[10, 0], [10, 39]]
    assert half.numpy().tolist() == [[5, 3], [10, 7]]  # of sides 7.2 and 14.4


def test_boxes_with_real_sides_take_their_area_on_the_average(seed):
    centre = np.random.default_rng(seed).uniform(3.5, 4.5, [2, 20_000])
    _, shares = paste(*black_and_white(20_000, size=8), centre, np.full([2, 20_000], 1.3))
    assert shares.mean() == pytest.approx(2.6**2 / 64, rel=0.01)  # 5 standard errors


@pytest.fixture(scope="module")
def official(golden):
    arrays = dict(np.load(golden / "mixing.npz"))
    cases = json.loads((golden / "mixing.json").read_text())["cutmix_mask_cases"]
    arrays["cutmix_beta"] = np.float32([case["beta_sample"] for case in cases])
    centres = np.float32([[case["r_y"], case["r_x"]] for case in cases])
    arrays["uniforms"] = (centres.T + 0.5) / 32
    return arrays


def test_official_boxes_are_the_official_masks(official):
    size, area = tf.constant([32.0, 32.0]), tf.constant(1 - official["cutmix_beta"])
    box = mixing.even_box(size, area, uniforms=tf.constant(official["uniforms"]))
    mask, shares = paste(*black_and_white(8, size=32), *box)
    np.testing.assert_array_equal(mask, official["cutmix_mask"])
    np.testing.assert_array_equal(shares[:, 0], official["cutmix_mask"].mean((1, 2, 3)))


@pytest.mark.parametrize(("name", "alphas"), OFFICIAL.items())
def test_official_mixing_equals_the_official_values(name, alphas, official, key, monkeypatch):
    # The draws are given: mixup takes the first of them, CutMix the last.
    def stateless_uniform(shape, _):
        return np.tile(official["uniforms"], [2, 1])[: shape[0], -shape[1] :]

    def symmetric_beta(uniforms, alpha):
        count = uniforms.shape[1]
        mixup, cutmix = official["mixup_beta_samples"][:count], official["cutmix_beta"][-count:]
        return cutmix if alpha == alphas[1] else mixup

    monkeypatch.setattr(tf.random, "stateless_uniform", stateless_uniform)
    monkeypatch.setattr(mixing, "symmetric_beta", symmetric_beta)
    images, targets = mixed((official["image"], official["label"]), key, alphas, table="official")
    np.testing.assert_allclose(images, official[f"{name}_image"], atol=2e-7)
    np.testing.assert_allclose(targets, official[f"{name}_label"], atol=2e-7)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_symmetric_beta_has_its_distribution(alpha, key):
    count = 100_000
    uniforms = tf.random.stateless_uniform([2, count], key)
    drawn = np.sort(np.float64(mixing.symmetric_beta(uniforms, alpha)))
    variance = 1 / (4 * (2 * alpha + 1))
    assert drawn.mean() == pytest.approx(0.5, abs=4 * np.sqrt(variance / count))
    assert drawn.var() == pytest.approx(variance, rel=0.02)
    # Kolmogorov and Smirnov's distance, but not nearer to 1 than float32 goes; p = 0.001.
    small = np.logspace(-36, np.log10(0.5), 500)
    points = np.concatenate([small, 1 - small[small > 1e-6]])
    share = np.searchsorted(drawn, points, side="right") / count
    distance = np.abs(share - scipy.stats.beta.cdf(points, alpha, alpha)).max()
    assert distance < 1.95 / np.sqrt(count)


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 1.0, 1e4])
def test_symmetric_beta_is_a_number_at_the_ends_of_its_draws(alpha):
    largest = 1 - 2.0**-23
    u, v = np.meshgrid([0, 0.5, largest], [0, 0.25, 0.5, 0.75, largest])
    drawn = mixing.symmetric_beta(np.float32([u.ravel(), v.ravel()]), alpha).numpy()
    assert np.isfinite(drawn).all() and drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn[u.ravel() == 0] == 0.5).all()


def test_mixup_draws_a_weight_for_each_image(key):
    count = 3000
    images, weights = mixup(*numbered(count, size=1), key, alpha=2.0)
    own = np.diag(weights)
    distance = scipy.stats.kstest(1 - own, lambda x: 2 * scipy.stats.beta.cdf(x, 2, 2)).statistic
    assert own.min() >= 0.5 and distance < 1.95 / np.sqrt(count)
    blended = np.float64(weights) @ np.arange(count)
    np.testing.assert_allclose(images[:, 0, 0, 0], blended, rtol=1e-6, atol=1e-3)


def test_cutmix_draws_a_box_for_each_image(key, seed):
    _, weights = cutmix(*numbered(2000, size=32), key, alpha=0.7)
    shares, rng = 1 - np.diag(weights), np.random.default_rng(seed)
    half = np.sqrt(rng.beta(0.7, 0.7, 200_000)) / 2
    centres = rng.uniform(size=[2, 200_000])
    area = np.prod(np.minimum(centres + half, 1) - np.maximum(centres - half, 0), axis=0)
    assert shares.mean() == pytest.approx(area.mean(), abs=4 * area.std() / np.sqrt(2000))
    assert shares.std() == pytest.approx(area.std(), rel=0.06)


@pytest.mark.parametrize("size", [7, 24])
def test_cutmix_targets_are_each_images_share_of_pixels(size, key):
    count = 300
    images, weights = (part.numpy() for part in cutmix(*numbered(count, size=size), key, alpha=1.0))
    number = np.arange(count)[:, None, None, None]
    replaced = (images != number).all(-1).sum((1, 2))
    np.testing.assert_array_equal(np.diag(weights), 1 - (replaced / size**2).astype(np.float32))
    assert len(np.unique(replaced)) > 15  # each image has a box of its own
    partner = partners_of(weights)[:, None, None, None]
    assert ((images == number) | (images == partner)).all()


@pytest.mark.parametrize("table", MIXERS)
@pytest.mark.parametrize("count", [8, 9])
def test_half_of_the_batch_is_blended_and_the_other_half_pasted(table, count, seed):
    half, blended, pasted = count // 2, 0, 0
    for index in range(10):
        key = tf.constant([seed, index], tf.int64)
        images, _ = mixed(numbered(count, size=16), key, (2.0, 1.0), table=table)
        flat = images.reshape(count, -1)
        assert (np.ptp(flat[:half], axis=1) == 0).all()  # even images blend to even ones
        assert (flat[half:] == np.round(flat[half:])).all()  # whole numbers: pasted, not blended
        blended += np.mean(flat[:half, 0] != np.arange(half))
        pasted += np.mean(np.ptp(flat[half:], axis=1) > 0)
    assert blended > 9 and pasted > 4


@pytest.mark.parametrize("alphas", [MIXUP, CUTMIX, BOTH])
def test_multi_hot_targets_are_mixed_as_the_images_are(alphas, key, seed):
    # Each image is full of the number that its target's six bits write.
    bits, (_, targets) = 2.0 ** np.arange(6), textured(64, size=1, seed=seed)
    numbers = targets.numpy() @ bits
    images = tf.ones([64, 16, 16, 3]) * tf.constant(numbers, tf.float32)[:, None, None, None]
    images, targets = mixed((images, targets), key, alphas)
    np.testing.assert_allclose(images.mean((1, 2, 3)), targets @ bits, rtol=1e-5, atol=1e-4)
    assert np.mean(np.abs(targets @ bits - numbers) > 0.01) > 0.5


@pytest.mark.parametrize("table", MIXERS)
@pytest.mark.parametrize("alphas", [MIXUP, CUTMIX, BOTH])
@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_any_batch_keeps_its_shape_and_the_sum_of_its_targets(count, alphas, table, key):
    before, _ = textured(count, size=8, seed=count)
    images, weights = mixed((before, tf.eye(count)), key, alphas, table=table)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert images.shape == before.shape
    assert count > 1 or np.abs(images - before).max() < 1e-6  # nobody to mix it with


@pytest.mark.parametrize("alphas", [MIXUP, BOTH])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_all_images_are_partners_but_none_its_own(count, alphas, seed):
    seen = set()
    for index in range(30):
        key = tf.constant([seed, index], tf.int64)
        _, weights = mixed(numbered(count, size=32), key, alphas)
        shifts = (partners_of(weights) - np.arange(count))[np.diag(weights) < 1] % count
        assert len(set(shifts)) <= 1 and 0 not in shifts
        seen.update(shifts)
    assert seen == set(range(1, count))


@pytest.mark.parametrize("table", MIXERS)
def test_alphas_of_zero_leave_every_bit(table, key):
    images = tf.constant([[[[-0.0, np.nan, np.inf]]], [[[1e-45, 1.0, -np.inf]]]])
    same, targets = mixed((images, tf.eye(2)), key, (0, 0.0), table=table)
    assert same.tobytes() == images.numpy().tobytes()
    assert targets.tolist() == [[1, 0], [0, 1]]


def test_the_same_seed_mixes_alike_and_another_does_not(seed):
    batch = textured(16, size=16, seed=seed)
    first, again, *others = (
        mixed(batch, tf.constant(key, tf.int64), BOTH)[0]
        for key in [(seed, 1), (seed, 1), (seed, 2), (seed + 1, 1)]
    )
    np.testing.assert_array_equal(first, again)
    for other in others:
        changed = (first != other).mean((1, 2, 3))
        assert changed[:8].min() > 0.5 and changed[8:].mean() > 0.1


@pytest.mark.slow
def test_a_dataset_gives_what_eager_gives_and_keeps_its_type(seed):
    batch = textured(8, size=12, seed=seed)

    def prepare(index):
        return mix(*batch, tf.stack([index, index]), mixup_alpha=0.4, cutmix_alpha=1.0)

    dataset = tf.data.Dataset.range(3).map(prepare)
    assert [spec.shape for spec in dataset.element_spec] == [[8, 12, 12, 3], [8, 6]]
    for index, (images, targets) in enumerate(dataset):
        expected = prepare(tf.constant(index, tf.int64))
        np.testing.assert_allclose(images, expected[0], atol=1e-6)
        np.testing.assert_allclose(targets, expected[1], atol=1e-6)


def test_one_trace_serves_every_alpha_size_and_batch(key, seed):
    shapes = [None, None, None, 3], [None, 6], [], []

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes])
    def graph(images, targets, mixup_alpha, cutmix_alpha):
        return mix(images, targets, key, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)

    for index, alphas in enumerate([(0.0, 0.0), MIXUP, CUTMIX, BOTH, (2.0, 0.3)]):
        batch = textured(4 + index, size=6 + index, seed=seed)
        for ours, expected in zip(graph(*batch, *alphas), mixed(batch, key, alphas)):
            np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert graph.experimental_get_tracing_count() == 1


def test_an_unknown_table_is_answered_with_the_nearest_one(key):
    message = r"unknown mixer 'oficial'; did you mean 'official'\?"
    with pytest.raises(UnknownNameError, match=message):
        mixed(numbered(2, size=2), key, MIXUP, table="oficial")
