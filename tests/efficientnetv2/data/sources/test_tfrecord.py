"""ImageNet's TFRecord files as a source: splits, counting, parsing, broken and missing files."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.sources import build_source
from efficientnetv2.data.sources.tfrecord import RecordSource
from efficientnetv2.data.sources.tfrecord_files import find_shards, record_offsets
from hparams import resolve
from hparams.errors import DataError


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(value).tolist()))


def example(**features):
    features = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def imagenet(image, label):
    """As imagenet_to_gcs writes it, with some of what we do not need."""
    return example(
        image__encoded=image,
        image__class__label=label,
        image__height=4,
        image__filename=b"n01440764_10026.JPEG",
        image__class__synset=b"n01440764",
    )


def write(path, records):
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def write_shards(root, kind, sizes):
    """Images are ``<kind> <shard> <record>``, labels 1 + record."""
    for shard, size in enumerate(sizes):
        records = [imagenet(f"{kind} {shard} {n}".encode(), 1 + n) for n in range(size)]
        write(root / f"{kind}-{shard:05}-of-{len(sizes):05}", records)
    return root


@pytest.fixture
def root(tmp_path):
    write_shards(tmp_path / "files", "train", [7, 5, 8, 6])
    return write_shards(tmp_path / "files", "validation", [4, 3])


@pytest.fixture(params=[0, 1 << 20], ids=["from the files", "in memory"])
def source(request, root):
    return RecordSource(find_shards(root), num_classes=1000, cache_bytes=request.param)


def load(source, split, **options):
    options = {"seed": None, "buffer": 1, **options}
    loaded = source.references(split, **options).map(source.load).as_numpy_iterator()
    return [(name.decode(), image.decode(), label.tolist()) for name, image, label in loaded]


def spoil(path, record, *, byte=20):
    """Changes one byte of a record's data; its checksum stays."""
    data = bytearray(path.read_bytes())
    data[record_offsets(path)[record] + 12 + byte] ^= 0xFF
    path.write_bytes(data)


def test_minival_is_the_first_train_file(source):
    assert [source.num_images(s) for s in source.default_splits] == [5 + 8 + 6, 7, 4 + 3]
    assert {image.split()[1] for _, image, _ in load(source, "minival")} == {"0"}
    assert {image.split()[1] for _, image, _ in load(source, "train")} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("count", "minival"), [(2, 1), (50, 1), (128, 2), (256, 5), (1000, 20), (1024, 20), (2048, 40)]
)
def test_minival_is_20_files_in_1024(count, minival, tmp_path):
    for index in range(count):
        (tmp_path / f"train-{index:05}-of-{count:05}").touch()
    shards = find_shards(tmp_path)
    together = [*shards["minival"], *shards["train"]]
    assert len(shards["minival"]) == minival
    assert [path.name[6:11] for path in together] == [f"{index:05}" for index in range(count)]
    assert "validation" not in shards


def test_records_come_in_the_files_order_with_name_image_and_label(source):
    # ImageNet's labels count from 1, ours from 0.
    assert load(source, "validation") == [
        (f"validation-0000{shard}-of-00002, record {n}", f"validation {shard} {n}", n)
        for shard, size in enumerate([4, 3])
        for n in range(size)
    ]


def test_labels_out_of_range_stay_out_of_range(tmp_path):
    for index in range(2):
        write(tmp_path / f"train-0000{index}-of-00002", [imagenet(b"", n) for n in (0, 1001)])
    source = RecordSource(find_shards(tmp_path), num_classes=1000)
    assert [label for _, _, label in load(source, "train")] == [-1, 1000]
    assert source.class_names[-1] == "999"


def test_imagenet_21k_has_any_number_of_labels_from_0(tmp_path):
    labels = [[], [0], [21_840, 3, 17]]
    for index in range(2):
        records = [example(id=b"n1_2", image=b"img", labels=these) for these in labels]
        write(tmp_path / f"train-0000{index}-of-00002", records)
    source = RecordSource(find_shards(tmp_path), num_classes=21_841, multi_label=True)
    assert [(image, these) for _, image, these in load(source, "train")] == [
        ("img", these) for these in labels
    ]
    spec = source.references("train", seed=None, buffer=1).map(source.load).element_spec
    assert spec[2] == tf.TensorSpec([None], tf.int64)


def test_shuffling_mixes_files_even_without_a_buffer(tmp_path):
    root = write_shards(tmp_path, "train", [40] * 9)
    source = RecordSource(find_shards(root), num_classes=1000)
    orders = [load(source, "train", seed=tf.constant(s, tf.int64), buffer=1) for s in (6, 7)]
    first = [[image.split()[1] for _, image, _ in order[:8]] for order in orders]
    assert [len(set(files)) for files in first] == [8, 8]
    assert first[0] != first[1]


def test_offsets_are_where_records_begin(root):
    path = root / "train-00002-of-00004"
    offsets = record_offsets(path)
    data = path.read_bytes()
    lengths = [int.from_bytes(data[o : o + 8], "little") for o in offsets]
    bodies = [data[o + 12 : o + 12 + length] for o, length in zip(offsets, lengths)]
    assert bodies == list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert offsets[0] == 0 and offsets[-1] + lengths[-1] + 16 == len(data)


