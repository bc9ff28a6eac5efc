"""Tests that messages stay short and on one line, whatever they repeat."""

import copy
import pickle

import pytest

from hparams.errors import (
    LONGEST_MESSAGE,
    DataError,
    UserError,
    listed,
    shortened,
    shown,
    tensorflow_message,
)


def holding_itself() -> list:
    values: list = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a'b", '"a\'b"'),
        (3.5, "3.5"),
        (["a", 2], "['a', 2]"),
        (list(range(9)), "[0, 1, 2, 3, ...]"),
        pytest.param(10**5000, "a number of about 5001 digits", id="huge"),
        (-(10**70), "a number of about 71 digits"),
        (holding_itself(), "[[[...]]]"),
        ("x" * 1000, f"'{'x' * 27}...{'x' * 28}'"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
    ],
)
def test_values_are_shown_short(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_nested_values_are_shown_short() -> None:
    value: object = ["x" * 1000]
    for _ in range(30):
        value = [value] * 10
    assert len(shown(value)) <= 120


def test_the_middle_is_left_out() -> None:
    assert shortened("0123456789", limit=10) == "0123456789"
    assert shortened("0123456789", limit=9) == "012...789"


def test_names_beyond_the_limit_are_counted() -> None:
    names = ["adam", "lamb", "sgd"]
    assert listed(names, limit=15) == "adam, lamb, sgd"
    assert listed(names, limit=14) == "adam, lamb and 1 more"
    assert listed(names, limit=1) == "adam and 2 more"
    assert listed([]) == ""


def test_a_message_is_one_line_without_control_characters() -> None:
    error = UserError("cannot read 'a\n  b\x1b[31m\udcff\u202e':\r\nno, <ü>")
    assert str(error) == r"cannot read 'a b\x1b[31m\udcff\u202e': no, <ü>"


def test_a_long_message_keeps_both_ends() -> None:
    error = DataError("cannot read " + "x" * 10_000 + ": give another")
    assert len(str(error)) == LONGEST_MESSAGE
    assert str(error).startswith("cannot read xxx")
    assert str(error).endswith("xxx: give another")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(other), str(other)) == (DataError, str(error))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Input is empty.", "Input is empty."),
        ("{{function_node __wrapped__Decode}} Invalid PNG data [Op:DecodePng]", "Invalid PNG data"),
        (
            "Out of memory\n\t [[{{node a/b}}]]\nHint: try less [Op:f]",
            "Out of memory Hint: try less",
        ),
        ("Lost: [[{{node a}}{{node b}}]] closed", "Lost: closed"),
        ('Socket closed\nAdditional GRPC error information:\n{"a": 1}', "Socket closed"),
        ("", ""),
    ],
)
def test_node_and_operation_names_are_dropped(message: str, expected: str) -> None:
    assert tensorflow_message(message, limit=100) == expected


def test_a_long_message_is_cut_off() -> None:
    assert tensorflow_message("{{node a}} too long", limit=5) == "too l"
