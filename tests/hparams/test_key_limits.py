"""Every key against hostile values: the right value, or one short line within a second."""

import math
import time

import numpy as np
import pytest

from hparams import UserError, resolve
from hparams.keys import KEYS
from hparams.overrides import checked

NUMERIC = {
    name: key for name, key in KEYS.items() if {key.kind, key.item if key.kind is list else None}
    & {int, float}
}  # fmt: skip
NOT_NUMBERS = [
    *(float("nan"), float("inf"), -float("inf"), "nan", "inf", "-Infinity", "abc", True, False),
    *("\u0661\u0662", "\uff11\uff12", "1_000", "0x10", "1e", "e5", ".", "1,5", "1 000", "true"),
    *("12\0", b"12", 1j, {1: 2}, {3}, object(), np.bool_(True), np.array([1, 2]), "9" * 5000 + "."),
]
TOO_LARGE = [1e300, "1e300", 10**30, "1" + "0" * 30, 10**5000, "9" * 5000, -(10**5000), "1e400"]


def given(key, value):
    return [value] * (key.length or 1) if key.kind is list else value


def refusal(name, value):
    start = time.thread_time()
    with pytest.raises(UserError) as error:
        checked(name, value)
    assert time.thread_time() - start < 1
    message = str(error.value)
    assert message.startswith(f"{name} must ")
    assert message.isprintable()
    assert len(message) <= 300
    return message


def test_every_number_has_a_lower_and_an_upper_limit():
    assert len(NUMERIC) > 50
    for name, key in NUMERIC.items():
        assert key.high is not None, name
        assert key.low is not None or key.above is not None, name


@pytest.mark.parametrize("name", NUMERIC)
def test_what_is_no_number_is_refused(name):
    for value in NOT_NUMBERS:
        refusal(name, given(KEYS[name], value))


@pytest.mark.parametrize("name", NUMERIC)
def test_what_no_machine_can_count_is_refused(name):
    for value in TOO_LARGE:
        refusal(name, given(KEYS[name], value))


@pytest.mark.parametrize("name", NUMERIC)
def test_small_numbers_are_taken_or_refused_by_the_limits(name):
    key = KEYS[name]
    kind = key.item if key.kind is list else key.kind
    low = -math.inf if key.low is None else key.low
    above = -math.inf if key.above is None else key.above
    for number in (-1, 0, 1, 2):
        for value in (
            number,
            str(number),
            f"+{number}" if number > 0 else number,
            np.int64(number),
        ):
            if low <= number <= key.high and number > above:
                result = checked(name, given(key, value))
                assert result == given(key, kind(number))
                assert type(result[0] if key.kind is list else result) is kind
            else:
                refusal(name, given(key, value))


@pytest.mark.parametrize("name", [n for n, key in NUMERIC.items() if float in (key.kind, key.item)])
def test_numbers_that_are_0_in_float32_are_refused(name):
    assert "float32" in refusal(name, given(KEYS[name], -1e-50 if KEYS[name].high == 0 else 1e-50))


@pytest.mark.parametrize("name", [n for n, key in NUMERIC.items() if key.default is None])
def test_a_number_that_may_be_unset_takes_empty_text(name):
    assert checked(name, "") is None


@pytest.mark.parametrize("name", [n for n, key in NUMERIC.items() if key.default is not None])
def test_a_number_that_must_be_set_takes_no_empty_text(name):
    refusal(name, given(NUMERIC[name], ""))
    refusal(name, given(NUMERIC[name], None))


@pytest.mark.parametrize("name", [n for n in KEYS if n not in NUMERIC])
def test_other_keys_refuse_what_they_cannot_hold(name):
    key = KEYS[name]
    values = [5, 1.5, float("nan"), 10**5000, b"x", ["x" * 5000, b"x"], {1: 2}, "x\0", object()]
    if key.kind is str:
        values += [True, None] if key.default is not None else [True]
    if key.kind is bool or key.choices:
        values += ["x" * 100_000, "\u0661", 1]
    for value in values:
        refusal(name, value)


@pytest.mark.parametrize(
    "text",
    [
        "train.seed=4294967296",
        "search.seed=4294967296",
        "train.epochs=1e30",
        f"train.epochs={10**30}",
        "eval.isize=1e12",
        f"train.isize={10**12}",
        "model.depth_coefficient=1e9",
        "model.width_coefficient=1e6",
        f"data.randaug_layers={10**9}",
        "data.mixup_alpha=1e300",
        "data.cutmix_base=1e300",
        "model.blocks_args=[r9999999999_k3_s1_e1_i8_o8]",
        "model.blocks_args=[r1_k3_s1_e1_i8_o9999999999]",
        f"model.blocks_args=[r1_k3_s1_e1_i8_o{'9' * 5000}]",
        f"model.blocks_args=[{'|'.join(['r400_k3_s1_e1_i8_o8'] * 2)}]".replace("|", ","),
        "model.blocks_args=[r300_k99_s1_e100_i65536_o65536]",
        "model.width_coefficient=100,model.depth_coefficient=100",
        "model.depth_divisor=65536,model.width_coefficient=100",
        "search.layers=[100]",
        "search.backbone=[r500_k3_s1_e1_i8_o8]",
        f"search.expansions=[{'|'.join(map(str, range(1, 1102)))}]".replace("|", ","),
    ],
)
def test_too_much_for_any_machine(text):
    start = time.thread_time()
    with pytest.raises(UserError) as error:
        resolve("efficientnetv2-s", "digits", text)
    assert time.thread_time() - start < 1
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize(
    "text",
    [
        "train.seed=4294967295,search.seed=4294967295",
        "data.augname=randaug,data.randaug_layers=100,data.mixup_alpha=100,data.ram=100",
        "model.blocks_args=[r500_k3_s1_e1_i8_o8]",
        "train.batch_size=2147483647,eval.isize=16384",
    ],
)
def test_the_largest_that_is_allowed(text):
    resolve("efficientnetv2-s", "digits", text)


@pytest.mark.parametrize("value", ["x" * 1000, ["x"] * 1000, {"a": "x" * 1000}])
def test_echoed_values_are_short(value):
    assert len(refusal("train.epochs", value)) < 200


def test_a_value_that_holds_itself_is_named():
    value = []
    value.append(value)
    assert refusal("train.epochs", value) == "train.epochs must be an int, got [[[...]]]"


def test_a_list_has_at_most_1000_items():
    message = "model.blocks_args must have at most 1000 items, got 1001"
    assert refusal("model.blocks_args", ["x"] * 1001) == message
