"""Defines the config keys of the data: where images and labels are, and what is done to them."""

from __future__ import annotations

from hparams.choices import AUGMENTATIONS, NATURAL_SAMPLING, RESIZES, SAMPLINGS
from hparams.factors import Key, factor_keys

DATA_KEYS: dict[str, Key] = {
    "data.ds_name": Key("", str, "registered name of the data set"),
    "data.source": Key(
        "tfds",
        str,
        "where the images come from: TensorFlow Datasets, a folder or table of your own, or "
        "ImageNet's TFRecord files",
        choices=("tfds", "folder", "tfrecord"),
    ),
    "data.tfds_name": Key("", str, "name of the data set in TensorFlow Datasets"),
    "data.data_dir": Key(
        None,
        str,
        "folder of the data, or a table of labels; not set: ~/tensorflow_datasets (TFDS only)",
        is_path=True,
    ),
    "data.path_column": Key(
        None, str, "column of a table that names the image files; not set: path, file, image, ..."
    ),
    "data.label_columns": Key(
        [],
        list,
        "columns of a table with the labels: one of names, or one of 0 and 1 for each class; not "
        "set: label, or labels (several names, separated by a bar)",
    ),
    "data.target_columns": Key(
        [],
        list,
        "columns of a table with the numbers to be predicted; not set: target, target_1, ...",
    ),
    "data.split_column": Key(
        None, str, "column of a table with train, val or test; not set: split, if there is one"
    ),
    "data.group_column": Key(
        None,
        str,
        "column of a table whose equal values stay in one split, such as a patient; not set: "
        "group, if there is one",
    ),
    "data.fold": Key(
        None,
        str,
        "part of your own images that is held out to evaluate on: 2/5 is the second of five folds; "
        "not set: the test split",
    ),
    "data.leave_out": Key(
        [],
        list,
        "classes of your own images that are not trained on; evaluation tells whether their images "
        "are recognised as unknown",
        takes_numbers=True,
    ),
    "data.weight_column": Key(
        None,
        str,
        "column of a table with the weights of the images in the loss; not set: weight, if there "
        "is one",
    ),
    "data.multi_label": Key(
        False, bool, "images may have any number of labels (ImageNet-21k, tables)"
    ),
    "data.sampling": Key(
        NATURAL_SAMPLING,
        str,
        "how often an epoch draws each class: as often as it has images (natural), as the root of "
        "that (sqrt), or all equally often (balanced)",
        choices=tuple(SAMPLINGS),
    ),
    "data.train_split": Key(
        None, str, "split to train on; not set: chosen from the available splits"
    ),
    "data.minival_split": Key(
        None, str, "split for model selection; not set: chosen from the available splits"
    ),
    "data.eval_split": Key(
        None, str, "split of the final evaluation; not set: chosen from the available splits"
    ),
    "data.on_bad_image": Key(
        "error",
        str,
        "what to do with an image that cannot be read: stop (error), or leave it out and count it "
        "(skip)",
        choices=("error", "skip"),
    ),
    "data.cache_mib": Key(
        256,
        int,
        "MiB: splits of up to this encoded size are kept in memory, and images of an evaluation of "
        "up to this size as the network gets them",
        low=0,
        high=1_000_000_000,
    ),
    "data.service": Key(None, str, "tf.data service that prepares the images, as grpc://host:port"),
    "data.service_streams": Key(
        4,
        int,
        "streams that the workers of data.service share; at least as many as workers",
        low=1,
        high=10_000,
    ),
    "data.crop_area": Key(
        [0.08, 1.0],
        list,
        "smallest and largest share of the image that a training crop covers",
        low=0.0,
        high=1.0,
        item=float,
        length=2,
    ),
    "data.crop_aspect": Key(
        [0.75, 1.3333],
        list,
        "smallest and largest aspect ratio (width / height) of training crops",
        above=0.0,
        high=100.0,
        item=float,
        length=2,
    ),
    "data.flip": Key(True, bool, "mirror half of the training images left to right"),
    "data.vertical_flip": Key(
        False,
        bool,
        "mirror half of the training images top to bottom: for images without an up, such as those "
        "of microscopes and satellites",
    ),
    "data.quarter_turns": Key(
        False,
        bool,
        "turn training images by 0, 90, 180 or 270 degrees, all equally often: exact, each pixel "
        "keeps its value",
    ),
    "data.rotate": Key(
        0.0,
        float,
        "degrees: training images are turned by up to so much to either side (bilinear, grey "
        "outside); 180: by any angle",
        low=0,
        high=180,
    ),
    "data.color_jitter": Key(
        [0.0],
        list,
        "change of brightness, contrast and saturation: each is multiplied by a factor from 1 - x "
        "to 1 + x, drawn for each image; one number for all, or three; a fourth turns the hue by "
        "up to so much of the colour circle (at most 0.5); 0: none",
        low=0,
        high=1,
        item=float,
        takes_one=True,
    ),
    "data.resize": Key(
        "published",
        str,
        "how an image that is not square becomes a square: "
        + "; ".join(f"{row.text} ({name})" for name, row in RESIZES.items()),
        choices=tuple(RESIZES),
        table="choices.RESIZES",
    ),
    "data.augname": Key(
        "none",
        str,
        f"augmentation of single images: {', '.join(AUGMENTATIONS)}",
        choices=tuple(AUGMENTATIONS),
        table="choices.AUGMENTATIONS",
    ),
    "data.augment_ops": Key(
        "default",
        str,
        "augmentation strength relative to the image size (default), or as in the official "
        "code, quirks included (official)",
        choices=("default", "official"),
    ),
    "data.randaug_layers": Key(2, int, "RandAugment operations per image", low=0, high=100),
    "data.cutout": Key(
        0.0,
        float,
        "Cutout: side of the erased square, as a share of the image's side; 0: no Cutout",
        low=0,
        high=1,
    ),
    "data.random_erasing": Key(
        0.0,
        float,
        "probability of erasing a rectangle of a training image, 2% to 33% of its area",
        low=0,
        high=1,
    ),
    "data.repeats": Key(
        1,
        int,
        "repeated augmentation: how often in a row an epoch has each image, augmented anew each "
        "time; it keeps its number of steps, so it has so many times fewer images",
        low=1,
        high=1000,
    ),
    **factor_keys("data"),
    "data.shuffle_buffer": Key(
        16384, int, "encoded images held in memory for shuffling", low=1, high=10_000_000
    ),
}
