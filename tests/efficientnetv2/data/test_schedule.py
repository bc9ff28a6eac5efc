"""Settings by step: the same row inside a graph, inside a ``Dataset`` and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from efficientnetv2.data.schedule import SettingsSchedule, StepSettings

FIRST = [0, 5, 6, 20]
ROWS = [
    (128, 5.0, 0.0, 0.3, 0.1, 64),
    (184, 8.25, 0.1, 0.2, 0.15, 32),
    (240, 11.5, 0.2, 0.1, 0.2, 16),
    (300, 15.0, 0.5, 0.0, 0.3, 8),
]
STEPS = [0, 1, 4, 5, 6, 7, 19, 20, 21, 39, 1_000_000_000_000]  # the last is beyond any training
ROW_OF = [0, 0, 0, 1, 2, 2, 2, 3, 3, 3, 3]
DTYPES = [tf.int32, *[tf.float32] * 4, tf.int32]


@pytest.fixture
def schedule() -> SettingsSchedule:
    columns = (np.array(column) for column in zip(*ROWS))
    return SettingsSchedule(np.array(FIRST, np.int64), StepSettings(*columns))


def values(settings: StepSettings) -> list[tf.Tensor]:
    return list(settings.asdict().values())


def expected() -> np.ndarray:
    return np.array(ROWS, np.float32)[ROW_OF]


def test_a_row_holds_from_its_first_step_on(schedule: SettingsSchedule) -> None:
    made = [values(schedule.at(tf.constant(step, tf.int64))) for step in STEPS]
    np.testing.assert_array_equal(np.array(made, np.float32), expected())


def test_settings_are_int32_and_float32_scalars(schedule: SettingsSchedule) -> None:
    settings = values(schedule.at(tf.constant(3, tf.int64)))
    assert [value.dtype for value in settings] == DTYPES
    assert {tuple(value.shape) for value in settings} == {()}


def test_a_function_that_reads_the_step_is_traced_once(schedule: SettingsSchedule) -> None:
    step, traces = tf.Variable(0, dtype=tf.int64), []

    @tf.function
    def read() -> list[tf.Tensor]:
        traces.append(1)
        return values(schedule.at(step))

    made = []
    for number in STEPS:
        step.assign(number)
        made.append(read())
    np.testing.assert_array_equal(np.array(made, np.float32), expected())
    assert len(traces) == 1


def test_a_dataset_of_steps_has_the_same_settings(schedule: SettingsSchedule) -> None:
    steps, traces = tf.data.Dataset.from_tensor_slices(tf.constant(STEPS, tf.int64)), []

    def read(step: tf.Tensor) -> dict[str, tf.Tensor]:
        traces.append(1)
        return schedule.at(step).asdict()

    settings = steps.map(read, num_parallel_calls=2)
    rows = [[element[name] for name in StepSettings.names()] for element in settings]
    np.testing.assert_array_equal(np.array(rows, np.float32), expected())
    assert len(traces) == 1
    spec = settings.element_spec
    assert set(spec) == set(StepSettings.names())
    specs = [spec[name] for name in StepSettings.names()]
    assert [(value.shape.as_list(), value.dtype) for value in specs] == [([], d) for d in DTYPES]


def test_one_row_holds_throughout() -> None:
    rows = StepSettings(*(np.array([value]) for value in ROWS[1]))
    schedule = SettingsSchedule(np.array([0], np.int64), rows)
    for step in (0, 1, 10**12):
        settings = values(schedule.at(tf.constant(step, tf.int64)))
        np.testing.assert_allclose(settings, ROWS[1], rtol=1e-7)
    assert schedule.mean(0, 10**4) == dict(zip(StepSettings.names(), ROWS[1]))


@pytest.mark.parametrize(
    ("first_step", "end_step"), [(0, 5), (0, 1), (0, 6), (4, 7), (3, 21), (19, 20), (18, 50)]
)
def test_the_mean_weighs_each_step_alike(
    schedule: SettingsSchedule, first_step: int, end_step: int
) -> None:
    rows = [ROWS[sum(step >= first for first in FIRST) - 1] for step in range(first_step, end_step)]
    mean = schedule.mean(first_step, end_step)
    assert list(mean) == list(StepSettings.names())
    np.testing.assert_allclose(list(mean.values()), np.mean(rows, axis=0), rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 5, 306, 1000])
def test_the_mean_of_steps_alike_is_their_value_to_the_letter(steps: int) -> None:
    strengths = (0.1, 0.2, 0.3, 1 / 3)
    rows = StepSettings(*(np.array([value]) for value in (128, *strengths, 64)))
    mean = SettingsSchedule(np.array([0], np.int64), rows).mean(7, 7 + steps)
    assert tuple(mean.values()) == (128, *strengths, 64)
    assert {type(mean[name]) for name in ("image_size", "batch_size")} == {int}
