"""The types of a config's sections, for editors and mypy.

Written by ``python -m hparams.document --types``. At run time a config is an immutable
``ml_collections.FrozenConfigDict``, which knows no types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol


class Section(Protocol):
    """What all sections have in common."""

    def __getitem__(self, key: str) -> Any: ...
    def __iter__(self) -> Iterator[str]: ...

    def items(self) -> Any:
        """Returns pairs of key and value."""

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts."""


class ModelSection(Section, Protocol):
    """The keys model.*; see ``hparams.keys``."""

    model_name: str
    family: Literal["v1", "v2", "lite", "resnet"]
    preprocess: str
    channels: int
    pixel_mean: tuple[float, ...]
    pixel_deviation: tuple[float, ...]
    blocks_args: tuple[str, ...]
    width_coefficient: float
    depth_coefficient: float
    depth_divisor: int
    min_depth: int
    round_down_limit: float
    fix_head_stem: bool
    feature_size: int
    act_fn: Literal["silu", "relu", "relu6", "gelu"]
    bn_momentum: float
    bn_epsilon: float
    padding: Literal["same", "torch"]
    bn_type: Literal["per_replica", "sync"]
    bn_mode: Literal["train", "frozen"]
    survival_prob: float
    dropout_rate: float
    dropout_base: float | None
    num_classes: int
    target_mean: tuple[float, ...]
    target_deviation: tuple[float, ...]
    data_format: Literal["channels_last", "channels_first"]


class TrainSection(Section, Protocol):
    """The keys train.*; see ``hparams.keys``."""

    preset: str
    recipe: str
    epochs: int
    batch_size: int
    min_steps: int
    accumulate: int
    stages: int
    isize: int
    size_schedule: Literal["progressive", "random", "fixed"]
    size_steps: int
    stage_rule: Literal["paper", "official"]
    adaptive_regularisation: bool
    scale_batch_with_size: bool
    loss_type: str
    optimizer: str
    momentum: float
    rmsprop_decay: float
    lr_base: float
    lr_scales: tuple[str, ...]
    lr_layer_decay: float
    lr_sched: Literal["exponential", "cosine", "linear", "constant"]
    lr_decay_factor: float
    lr_decay_epoch: float
    lr_warmup_epoch: float
    lr_min: float
    lr_decay_in_warmup: bool
    ema_decay: float
    weight_decay: float
    weight_decay_inc: float
    weight_decay_vars: str
    varsexp: str | None
    ft_init_ckpt: str | None
    quantise: Literal["none", "int8"]
    teacher: str | None
    teacher_model: str | None
    distill_temperature: float
    distill_weight: float
    gclip: float
    gclip_per_variable: bool
    precision: Literal["float32", "bfloat16", "float16"]
    label_smoothing: float
    class_weights: tuple[str, ...]
    focal_gamma: float
    logit_adjustment: float
    class_counts: tuple[int, ...]
    profile: tuple[int, ...]
    best_metric: str | None
    min_precision: float | None
    known_share: float
    patience: int
    seed: int


class EvalSection(Section, Protocol):
    """The keys eval.*; see ``hparams.keys``."""

    batch_size: int
    isize: int
    crop_pct: float | None


class DataSection(Section, Protocol):
    """The keys data.*; see ``hparams.keys``."""

    ds_name: str
    source: Literal["tfds", "folder", "tfrecord"]
    tfds_name: str
    data_dir: str | None
    path_column: str | None
    label_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    split_column: str | None
    group_column: str | None
    fold: str | None
    leave_out: tuple[str, ...]
    weight_column: str | None
    multi_label: bool
    sampling: Literal["natural", "sqrt", "balanced"]
    train_split: str
    minival_split: str
    eval_split: str
    on_bad_image: Literal["error", "skip"]
    cache_mib: int
    service: str | None
    service_streams: int
    crop_area: tuple[float, ...]
    crop_aspect: tuple[float, ...]
    flip: bool
    vertical_flip: bool
    quarter_turns: bool
    rotate: float
    color_jitter: tuple[float, ...]
    resize: str
    augname: str
    augment_ops: Literal["default", "official"]
    randaug_layers: int
    cutout: float
    random_erasing: float
    repeats: int
    ibase: int
    ram: float
    ram_base: float
    mixup_alpha: float
    mixup_base: float
    cutmix_alpha: float
    cutmix_base: float
    shuffle_buffer: int


class SearchSection(Section, Protocol):
    """The keys search.*; see ``hparams.keys``."""

    backbone: tuple[str, ...]
    feature_size: int | None
    operations: tuple[Literal["mbconv", "fused"], ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    layers: tuple[float, ...]
    space: tuple[str, ...]
    trials: int
    epochs: int
    isize: int
    w: float
    v: float
    sampler: Literal["rl", "random", "tpe"] | None
    seed: int
    prune: bool
    prune_trials: int
    prune_epochs: int
    timed_steps: int
    max_spread: float
    storage: str | None
    study_name: str
    keep_weights: bool


class RuntimeSection(Section, Protocol):
    """The keys runtime.*; see ``hparams.keys``."""

    strategy: Literal["auto", "none", "cpu", "gpu", "multi_worker", "tpu"]
    xla: bool
    steps_per_loop: int
    worker_timeout_seconds: int
    tpu: str | None
    tpu_zone: str | None
    gcp_project: str | None
    tpu_job_name: str
    keep_checkpoint_max: int
    save_checkpoint_epochs: int


class Config(Section, Protocol):
    """A whole config."""

    model: ModelSection
    train: TrainSection
    eval: EvalSection
    data: DataSection
    search: SearchSection
    runtime: RuntimeSection
