"""Images that cannot be read are named in an error, or skipped while batches stay full."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from efficientnetv2.data.bad_images import SkippedLog, fill_gaps, prepare_readable
from efficientnetv2.data.eval_input import EvaluationInput
from efficientnetv2.data.shard import Shard
from efficientnetv2.data.sources import build_source
from efficientnetv2.data.train_input import Phase, build_training_input
from efficientnetv2.evaluation.rehearsal import rehearse
from efficientnetv2.train.progressive import build_settings, build_stages
from hparams import resolve
from hparams.errors import DataError
from hparams.resolve import with_facts

SIZE = 24


@pytest.fixture
def photos(tmp_path):
    """Two classes of 30 photographs; each file has its own shade."""
    folder = tmp_path / "photos"
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            shade = np.full((40, 50, 3), 100 * label + 3 * number, np.uint8)
            Image.fromarray(shade).save(folder / name / f"{number:02}.jpg", quality=95)
    return folder


def config_of(photos, **settings):
    return resolve(
        "efficientnetv2-s",
        "folder",
        {
            "data.data_dir": str(photos),
            "train.batch_size": 8,
            "train.isize": SIZE,
            "data.ibase": SIZE,
            "data.augname": "none",
            "model.num_classes": 2,
            "data.train_split": "train",
            "data.eval_split": "test",
            "eval.isize": SIZE,
            **settings,
        },
    )


def training(photos, log=None, **settings):
    config = config_of(photos, **settings)
    source = build_source(config)
    plan = build_stages(config, num_images=source.num_images("train"))
    phase = Phase(0, 0, plan[0].steps_per_epoch, 8)
    return build_training_input(
        config, source, phases=[phase], settings=build_settings(config, plan), skipped=log
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:400])


DAMAGE = {
    "truncated": (truncate, "its JPEG data are broken or cut off"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_text("hello"), "it is not an image"),
    "gone": (pathlib.Path.unlink, "the file is gone"),
}


def train_files(photos):
    source = build_source(config_of(photos))
    references = source.references("train", seed=None, buffer=1)
    return [source.name(reference).numpy().decode() for reference in references]


@pytest.mark.slow
def test_the_error_names_the_file_and_what_is_wrong(photos):
    stream = training(photos)
    bad = pathlib.Path(train_files(photos)[11])
    whole = bad.read_bytes()
    truncate(bad)
    done = []
    with pytest.raises(tf.errors.OpError) as error:
        for images, _ in stream.batches().take(100):
            done.append(len(images))
    step = len(done)
    assert step < stream.phases[0].steps_per_epoch
    for damage, words in DAMAGE.values():
        bad.write_bytes(whole)
        damage(bad)
        with pytest.raises(DataError, match=words) as named:
            stream.raise_bad_image(error.value, step=step)
        assert str(bad) in str(named.value) and "\n" not in str(named.value)
        assert "data.on_bad_image=skip" in str(named.value)


def test_an_error_that_is_no_images_is_raised_as_it_is(photos):
    stream = training(photos)
    error = tf.errors.InternalError(None, None, "the machine is on fire")
    with pytest.raises(tf.errors.InternalError, match="on fire"):
        stream.raise_bad_image(error, step=0)


@pytest.mark.slow
def test_skipping_keeps_batches_full_and_counts(photos, tmp_path):
    log = SkippedLog(tmp_path / "bad_images.txt")
    stream = training(photos, log, **{"data.on_bad_image": "skip"})
    files = train_files(photos)
    bad = [pathlib.Path(files[index]) for index in (3, 4, 20, 33)]
    for path, (damage, _) in zip(bad, DAMAGE.values()):
        damage(path)
    steps = 2 * stream.phases[0].steps_per_epoch
    assert steps * 8 == 2 * len(files)  # an epoch leaves no image over
    batches = [(i.numpy(), t.numpy()) for i, t in stream.batches().take(steps)]
    assert [len(images) for images, _ in batches] == [8] * steps
    assert set(log.names()) == {str(path) for path in bad}
    for images, targets in batches:
        shades = (images * 128 + 128).mean((1, 2, 3))
        assert (shades[targets[:, 0] == 1] < 95).all() and (shades[targets[:, 1] == 1] > 95).all()
    again = next(iter(stream.batches(start_step=3)))
    np.testing.assert_array_equal(again[0], batches[3][0])


def test_evaluation_leaves_bad_images_out_or_names_them(photos, tmp_path):
    config = config_of(photos, **{"data.on_bad_image": "skip"})
    source = build_source(config)
    log = SkippedLog(tmp_path / "bad.txt")
    count = source.num_images("test")
    reference = next(iter(source.references("test", seed=None, buffer=1)))
    bad = pathlib.Path(source.name(reference).numpy().decode())
    truncate(bad)
    images = EvaluationInput(config, source, split="test", skipped=log)
    assert sum(len(targets) for _, targets in images.batches()) == count - 1
    assert log.names() == [str(bad)]
    strict = EvaluationInput(config_of(photos), source, split="test")
    with pytest.raises(tf.errors.OpError) as error:
        list(strict.batches())
    with pytest.raises(DataError, match=r"cannot read '.*jpg': its JPEG data are broken"):
        strict.raise_bad_image(error.value)


@pytest.mark.parametrize("cache_mib", [0, 100])
@pytest.mark.parametrize("count", [1, 2])
def test_images_keep_their_numbers_where_others_are_left_out(photos, cache_mib, count):
    """Otherwise the pictures of mistakes would be those of other images."""
    settings = {"data.on_bad_image": "skip", "data.cache_mib": cache_mib, "eval.batch_size": 4}
    config = config_of(photos, **settings)
    source = build_source(config)
    references = list(source.references("test", seed=None, buffer=1))
    names = [pathlib.Path(source.name(reference).numpy().decode()) for reference in references]
    for number in (0, 3):
        truncate(names[number])
    images = EvaluationInput(config, source, split="test", skipped=SkippedLog())
    found = {}
    for index in range(count):
        shard = Shard(index, count)
        place = 0
        for batch, _, is_real in images.padded(shard):
            for image, real in zip(batch.numpy(), is_real.numpy()):
                if real:
                    found[place * count + index] = image
                place += 1
    assert sorted(found) == [n for n in range(len(names)) if n not in (0, 3)]
    numbers = sorted(found, reverse=True)
    for number, image in zip(numbers, images.pick(numbers)):
        np.testing.assert_array_equal(image, found[number])
    shades = [found[n].mean() for n in sorted(found)]
    assert len(set(shades)) == len(shades)


def test_an_estimate_names_the_image_that_it_cannot_read(photos, tmp_path):
    """What a preview prints in place of the time, and not a traceback."""
    for path in photos.rglob("*.jpg"):
        truncate(path)
    settings = {"model.blocks_args": ["r1_k3_s2_e1_i8_o8_c1"], "model.feature_size": 8}
    config = with_facts(config_of(photos, **settings), {"model.num_classes": 2})
    with pytest.raises(DataError, match=r"cannot read '.*jpg': its JPEG data are broken"):
        rehearse(config, build_source(config), tmp_path)


def test_a_missing_place_takes_the_next_readable_image():
    batch = {"a": tf.constant([1, 4]), "b": tf.constant([[10], [40]])}
    filled = fill_gaps(tf.constant([1, 4], tf.int64), batch, batch_size=6)
    assert filled["a"].numpy().tolist() == [1, 1, 4, 4, 4, 1]
    assert filled["b"].numpy()[:, 0].tolist() == [10, 10, 40, 40, 40, 10]


def test_a_batch_without_one_readable_image_is_an_error():
    with pytest.raises(tf.errors.InvalidArgumentError, match="no image of a batch can be read"):
        fill_gaps(tf.zeros([0], tf.int64), tf.zeros([0]), batch_size=2)


@pytest.mark.parametrize("bad", [(), (0,), (4, 5, 9), (0, 1, 2, 3), tuple(range(10))])
def test_what_can_be_prepared_comes_in_batches_with_its_places(bad, tmp_path):
    def prepare(number, reference):
        is_good = tf.reduce_all(tf.not_equal(tf.constant(bad, tf.int64), number))
        with tf.control_dependencies([tf.debugging.Assert(is_good, ["bad"])]):
            return (tf.identity(number), tf.fill([2, 3], reference["index"]))

    log = SkippedLog(tmp_path / "bad.txt")
    references = tf.data.Dataset.range(10).map(lambda number: {"index": 10 * number})
    batches = prepare_readable(
        references.enumerate(),
        prepare,
        batch_size=4,
        drop_remainder=False,
        name=lambda reference: tf.strings.as_string(reference["index"]),
        log=log,
    )
    batches = list(batches)
    good = [[n for n in range(first, min(first + 4, 10)) if n not in bad] for first in (0, 4, 8)]
    assert [p.numpy().tolist() for p, *_ in batches] == [[n % 4 for n in row] for row in good]
    assert [n.numpy().tolist() for _, n, _ in batches] == good
    assert [f[:, 1, 2].numpy().tolist() for *_, f in batches] == [[10 * n for n in r] for r in good]
    assert log.names() == [str(10 * number) for number in bad]


def test_the_repeats_of_an_image_are_logged_together(tmp_path):
    def prepare(reference):
        with tf.control_dependencies([tf.debugging.Assert(reference != 1, ["bad"])]):
            return (tf.identity(reference),)

    log = SkippedLog(tmp_path / "bad.txt")
    batches = prepare_readable(
        tf.data.Dataset.from_tensor_slices([0, 0, 1, 1, 1, 2]),
        prepare,
        batch_size=6,
        drop_remainder=True,
        name=tf.strings.as_string,
        log=log,
    )
    assert [numbers.numpy().tolist() for _, numbers in batches] == [[0, 0, 2]]
    assert log.path.read_text() == "1\n"


def test_names_are_listed_once_in_order(tmp_path):
    log = SkippedLog(tmp_path / "bad.txt")
    assert log.names() == []
    for name in ("b.jpg", "a.jpg", "b.jpg"):
        log.add(tf.constant(name))
    assert log.names() == ["b.jpg", "a.jpg"]
