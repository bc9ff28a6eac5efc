"""Defines the config keys of searches: for networks as in paper section 3.3, and for settings.

The search space, the reward and its exponents, up to 1,000 networks, and about 10 epochs each at a
reduced image size.
"""

from __future__ import annotations

from hparams.factors import Key
from hparams.limits import LARGEST_IMAGE, LARGEST_SEED, MOST_CHANNELS, MOST_EPOCHS

SEARCH_KEYS: dict[str, Key] = {
    "search.backbone": Key(
        ["efficientnet-b4"],
        list,
        "a registered model or block strings, which set the channels and strides of each stage",
    ),
    "search.feature_size": Key(
        None,
        int,
        "channels of the head; not set: those of the backbone model, or model.feature_size for "
        "block strings",
        low=1,
        high=MOST_CHANNELS,
    ),
    "search.operations": Key(
        ["mbconv", "fused"],
        list,
        "operations to choose from for each stage: mbconv has squeeze-and-excitation (ratio 0.25), "
        "fused (Fused-MBConv) has none",
        choices=("mbconv", "fused"),
    ),
    "search.kernels": Key(
        [3, 5], list, "kernel sizes to choose from for each stage, odd", low=1, high=99, item=int
    ),
    "search.expansions": Key(
        [1, 4, 6], list, "expansion ratios to choose from for each stage", low=1, high=100, item=int
    ),
    "search.layers": Key(
        [0.5, 1.0, 1.5, 2.0],
        list,
        "numbers of layers to choose from for each stage, as multiples of the backbone's; "
        "rounded, halves up, to at least one layer",
        above=0.0,
        high=100.0,
        item=float,
    ),
    "search.space": Key(
        [],
        list,
        "search for settings, not for a network: keys and what to choose from, for example "
        "[train.lr_base:0.001..0.1:log,data.randaug_layers:1..3]; docs/search.md has all forms",
    ),
    "search.trials": Key(
        1000, int, "number of trials, over all processes together", low=1, high=1_000_000
    ),
    "search.epochs": Key(
        10, int, "epochs per trial, in place of train.epochs", low=1, high=MOST_EPOCHS
    ),
    "search.isize": Key(
        160,
        int,
        "pixels: image size of a trial, in place of train.isize and eval.isize",
        low=1,
        high=LARGEST_IMAGE,
    ),
    "search.w": Key(-0.07, float, "exponent of the step time in the reward", high=0, low=-10),
    "search.v": Key(
        -0.05, float, "exponent of the number of parameters in the reward", high=0, low=-10
    ),
    "search.sampler": Key(
        None,
        str,
        "how trials are chosen: rl is a policy trained by REINFORCE, tpe is Optuna's; not set: rl "
        "for networks, tpe for search.space",
        choices=("rl", "random", "tpe"),
    ),
    "search.seed": Key(0, int, "seed of the sampler", low=0, high=LARGEST_SEED),
    "search.prune": Key(
        True,
        bool,
        "stop a trial early if its reward after an epoch is below the median of earlier trials",
    ),
    "search.prune_trials": Key(
        5, int, "trials that must finish before one may be stopped early", low=1, high=1_000_000
    ),
    "search.prune_epochs": Key(
        3,
        int,
        "epochs that every trial runs before it may be stopped early",
        low=0,
        high=MOST_EPOCHS,
    ),
    "search.timed_steps": Key(
        20, int, "training steps to time; their median counts", low=1, high=1_000_000
    ),
    "search.max_spread": Key(
        0.1,
        float,
        "repeat the timing, up to three rounds in all, while the middle half of the step times "
        "spreads over more than this share of their median",
        above=0,
        high=100,
    ),
    "search.storage": Key(
        None,
        str,
        "where the study is stored: an SQLAlchemy URL (postgresql://, mysql://, sqlite:///) or "
        "journal:FILE; not set: search.db in the run directory",
    ),
    "search.study_name": Key("search", str, "name of the study in its storage"),
    "search.keep_weights": Key(False, bool, "keep the checkpoints of finished trials"),
}
