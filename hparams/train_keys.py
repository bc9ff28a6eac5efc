"""Defines the config keys of training: schedules, loss, optimizer and what goes with them."""

from __future__ import annotations

from hparams.choices import LOSSES, NO_PRESET, OPTIMIZERS, PRESETS
from hparams.factors import Key, factor_keys
from hparams.label_kinds import KNOWN_SHARE, METRICS
from hparams.limits import LARGEST_BATCH, LARGEST_SEED, MOST_EPOCHS, MOST_STEPS
from hparams.quantisation import INT8, NOT_QUANTISED
from hparams.recipes import NO_RECIPE, RECIPES

BASE_BATCH = 256  # images, for which train.lr_base is the peak

TRAIN_KEYS: dict[str, Key] = {
    "train.preset": Key(
        "none",
        str,
        "own images: size, length and regularisation of the training are chosen from the images "
        "(auto, fast, best); settings that are given count more",
        choices=(NO_PRESET, *PRESETS),
        table="choices.PRESETS",
    ),
    "train.recipe": Key(
        NO_RECIPE,
        str,
        "settings that belong together (paper, official, torchvision, fast, fixres), instead of "
        "those that come with the data set; settings that are given count more",
        choices=(NO_RECIPE, *RECIPES),
        table="recipes.RECIPES",
    ),
    "train.epochs": Key(350, int, "passes over the training split", low=1, high=MOST_EPOCHS),
    "train.batch_size": Key(
        4096, int, "images per step, over all devices together", low=1, high=LARGEST_BATCH
    ),
    "train.min_steps": Key(
        0,
        int,
        "train for at least this many steps: epochs are added until there are enough",
        low=0,
        high=MOST_STEPS,
    ),
    "train.accumulate": Key(
        1,
        int,
        "microbatches that a batch is split into, run one after the other to save memory",
        low=1,
        high=LARGEST_BATCH,
    ),
    "train.stages": Key(
        4, int, "stages of progressive learning; 1: no progressive learning", low=1, high=1000
    ),
    **factor_keys("train"),
    "train.size_schedule": Key(
        "progressive",
        str,
        "image size in training: grows stage by stage (progressive), is drawn at random (random), "
        "or is always train.isize (fixed)",
        choices=("progressive", "random", "fixed"),
    ),
    "train.size_steps": Key(
        1,
        int,
        "random image sizes: steps between draws; 0: one size per epoch",
        low=0,
        high=MOST_STEPS,
    ),
    "train.stage_rule": Key(
        "paper",
        str,
        "image size of the first stage: data.ibase (paper), or one increment above it (official)",
        choices=("paper", "official"),
    ),
    "train.adaptive_regularisation": Key(
        True,
        bool,
        "regularise small images less; false: as strongly as in the last stage from the start",
    ),
    "train.scale_batch_with_size": Key(
        False,
        bool,
        "larger batches for smaller images, so that all stages have equally many pixels per step",
    ),
    "train.loss_type": Key(
        "softmax",
        str,
        "loss: softmax for one class, or several that share the probability; sigmoid for any "
        "number of classes (mean over them); sigmoid_sum for their sum",
        choices=tuple(LOSSES),
        table="choices.LOSSES",
    ),
    "train.optimizer": Key(
        "rmsprop",
        str,
        "optimizer; rmsprop behaves like TensorFlow 1's, rmsprop_keras like Keras's",
        choices=tuple(OPTIMIZERS),
        table="choices.OPTIMIZERS",
    ),
    "train.momentum": Key(
        0.9, float, "momentum of the optimizers rmsprop and momentum", low=0, high=1
    ),
    "train.rmsprop_decay": Key(
        0.9, float, "rmsprop: decay of the average of squared gradients", low=0, high=1
    ),
    "train.lr_base": Key(
        0.016,
        float,
        "peak learning rate for a batch of 256; proportional to the batch size",
        above=0,
        high=1000,
    ),
    "train.lr_scales": Key(
        [],
        list,
        "learning rate factors for some variables, as expression:factor, for example "
        "[stem:0.1,block1:0.3]; the first regular expression found in layer/variable counts",
    ),
    "train.lr_layer_decay": Key(
        1.0,
        float,
        "factor on the learning rate for each layer between a variable and the classifier; a block "
        "is one layer; 1: the same rate for all",
        above=0,
        high=1,
    ),
    "train.lr_sched": Key(
        "exponential",
        str,
        "how the learning rate falls after the warm-up",
        choices=("exponential", "cosine", "linear", "constant"),
    ),
    "train.lr_decay_factor": Key(
        0.97, float, "exponential schedule: factor of each decay", above=0, high=1
    ),
    "train.lr_decay_epoch": Key(
        2.4, float, "exponential schedule: epochs between decays", above=0, high=MOST_EPOCHS
    ),
    "train.lr_warmup_epoch": Key(
        5.0, float, "epochs of linear warm-up from 0", low=0, high=MOST_EPOCHS
    ),
    "train.lr_min": Key(0.0, float, "the learning rate never falls below this", low=0, high=1000),
    "train.lr_decay_in_warmup": Key(
        False,
        bool,
        "count decay steps from step 0, like the official code, not from the end of the warm-up",
    ),
    "train.ema_decay": Key(
        0.9999,
        float,
        "decay of the moving average (EMA) of weights and BatchNorm statistics; 0: no EMA",
        low=0,
        high=1,
    ),
    "train.weight_decay": Key(
        1e-5,
        float,
        "adamw, lamb and lion: each step shrinks train.weight_decay_vars by this share times the "
        "learning rate; other optimizers: factor of the loss's L2 term over them",
        low=0,
        high=1000,
    ),
    "train.weight_decay_inc": Key(
        0.0,
        float,
        "weight decay grows by this share of itself from the first to the last step",
        low=0,
        high=1_000_000,
    ),
    "train.weight_decay_vars": Key(
        "kernel$", str, "regular expression for layer/variable: the variables with weight decay"
    ),
    "train.varsexp": Key(
        None, str, "regular expression for layer/variable: the variables to train; not set: all"
    ),
    "train.ft_init_ckpt": Key(
        None,
        str,
        "weights to start from: imagenet, imagenet21k, imagenet21k-ft1k, jft, torchvision:NAME, "
        "timm:NAME, keras:NAME, hf://OWNER/NAME, or a path; random: train from scratch",
        is_path=True,
    ),
    "train.quantise": Key(
        NOT_QUANTISED,
        str,
        "fine-tune the run of train.ft_init_ckpt as its 8-bit file will compute (int8), with the "
        "run as teacher and its settings of model and data",
        choices=(NOT_QUANTISED, INT8),
    ),
    "train.teacher": Key(
        None,
        str,
        "trained network to learn from besides the labels (knowledge distillation): a run "
        "directory, the name of a release, or a weights file; not set: none",
        is_path=True,
    ),
    "train.teacher_model": Key(
        None,
        str,
        "registered name of the teacher's network, for a release or a file; not set: that of the "
        "run",
    ),
    "train.distill_temperature": Key(
        4.0,
        float,
        "the teacher's and the network's logits are divided by this before they are compared",
        above=0,
        high=1000,
    ),
    "train.distill_weight": Key(
        0.5,
        float,
        "share of the teacher's term in the loss; the labels have the rest",
        low=0,
        high=1,
    ),
    "train.gclip": Key(
        0.0, float, "clip all gradients together to this norm; 0: no clipping", low=0, high=1e12
    ),
    "train.gclip_per_variable": Key(
        False, bool, "apply train.gclip to each variable's gradient, not to all together"
    ),
    "train.precision": Key(
        "float32",
        str,
        "precision of the network's arithmetic; weights stay float32; float16 uses dynamic loss "
        "scaling; on a CPU, bfloat16 is for convolutions, except depthwise ones, and the "
        "activations after them",
        choices=("float32", "bfloat16", "float16"),
    ),
    "train.label_smoothing": Key(
        0.1, float, "share of the label that is spread evenly over all classes", low=0, high=0.99
    ),
    "train.class_weights": Key(
        [],
        list,
        "weight of each class in the loss: balanced (in inverse proportion to its number of "
        "images), or a number for each class in the order of their names; [] or none: all the same",
        takes_numbers=True,
    ),
    "train.focal_gamma": Key(
        0.0,
        float,
        "focal loss: the loss of a class is multiplied with its missing probability to this power; "
        "0: cross-entropy",
        low=0,
        high=10,
    ),
    "train.logit_adjustment": Key(
        0.0,
        float,
        "strength with which the logarithms of the classes' shares of the images are added to the "
        "logits in training; 0: not",
        low=0,
        high=10,
    ),
    "train.class_counts": Key(
        [],
        list,
        "number of training images of each class; not set: counted, where a setting needs it",
        low=1,
        high=1_000_000_000,
        item=int,
    ),
    "train.profile": Key(
        [0, 0],
        list,
        "first and last step, counted from 1, of a TensorBoard profile; [0,0]: no profile",
        low=0,
        high=MOST_STEPS,
        item=int,
        length=2,
    ),
    "train.best_metric": Key(
        None,
        str,
        "metric on minival by which the best weights are chosen and training stops; not set: top1, "
        "pr_auc for several labels, r2 for numbers",
        choices=tuple(METRICS),
        table="label_kinds.METRICS",
    ),
    "train.min_precision": Key(
        None,
        float,
        "several classes an image: each class's threshold finds as many of its images of minival "
        "as it can with at least this precision; not set: the threshold with the best F1",
        above=0.0,
        high=1.0,
    ),
    "train.known_share": Key(
        KNOWN_SHARE,
        float,
        "share of the minival images that the threshold of unknown images, chosen after the "
        "training, lets pass",
        low=0.0,
        high=1.0,
    ),
    "train.patience": Key(
        0,
        int,
        "traineval: stop after this many epochs without a better minival result; 0: never",
        low=0,
        high=MOST_EPOCHS,
    ),
    "train.seed": Key(
        0,
        int,
        "seed of the initial weights, shuffling, crops and dropout",
        low=0,
        high=LARGEST_SEED,
    ),
}
