"""Tables of named rows: lookup, aliases, duplicates, and the nearest known name in every error."""

import re

import pytest

from hparams.errors import UserError
from hparams.registry import Registry, UnknownNameError, did_you_mean


@pytest.fixture
def fruit():
    table = Registry("fruit")
    table.register("apple", 1)
    table.register("banana", 2, aliases=("plantain", "musa"))
    return table


@pytest.mark.parametrize(
    ("name", "row", "canonical"),
    [
        ("apple", 1, "apple"),
        ("Apple", 1, "apple"),
        ("BANANA", 2, "banana"),
        ("plantain", 2, "banana"),
        ("Musa", 2, "banana"),
    ],
)
def test_lookup_knows_aliases_and_no_case(fruit, name, row, canonical):
    assert fruit[name] == row
    assert fruit.canonical(name) == canonical
    assert name in fruit


@pytest.mark.parametrize("name", ["cherry", "", None, 1])
def test_what_is_not_in_the_table(fruit, name):
    assert name not in fruit


def test_rows_are_listed_in_order_without_aliases(fruit):
    assert list(fruit.items()) == [("apple", 1), ("banana", 2)]
    assert len(fruit) == 2


def test_register_returns_its_row():
    row = object()
    assert Registry("thing").register("x", row) is row


def test_get_falls_back_to_its_default(fruit):
    assert fruit.get("cherry", 7) == 7
    assert fruit.get("Plantain", 7) == 2


@pytest.mark.parametrize(
    ("name", "aliases", "taken"),
    [
        ("apple", (), "apple"),
        ("musa", (), "musa"),
        ("cherry", ("banana",), "banana"),
        ("cherry", ("fine", "plantain"), "plantain"),
    ],
)
def test_taken_names_are_refused_and_change_nothing(fruit, name, aliases, taken):
    with pytest.raises(ValueError, match=f"^fruit '{taken}' is already registered$"):
        fruit.register(name, 3, aliases=aliases)
    assert dict(fruit) == {"apple": 1, "banana": 2}
    assert "fine" not in fruit


@pytest.mark.parametrize(("name", "aliases"), [("Cherry", ()), ("merise", ("Cherry",))])
def test_upper_case_is_refused(fruit, name, aliases):
    with pytest.raises(ValueError, match=r"^fruit names are lower case, got 'Cherry'$"):
        fruit.register(name, 3, aliases=aliases)
    assert len(fruit) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aple", "unknown fruit 'aple'; did you mean 'apple'?"),
        ("APLE", "unknown fruit 'APLE'; did you mean 'apple'?"),
        ("plantane", "unknown fruit 'plantane'; did you mean 'plantain'?"),
        ("zzz", "unknown fruit 'zzz'; known: apple, banana, plantain, musa"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(fruit, name, message):
    with pytest.raises(UnknownNameError, match=f"^{re.escape(message)}$"):
        fruit[name]


@pytest.mark.parametrize("name", [None, 5, b"apple", ["apple"], True])
def test_names_are_text(fruit, name):
    message = f"the name of a fruit is text such as 'apple', got {name!r}"
    with pytest.raises(UnknownNameError, match=f"^{re.escape(message)}$"):
        fruit[name]


def test_long_names_are_answered_in_short(fruit):
    with pytest.raises(UnknownNameError) as error:
        fruit["x" * 100_000]
    assert len(str(error.value)) < 200
    assert did_you_mean("zzz", [f"name{n}" for n in range(99)]).endswith(" and 78 more")


@pytest.mark.parametrize("kind", [UserError, KeyError, ValueError])
def test_an_unknown_name_is_a_user_error_and_a_key_error(fruit, kind):
    with pytest.raises(kind, match=r"^unknown fruit 'aple'"):
        fruit.canonical("aple")


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("adm", ("sgd", "adam", "adamw"), "; did you mean 'adam'?"),
        ("adamv", iter(("adamw", "lamb")), "; did you mean 'adamw'?"),
        ("zzz", iter(("adam", "sgd")), "; known: adam, sgd"),
    ],
)
def test_did_you_mean(name, known, expected):
    assert did_you_mean(name, known) == expected
