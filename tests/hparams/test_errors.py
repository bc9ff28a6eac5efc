"""Tests how messages of TensorFlow errors are shortened to one line."""

import pytest

from hparams.errors import tensorflow_message


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
