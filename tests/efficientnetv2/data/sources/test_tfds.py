"""Data sets of TensorFlow Datasets as a source: features, splits, memory, broken files."""

import itertools
from typing import ClassVar

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnetv2.data.sources import build_source
from efficientnetv2.data.sources.tfds import TfdsSource, choose_splits
from efficientnetv2.data.sources.tfds_builders import open_builder
from efficientnetv2.data.sources.tfrecord_files import record_offsets
from hparams import resolve
from hparams.errors import DataError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def builder(data_dir):
    return open_builder("digits", data_dir=str(data_dir))


@pytest.fixture(scope="module")
def digits(builder):
    return TfdsSource(builder)


@pytest.fixture
def copied(builder, data_dir, tmp_path):
    """A builder of digits whose files may be spoilt, and its train file."""
    for path in (data_dir / "digits" / "1.0.0").iterdir():
        (tmp_path / "digits" / "1.0.0").mkdir(parents=True, exist_ok=True)
        (tmp_path / "digits" / "1.0.0" / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "digits" / "1.0.0" / "digits-train.tfrecord-00000-of-00001"
    return open_builder("digits", data_dir=str(tmp_path)), file


def load(source, split, **options):
    options = {"seed": None, "buffer": 1, **options}
    loaded = source.references(split, **options).map(source.load).as_numpy_iterator()
    return [(name.decode(), image, int(label)) for name, image, label in loaded]


@pytest.mark.parametrize("name", ["cifar100", "cars196", "imagenet2012", "oxford_flowers102"])
def test_any_set_with_an_image_and_a_label_will_do(name):
    with tfds.testing.mock_data(num_examples=9):
        source = build_source(resolve("efficientnetv2-b0", name))
        config = resolve("efficientnetv2-b0", name)
        assert source.num_classes == config.model.num_classes
        assert source.num_images(config.data.train_split) == 9
        loaded = load(source, config.data.eval_split)
        assert [name for name, _, _ in loaded] == [
            f"{name} {config.data.eval_split}, example {index}" for index in range(9)
        ]
        assert all(tf.io.decode_image(image).shape[-1] == 3 for _, image, _ in loaded)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_grey_images_stay_grey_and_encoded(name):
    with tfds.testing.mock_data(num_examples=3):
        source = build_source(resolve("efficientnetv2-b0", name))
        for _, image, _ in load(source, "train"):
            assert tf.io.decode_image(image).shape == (28, 28, 1)


class FakeBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder with the features that a test sets."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES: ClassVar = {}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self.FEATURES)
        )

    def _split_generators(self, dl_manager):
        return {}

    def _generate_examples(self):
        yield


IMAGE = tfds.features.Image(shape=(2, 2, 3))
LABEL = tfds.features.ClassLabel(names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("features", "chosen"),
    [
        ({"image": IMAGE, "label": LABEL}, ("image", "label")),
        ({"photo": IMAGE, "species": LABEL, "id": tf.string}, ("photo", "species")),
        ({"image": IMAGE, "mask": IMAGE, "label": LABEL, "coarse": LABEL}, ("image", "label")),
    ],
)
def test_features_are_found_by_name_or_because_there_is_one(features, chosen, tmp_path):
    FakeBuilder.FEATURES = features
    source = TfdsSource(FakeBuilder(data_dir=str(tmp_path)))
    assert (source._image, source._label) == chosen
    assert source.class_names == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            {"image": IMAGE, "text": tfds.features.Text()},
            r"has no features of the type ClassLabel.*: |it has image \(Image\), text \(Text\)",
        ),
        ({"left": IMAGE, "right": IMAGE, "label": LABEL}, "has 2 features of the type Image, and"),
    ],
)
def test_features_that_do_not_fit_are_listed(features, message, tmp_path):
    FakeBuilder.FEATURES = features
    with pytest.raises(DataError, match=message):
        TfdsSource(FakeBuilder(data_dir=str(tmp_path)))


