"""Every configuration key once: its default, type, range, unit and meaning; out: a ``ConfigDict``.

A default stands here, or for the search in ``search_keys.py``, and nowhere else.
``docs/hparams.md`` is printed from this table (``python -m hparams.document``).
"""

from __future__ import annotations

from ml_collections import config_dict

from hparams.key import Key
from hparams.preprocess import NORMALISATIONS
from hparams.search_keys import SEARCH_KEYS

KEYS: dict[str, Key] = {
    # ------------------------------------------------------------------ model
    "model.model_name": Key("", str, "registered name of the model"),
    "model.family": Key("v2", str, "whose layers", choices=("v1", "v2", "lite", "resnet")),
    "model.preprocess": Key(
        "v2",
        str,
        "how images are cropped for evaluation, resized and normalised",
        choices=tuple(NORMALISATIONS),
    ),
    "model.blocks_args": Key([], list, "one block string a stage, before scaling"),
    "model.width_coefficient": Key(1.0, float, "factor on all channel counts", above=0),
    "model.depth_coefficient": Key(1.0, float, "factor on the repeats of each stage", above=0),
    "model.depth_divisor": Key(8, int, "scaled channel counts are multiples of this", low=1),
    "model.min_depth": Key(8, int, "smallest scaled channel count", low=1),
    "model.round_down_limit": Key(
        1.0, float, "rounding may lower a channel count by at most this share", low=0, high=1
    ),
    "model.fix_head_stem": Key(
        False, bool, "do not scale the stem, the head and the repeats of the end stages (Lite)"
    ),
    "model.feature_size": Key(1280, int, "channels of the head before scaling", low=1),
    "model.act_fn": Key("silu", str, "activation", choices=("silu", "relu", "relu6", "gelu")),
    "model.bn_momentum": Key(0.99, float, "decay of BatchNorm statistics a step", low=0, high=1),
    "model.bn_epsilon": Key(1e-3, float, "BatchNorm epsilon, added to the variance", above=0),
    "model.bn_type": Key(
        "per_replica",
        str,
        "training normalises by the moments of each device's images, or (sync) of all devices'",
        choices=("per_replica", "sync"),
    ),
    "model.bn_mode": Key(
        "train", str, "frozen: keep the moving statistics", choices=("train", "frozen")
    ),
    "model.survival_prob": Key(
        0.8,
        float,
        "stochastic depth: survival probability at the end, linear from 1",
        above=0,
        high=1,
    ),
    "model.dropout_rate": Key(
        0.2, float, "dropout before the classifier, in the last stage", low=0, high=0.99
    ),
    "model.dropout_base": Key(
        None, float, "the same in the first stage; not set: as dropout_rate", low=0, high=0.99
    ),
    "model.num_classes": Key(
        None, int, "number of classes; not set: as many as the data set has", low=1
    ),
    "model.data_format": Key(
        "channels_last",
        str,
        "memory layout; channels_first needs a GPU",
        choices=("channels_last", "channels_first"),
    ),
    # ------------------------------------------------------------------ train
    "train.epochs": Key(350, int, "passes over the training split", low=1),
    "train.batch_size": Key(4096, int, "images a step, over all devices together", low=1),
    "train.min_steps": Key(
        0, int, "train for at least so many steps: further epochs are added", low=0
    ),
    "train.accumulate": Key(
        1, int, "parts of a batch, run one after the other: less memory for large batches", low=1
    ),
    "train.stages": Key(4, int, "stages of progressive learning; 1: none", low=1),
    "train.isize": Key(300, int, "pixels: image size of the last stage", low=1),
    "train.size_schedule": Key(
        "progressive",
        str,
        "image size in training: grows by stage, is drawn anew, or is train.isize throughout",
        choices=("progressive", "random", "fixed"),
    ),
    "train.size_steps": Key(1, int, "random sizes: steps between draws; 0: an epoch", low=0),
    "train.stage_rule": Key(
        "paper",
        str,
        "first stage at data.ibase (paper), or one increment above it (official)",
        choices=("paper", "official"),
    ),
    "train.adaptive_regularisation": Key(
        True, bool, "regularise small images less; false: as the last stage from the start"
    ),
    "train.scale_batch_with_size": Key(
        False, bool, "larger batches for smaller images: as many pixels a step in all stages"
    ),
    "train.loss_type": Key(
        "softmax",
        str,
        "softmax: one class, or several that share the probability; sigmoid: any number of classes "
        "(mean over them); sigmoid_sum: their sum",
        choices=("softmax", "sigmoid", "sigmoid_sum"),
    ),
    "train.optimizer": Key(
        "rmsprop",
        str,
        "optimizer; rmsprop has TensorFlow 1's semantics, rmsprop_keras Keras's",
        choices=("rmsprop", "rmsprop_keras", "sgd", "momentum", "adam", "adamw", "lamb"),
    ),
    "train.momentum": Key(0.9, float, "momentum of rmsprop and momentum", low=0, high=1),
    "train.rmsprop_decay": Key(0.9, float, "rmsprop: decay of squared gradients", low=0, high=1),
    "train.lr_base": Key(0.016, float, "peak learning rate for 256 images a step", above=0),
    "train.lr_scales": Key(
        [],
        list,
        "factors on the learning rate of some variables, regular expression of layer/variable and "
        "factor; the first that is found in a name counts: [stem:0.1,block1:0.3]",
    ),
    "train.lr_sched": Key(
        "exponential",
        str,
        "how the learning rate falls after the warm-up",
        choices=("exponential", "cosine", "linear", "constant"),
    ),
    "train.lr_decay_factor": Key(0.97, float, "exponential: factor a decay", above=0, high=1),
    "train.lr_decay_epoch": Key(2.4, float, "exponential: epochs between decays", above=0),
    "train.lr_warmup_epoch": Key(5.0, float, "epochs of linear warm-up from 0", low=0),
    "train.lr_min": Key(0.0, float, "learning rate never falls below this", low=0),
    "train.lr_decay_in_warmup": Key(
        False,
        bool,
        "count decay steps from step 0, as the official code, not from the warm-up's end",
    ),
    "train.ema_decay": Key(
        0.9999, float, "moving average of weights and BatchNorm statistics; 0: none", low=0, high=1
    ),
    "train.weight_decay": Key(1e-5, float, "factor of the L2 term, on kernels only", low=0),
    "train.weight_decay_inc": Key(
        0.0, float, "weight decay grows by this share of itself from first to last step", low=0
    ),
    "train.weight_decay_vars": Key(
        "kernel$", str, "regular expression of the variables with weight decay, layer/variable"
    ),
    "train.varsexp": Key(
        None, str, "regular expression of the variables to train, layer/variable; not set: all"
    ),
    "train.ft_init_ckpt": Key(
        None,
        str,
        "weights to start from: imagenet, imagenet21k, imagenet21k-ft1k, jft, or a path; random",
    ),
    "train.gclip": Key(0.0, float, "largest norm of all gradients together; 0: any", low=0),
    "train.gclip_per_variable": Key(
        False, bool, "train.gclip is for each variable's gradient, not for all together"
    ),
    "train.precision": Key(
        "float32",
        str,
        "of the network's arithmetic; weights are float32; float16 scales the loss as it goes; "
        "bfloat16 on a CPU is for convolutions, but depthwise ones, and what activates them",
        choices=("float32", "bfloat16", "float16"),
    ),
    "train.label_smoothing": Key(0.1, float, "share of the label spread evenly", low=0, high=0.99),
    "train.profile": Key(
        [0, 0],
        list,
        "first and last step, from 1, of a TensorBoard profile; [0,0]: none",
        low=0,
        item=int,
        length=2,
    ),
    "train.patience": Key(
        0,
        int,
        "traineval: end after so many epochs without a better minival top-1; 0: never",
        low=0,
    ),
    "train.seed": Key(0, int, "seed of initial weights, shuffling, crops and dropout", low=0),
    # ------------------------------------------------------------------ eval
    "eval.batch_size": Key(64, int, "images a step in evaluation and inference", low=1),
    "eval.isize": Key(384, int, "pixels: image size of evaluation and inference", low=1),
    # ------------------------------------------------------------------ data
    "data.ds_name": Key("", str, "registered name of the data set"),
    "data.source": Key(
        "tfds",
        str,
        "TensorFlow Datasets, a folder of images, or ImageNet's TFRecord files",
        choices=("tfds", "folder", "tfrecord"),
    ),
    "data.tfds_name": Key("", str, "its TensorFlow Datasets name"),
    "data.data_dir": Key(
        None, str, "folder of the data; not set: ~/tensorflow_datasets, for TFDS only"
    ),
    "data.multi_label": Key(False, bool, "images have any number of labels (ImageNet-21k)"),
    "data.train_split": Key(None, str, "split to train on; not set: chosen from those there are"),
    "data.minival_split": Key(None, str, "split for model selection; not set: as train_split"),
    "data.eval_split": Key(None, str, "split of the final evaluation; not set: as train_split"),
    "data.on_bad_image": Key(
        "error",
        str,
        "end at an image that cannot be read, or leave it out and count it",
        choices=("error", "skip"),
    ),
    "data.cache_mib": Key(
        256, int, "keep the encoded images of splits up to this size in memory, MiB", low=0
    ),
    "data.service": Key(None, str, "tf.data service that prepares the images: grpc://host:port"),
    "data.service_streams": Key(
        4, int, "parts that the service's workers share out; at least their number", low=1
    ),
    "data.ibase": Key(128, int, "pixels: image size of the first stage", low=1),
    "data.crop_area": Key(
        [0.08, 1.0],
        list,
        "training crops cover this share of the image",
        low=0.0,
        high=1.0,
        item=float,
        length=2,
    ),
    "data.crop_aspect": Key(
        [0.75, 1.3333], list, "width by height of training crops", above=0.0, item=float, length=2
    ),
    "data.flip": Key(True, bool, "mirror half of the training images left to right"),
    "data.eval_crop": Key(
        True, bool, "evaluate on the centre as the model's family does; false: on the whole image"
    ),
    "data.augname": Key(
        "none", str, "augmentation of single images", choices=("none", "randaug", "autoaug")
    ),
    "data.augment_ops": Key(
        "default",
        str,
        "strength relative to the image size, or as the official code with its quirks",
        choices=("default", "official"),
    ),
    "data.randaug_layers": Key(2, int, "RandAugment operations an image", low=0),
    "data.cutout": Key(
        0.0, float, "side of the erased square, as a share of the image's side", low=0, high=1
    ),
    "data.ram": Key(10.0, float, "RandAugment magnitude of the last stage", low=0),
    "data.ram_base": Key(5.0, float, "RandAugment magnitude of the first stage", low=0),
    "data.mixup_base": Key(0.0, float, "mixup's alpha in the first stage", low=0),
    "data.mixup_alpha": Key(0.0, float, "mixup's alpha in the last stage", low=0),
    "data.cutmix_base": Key(0.0, float, "CutMix's alpha in the first stage", low=0),
    "data.cutmix_alpha": Key(0.0, float, "CutMix's alpha in the last stage", low=0),
    "data.shuffle_buffer": Key(16384, int, "encoded images held to shuffle", low=1),
    **SEARCH_KEYS,
    # ------------------------------------------------------------------ runtime
    "runtime.strategy": Key(
        "auto",
        str,
        "devices: auto takes the workers of TF_CONFIG, or all GPUs, or the CPU; none takes one",
        choices=("auto", "none", "cpu", "gpu", "multi_worker", "tpu"),
    ),
    "runtime.xla": Key(False, bool, "compile the training step, once for each image size"),
    "runtime.steps_per_loop": Key(
        1, int, "steps between looks at stop requests and metrics", low=1
    ),
    "runtime.worker_timeout_seconds": Key(
        300, int, "seconds that the workers of TF_CONFIG wait for each other at the start", low=1
    ),
    "runtime.tpu": Key(None, str, "name or grpc:// address; not set: TPU_NAME, or this machine's"),
    "runtime.tpu_zone": Key(None, str, "zone of the TPU; not set: this machine's"),
    "runtime.gcp_project": Key(None, str, "project of the TPU; not set: this machine's"),
    "runtime.tpu_job_name": Key("worker", str, "job name of the TPU's workers"),
    "runtime.keep_checkpoint_max": Key(5, int, "checkpoints kept", low=1),
    "runtime.save_checkpoint_epochs": Key(1, int, "epochs between checkpoints", low=1),
}


def base_config() -> config_dict.ConfigDict:
    """Returns a fresh config of all defaults, with sections as nested ``ConfigDict``s.

    Fields are typed; a key that is not set by default holds a typed placeholder for None.
    """
    config = config_dict.ConfigDict()
    for name, key in KEYS.items():
        section, field = name.split(".")
        if section not in config:
            config[section] = config_dict.ConfigDict()
        default = config_dict.placeholder(key.kind) if key.default is None else key.default
        config[section][field] = list(default) if key.kind is list else default
    return config
