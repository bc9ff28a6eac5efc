"""Tests which settings must be the same on every worker."""

import pytest

from efficientnetv2.train.workers import settings_checksum
from hparams.resolve import resolve


def checksum(**overrides: object) -> dict[str, int]:
    return settings_checksum(resolve("efficientnetv2-b0", "digits", overrides))


@pytest.mark.parametrize(
    "override",
    [
        {"runtime.steps_per_loop": 2},
        {"runtime.save_checkpoint_epochs": 3},
        {"runtime.xla": True},
        {"train.seed": 1},
        {"eval.batch_size": 3},
    ],
)
def test_a_worker_that_would_step_save_or_count_otherwise_is_found(override: dict) -> None:
    assert checksum(**override) != checksum()


@pytest.mark.parametrize(
    "override",
    [
        {"runtime.worker_timeout_seconds": 5},
        {"runtime.tpu": "here"},
        {"data.data_dir": "/mnt/images"},
        {"data.cache_mib": 1},
    ],
)
def test_each_machine_has_its_own_places(override: dict) -> None:
    assert checksum(**override) == checksum()
