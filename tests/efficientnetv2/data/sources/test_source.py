"""Every kind of source: each image once, in an order that is a function of the seed alone."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from efficientnetv2.data.sources import Source, build_source
from hparams import ConfigError, resolve
from hparams.errors import DataError

GREY = tf.io.encode_png(np.zeros([2, 2, 1], np.uint8)).numpy()


def make_photos(root):
    for name in ("cat", "dog", "eel"):
        (root / name).mkdir(parents=True)
        for number in range(50):
            (root / name / f"{number}.png").write_bytes(GREY + bytes([number]))
    return {"data.data_dir": str(root)}


def make_records(root):
    root.mkdir()
    for kind, count in (("train", 6), ("validation", 1)):
        for shard in range(count):
            path = root / f"{kind}-{shard:05}-of-{count:05}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for number in range(20 + shard):
                    writer.write(example(GREY, label=1 + number))
    return {"data.data_dir": str(root)}


def example(image, *, label):
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


# kind -> data set, what makes its files, further settings, images in the split train
KINDS = {
    "folder": ("folder", make_photos, {}, 120),
    "tfds": ("digits", lambda root: {"data.data_dir": str(root)}, {"data.cache_mib": 0}, 1257),
    "tfds in memory": ("digits", lambda root: {"data.data_dir": str(root)}, {}, 1257),
    "mocked tfds": ("cifar10", lambda root: {}, {"data.train_split": "train"}, 70),
    "tfrecord": ("imagenet_tfrecord", make_records, {"data.cache_mib": 0}, 115),
    "tfrecord in memory": ("imagenet_tfrecord", make_records, {}, 115),
}


FILES = [kind for kind in KINDS if "mock" not in kind]  # a mocked set is a Python generator


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def source(kind, tmp_path_factory):
    name, make, settings, _ = KINDS[kind]
    folder = tmp_path_factory.mktemp("data") / "files"
    with tfds.testing.mock_data(num_examples=70) if "mock" in kind else tf.name_scope("none"):
        yield build_source(resolve("efficientnetv2-b0", name, make(folder), settings))


def names(source, dataset):
    """What ``dataset``'s references refer to, in order."""
    batches = dataset.map(source.name).batch(1000).as_numpy_iterator()
    return [name.decode() for batch in batches for name in batch]


def epochs(source, seeds, *, buffer=1000, **options):
    """The names in one order a seed, as a pipeline draws them: inside a traced function."""
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(seeds, tf.int64)).flat_map(
        lambda seed: source.references("train", seed=seed, buffer=buffer, **options)
    )
    together = names(source, dataset)
    count = source.num_images("train")
    assert len(together) == count * len(seeds)
    return [together[start : start + count] for start in range(0, len(together), count)]


@pytest.fixture(scope="module")
def fixed(source):
    """The names in the order without a seed."""
    return names(source, source.references("train", seed=None, buffer=1))


def test_it_is_a_source_with_classes(source):
    assert isinstance(source, Source)
    assert source.num_classes == len(source.class_names) >= 3


def test_images_are_counted(kind, source):
    assert source.num_images("train") == KINDS[kind][3]


def test_without_a_seed_the_order_is_fixed(source, fixed):
    assert names(source, source.references("train", seed=None, buffer=1)) == fixed
    assert len(set(fixed)) == len(fixed) == source.num_images("train")


@pytest.mark.parametrize(("buffer", "skip_broken"), [(7, True), (10_000, False)])
def test_every_seed_gives_each_image_once_in_its_own_order(buffer, skip_broken, source, fixed):
    options = {"buffer": buffer, "skip_broken": skip_broken}
    first, second, again = epochs(source, [5, 1_000_003, 5], **options)
    assert sorted(first) == sorted(second) == sorted(fixed)
    assert first == again
    for one, other in ((first, second), (first, fixed), (second, fixed)):
        assert np.mean([a == b for a, b in zip(one, other)]) < (0.5 if buffer == 7 else 0.1)


def test_the_programs_global_seed_has_no_say(source):
    orders = []
    for global_seed in (1, 2):
        tf.random.set_seed(global_seed)
        orders += epochs(source, [3])
    assert orders[0] == orders[1]


def test_shuffling_leaves_the_programs_global_seed_alone(source):
    drawn = []
    for shuffles in (False, True):
        tf.random.set_seed(9)
        if shuffles:
            source.references("train", seed=tf.constant(4, tf.int64), buffer=10)
        drawn.append(float(tf.random.uniform([])))
    assert drawn[0] == drawn[1]


def test_a_large_buffer_or_memory_shuffles_perfectly(kind, source, fixed):
    place = {name: index for index, name in enumerate(fixed)}
    buffer = 5 if kind in ("folder", "tfds in memory", "tfrecord in memory") else 2000
    for order in epochs(source, [1, 2, 3], buffer=buffer):
        correlation = np.corrcoef([place[name] for name in order], range(len(order)))[0, 1]
        assert abs(correlation) < 4 / len(order) ** 0.5  # 4 standard deviations


def test_load_gives_the_name_the_encoded_image_and_the_label(source, fixed):
    references = source.references("train", seed=None, buffer=1)
    loaded = list(references.map(source.load).as_numpy_iterator())
    assert [name.decode() for name, _, _ in loaded] == fixed
    assert {label.dtype for _, _, label in loaded} == {np.dtype("int64")}
    assert len({int(label) for _, _, label in loaded}) >= 3
    assert tf.io.decode_image(loaded[0][1]).dtype == tf.uint8


@pytest.mark.parametrize("kind", FILES, indirect=True)
def test_a_graph_of_it_works_elsewhere(source):
    dataset = tf.data.Dataset.range(2).flat_map(
        lambda seed: source.references("minival", seed=seed, buffer=50).map(source.load)
    )
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(dataset), external_state_policy=1
    )
    definition = tf.compat.v1.GraphDef.FromString(graph.numpy())
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    assert not [node.op for node in nodes if "PyFunc" in node.op]
    copy = tf.data.experimental.from_variant(
        tf.raw_ops.DatasetFromGraph(graph_def=graph), dataset.element_spec
    )
    assert list(copy.as_numpy_iterator()) == list(dataset.as_numpy_iterator()) != []


@pytest.mark.parametrize("kind", FILES, indirect=True)
def test_an_unknown_split_is_named(source):
    with pytest.raises(DataError, match=r"no split 'nope'.*\bminival\b"):
        source.num_images("nope")
    with pytest.raises(DataError, match="no split 'nope'"):
        source.references("nope", seed=None, buffer=1)


def test_whole_files_have_no_broken_record(source):
    assert source.broken_file("train") is None


def test_a_folder_of_classes_has_one_label_an_image(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    settings = {"data.multi_label": True, "train.loss_type": "sigmoid"}
    config = resolve("efficientnetv2-b0", "folder", {"data.data_dir": str(tmp_path)}, settings)
    message = r"have one class each, but data.multi_label=True, train.loss_type=sigmoid is for any"
    with pytest.raises(DataError, match=message):
        build_source(config)


@pytest.mark.parametrize(
    "settings",
    [{"data.multi_label": True, "train.loss_type": "sigmoid"}, {"train.loss_type": "mae"}],
)
def test_tensorflow_datasets_have_one_label_an_image(settings):
    with pytest.raises(ConfigError, match="TensorFlow Datasets have one class an image here"):
        resolve("efficientnetv2-b0", "digits", {"train.label_smoothing": 0.0, **settings})