@pytest.mark.parametrize("cut", [1, 4, 30])
def test_a_file_that_is_cut_off_is_named(cut, root, source):
    path = root / "train-00001-of-00004"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=f"'{path}' is cut off, or broken, in record 4"):
        source.num_images("train")
    assert source.num_images("minival") == 7


def test_a_broken_length_is_a_broken_file(root, source):
    path = root / "train-00001-of-00004"
    data = bytearray(path.read_bytes())
    data[record_offsets(path)[2] + 6] = 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"'{path}' is cut off, or broken, in record 2"):
        source.num_images("train")


def test_empty_files_are_named(tmp_path):
    write_shards(tmp_path, "train", [0, 0])
    with pytest.raises(DataError, match="train-00001-of-00002' and the other files of train are"):
        RecordSource(find_shards(tmp_path), num_classes=10).num_images("train")


def test_a_broken_record_is_an_error_and_is_found(root, source):
    spoil(root / "train-00002-of-00004", 5)
    with pytest.raises(tf.errors.DataLossError):
        load(source, "train")
    expected = f"record 5 of '{root / 'train-00002-of-00004'}' is broken"
    assert source.broken_file("train") == expected
    assert source.broken_file("validation") is None


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("record", [0, 4, 7])
def test_skipping_a_broken_record_costs_one_image_which_load_refuses(seed, record, root, source):
    spoil(root / "train-00002-of-00004", record)
    seed = None if seed is None else tf.constant(seed, tf.int64)
    references = source.references("train", seed=seed, buffer=50, skip_broken=True)
    good, bad = [], []
    for reference in references.take(100):
        name = source.name(reference).numpy().decode()
        try:
            good.append(source.load(reference)[1].numpy().decode())
        except tf.errors.InvalidArgumentError:
            bad.append(name)
    assert bad == [f"train-00002-of-00004, record {record}"]
    everything = {f"train {s} {n}" for s, size in ((1, 5), (2, 8), (3, 6)) for n in range(size)}
    assert len(good) == 18 and set(good) == everything - {f"train 2 {record}"}


@pytest.mark.parametrize("skip_broken", [False, True])
def test_in_memory_the_files_are_read_once(skip_broken, root):
    source = RecordSource(find_shards(root), num_classes=1000, cache_bytes=1 << 20)
    options = {"buffer": 5, "skip_broken": skip_broken}
    whole = load(source, "train", seed=tf.constant(0, tf.int64), **options)
    for path in root.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    again = load(source, "train", seed=tf.constant(1, tf.int64), **options)
    assert sorted(again) == sorted(whole) and again != whole


def test_the_limit_of_what_is_kept_in_memory(root):
    size = sum((root / f"train-0000{n}-of-00004").stat().st_size for n in (1, 2, 3))
    for limit, is_kept in ((size, True), (size - 1, False)):
        source = RecordSource(find_shards(root), num_classes=10, cache_bytes=limit)
        source.references("train", seed=None, buffer=1)
        assert bool(source._cached) is is_kept


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no TFRecord files train-00000-of-01024"),
        (["train-0-of-2", "train.tfrecord"], "holds no TFRecord files"),
        (["train-00000-of-00001"], "holds one train file only"),
        (
            [f"train-{n:05}-of-00009" for n in (0, 1, 4, 5, 7)],
            r"train-00002-of-00009' is missing \(4 of the 9 train files are\)",
        ),
        (
            ["train-00000-of-00002", "train-00001-of-00002", "validation-00001-of-00002"],
            r"validation-00000-of-00002' is missing \(1 of the 2",
        ),
        (
            ["train-00000-of-00002", "train-00000-of-00003"],
            r"mixes train-\*-of-00002 and train-\*-of-00003",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_in_one_line(names, message, tmp_path):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message) as caught:
        find_shards(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_named(tmp_path):
    with pytest.raises(DataError, match=r"folder '.*/nowhere' does not exist"):
        find_shards(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"'.*/file' is a file; give the folder"):
        find_shards(tmp_path / "file")


def test_validation_files_alone_can_be_evaluated_on(tmp_path):
    source = RecordSource(find_shards(write_shards(tmp_path, "validation", [3])), num_classes=1000)
    assert source.num_images("validation") == 3
    with pytest.raises(DataError, match="no split 'train'; they have validation"):
        source.num_images("train")


def test_build_source_opens_imagenet_and_21k(root):
    settings = {"data.data_dir": str(root)}
    source = build_source(resolve("efficientnetv2-s", "imagenet_tfrecord", settings))
    assert source.num_classes == 1000
    assert source.num_images("minival") == 7
    assert load(source, "validation")[3][2] == 3
    many = build_source(resolve("efficientnetv2-s", "imagenet21k", settings))
    assert many.num_classes == 21_841
    with pytest.raises(tf.errors.InvalidArgumentError, match="image"):
        load(many, "validation")


def test_records_of_another_format_fail_in_load(source, root):
    write(root / "validation-00000-of-00002", [example(picture=b"")])
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/"):
        load(source, "validation")


def test_every_image_has_one_place_in_every_epoch(source):
    orders = [load(source, "train", seed=tf.constant(s, tf.int64), buffer=3) for s in range(5)]
    for order in orders:
        assert collections.Counter(order) == collections.Counter(orders[0])
