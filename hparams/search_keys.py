"""The configuration keys of the architecture search; out: rows of ``hparams.base.KEYS``.

EfficientNetV2 paper (arXiv 2104.00298), section 3.3: the space, the reward and its exponents, about
10 epochs a network at a reduced size, up to 1,000 networks.
"""

from __future__ import annotations

from hparams.key import Key

SEARCH_KEYS: dict[str, Key] = {
    "search.backbone": Key(
        ["efficientnet-b4"],
        list,
        "a registered model, or block strings: channels and strides of each stage",
    ),
    "search.feature_size": Key(
        None, int, "channels of the head; not set: the backbone's, or model.feature_size", low=1
    ),
    "search.operations": Key(
        ["mbconv", "fused"],
        list,
        "of a stage: mbconv has squeeze-and-excitation of 0.25, fused (Fused-MBConv) has none",
        choices=("mbconv", "fused"),
    ),
    "search.kernels": Key([3, 5], list, "kernel sizes of a stage, odd", low=1, item=int),
    "search.expansions": Key([1, 4, 6], list, "expansion ratios of a stage", low=1, item=int),
    "search.layers": Key(
        [0.5, 1.0, 1.5, 2.0],
        list,
        "layers of a stage, as multiples of the backbone's; halves round up, at least one",
        above=0.0,
        item=float,
    ),
    "search.trials": Key(1000, int, "networks to try, all processes together", low=1),
    "search.epochs": Key(10, int, "epochs of a trial, instead of train.epochs", low=1),
    "search.isize": Key(
        160, int, "pixels: image size of a trial, instead of train.isize and eval.isize", low=1
    ),
    "search.w": Key(-0.07, float, "reward: exponent of the step time", high=0),
    "search.v": Key(-0.05, float, "reward: exponent of the parameters", high=0),
    "search.sampler": Key(
        "rl",
        str,
        "who chooses: rl is a policy trained by REINFORCE, tpe Optuna's",
        choices=("rl", "random", "tpe"),
    ),
    "search.seed": Key(0, int, "seed of the sampler", low=0),
    "search.prune": Key(
        True, bool, "end a trial whose reward after an epoch is below the median of those before it"
    ),
    "search.prune_trials": Key(5, int, "finished trials before the first one is ended", low=1),
    "search.prune_epochs": Key(3, int, "epochs that each trial runs in any case", low=0),
    "search.timed_steps": Key(20, int, "steps that are timed; the median counts", low=1),
    "search.max_spread": Key(
        0.1,
        float,
        "time again, up to three times, where the middle half of the steps spreads over more than "
        "this share of the median",
        above=0,
    ),
    "search.storage": Key(
        None,
        str,
        "where the study is: a URL of SQLAlchemy (postgresql://, mysql://, sqlite:///) or "
        "journal:FILE; not set: search.db in the run directory",
    ),
    "search.study_name": Key("search", str, "name of the study in its storage"),
    "search.keep_weights": Key(False, bool, "keep the checkpoints of finished trials"),
}