# --- splits


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["train", "validation", "test"], ("train", "validation", "test")),
        (["test", "train"], ("train[10%:]", "train[:10%]", "test")),
        (["train", "validation"], ("train[10%:]", "train[:10%]", "validation")),
        (["train"], ("train[20%:]", "train[:10%]", "train[10%:20%]")),
    ],
)
def test_splits_are_chosen_from_those_there_are(names, chosen):
    assert choose_splits("some", names) == chosen


@pytest.mark.parametrize("names", [["train", "test"], ["train"], ["train", "minival", "test"]])
def test_chosen_splits_share_no_image_and_use_all_of_train(names, builder):
    parts = [
        {(f.filename, f.skip + n) for f in info.file_instructions for n in range(f.take)}
        for info in (builder.info.splits[split] for split in choose_splits("digits", names))
    ]
    for one, other in itertools.combinations(parts, 2):
        assert one and other and not one & other
    used = {place for part in parts for place in part}
    assert len(used) == 1257 + (360 if "test" in names else 0)


def test_a_set_without_train_asks_for_splits():
    message = r"'some' has no split 'train' \(it has dev, test\); set data.train_split,"
    with pytest.raises(DataError, match=message):
        choose_splits("some", ["test", "dev"])


def test_default_splits_are_those_of_the_files(digits):
    assert digits.default_splits == ("train[10%:]", "train[:10%]", "test")


def test_a_mocked_set_has_default_splits():
    with tfds.testing.mock_data(num_examples=4):
        source = TfdsSource(open_builder("tf_flowers"))
        assert source.num_images(source.default_splits[0]) == 4


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("exam", r"'digits' has no split 'exam': .*'minival'"),
        ("train[:5", r"has no split 'train\[:5': Error parsing split"),
        ("train[9999:]", r"has no split 'train\[9999:\]': .*1257 examples"),
        ("train[100%:]", r"split 'train\[100%:\]' of 'digits' holds no image"),
        ("train[20:10]", r"split 'train\[20:10\]' of 'digits' holds no image"),
    ],
)
def test_a_split_that_is_not_there_is_named(split, message, digits):
    with pytest.raises(DataError, match=message) as caught:
        digits.num_images(split)
    assert "\n" not in str(caught.value)


# --- memory and broken files


def test_in_memory_the_files_are_read_once(copied):
    builder, file = copied
    source = TfdsSource(builder, cache_bytes=1 << 20)
    whole = load(source, "train", seed=tf.constant(0, tf.int64))
    file.write_bytes(bytes(file.stat().st_size))
    again = load(source, "train", seed=tf.constant(1, tf.int64))
    assert sorted(again) == sorted(whole) and again != whole
    assert sorted(load(source, "train")) == sorted(whole)


@pytest.mark.parametrize(("split", "share"), [("train", 1), ("train[:100]", 100 / 1257)])
def test_the_limit_of_what_is_kept_in_memory(split, share, copied):
    builder, file = copied
    size = file.stat().st_size * share
    for limit, is_kept in ((size + 1, True), (size - 1, False)):
        source = TfdsSource(builder, cache_bytes=int(limit))
        before = load(source, split)
        data = file.read_bytes()
        file.write_bytes(bytes(len(data)))
        if is_kept:
            assert load(source, split) == before
        else:
            with pytest.raises(tf.errors.DataLossError):
                load(source, split)
        file.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_broken_record_is_found_and_costs_the_rest_of_its_file_at_most(cache_bytes, copied):
    builder, file = copied
    source = TfdsSource(builder, cache_bytes=cache_bytes)
    whole = load(source, "train")
    data = bytearray(file.read_bytes())
    data[record_offsets(file)[1000] + 30] ^= 0xFF
    file.write_bytes(data)
    source = TfdsSource(builder, cache_bytes=cache_bytes)
    with pytest.raises(tf.errors.DataLossError):
        load(source, "train")
    assert source.broken_file("train[5:]") == f"record 1000 of '{file}' is broken"
    assert source.broken_file("test") is None
    assert load(source, "train", skip_broken=True) == whole[:1000]
    order = load(source, "train", seed=tf.constant(2, tf.int64), buffer=9, skip_broken=True)
    assert sorted(order) == sorted(whole[:1000])
