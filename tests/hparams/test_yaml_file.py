"""YAML files: what they may hold, and that bombs, loops and repeated keys are refused at once."""

import time

import pytest

from hparams import ConfigError, resolve
from hparams.yaml_file import YamlError, read_yaml


def nested(count, template):
    """Returns lines of which each repeats the one before it nine times."""
    lines = ["a: &a {x: 1}"]
    for letter, before in zip("bcdefghijklmnop"[:count], "abcdefghijklmno"):
        lines.append(f"{letter}: &{letter} {template(before)}")
    return "\n".join(lines)


LIST_BOMB = nested(12, lambda before: f"[{', '.join([f'*{before}'] * 9)}]")
MAPPING_BOMB = nested(12, lambda before: f"{{{', '.join(f'k{n}: *{before}' for n in range(9))}}}")
MERGE_BOMB = nested(12, lambda before: f"{{<<: [{', '.join([f'*{before}'] * 9)}]}}")
TOO_MANY = "stands for more than 2000 values, which no config does"
DEEP = "is nested more than 8 levels deep"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train.epochs: 3\ntrain.epochs: 3\n", "gives the key 'train.epochs' twice"),
        ("train: {seed: 1}\ntrain: {epochs: 3}\n", "gives the key 'train' twice"),
        ("train: {seed: 1, seed: 1}\n", "gives the key 'seed' twice"),
        ("a: &a [*a]\n", "refers to itself in line 1"),
        ("x: 1\ntrain: &t\n  epochs: *t\n", "refers to itself in line 2"),
        ("&t {train: *t}\n", "refers to itself in line 1"),
        ("a: &a {<<: *a}\n", "refers to itself in line 1"),
        (LIST_BOMB, TOO_MANY),
        (MAPPING_BOMB, TOO_MANY),
        (MERGE_BOMB, TOO_MANY),
        ("\n".join(f"k{n}: 1" for n in range(5000)), TOO_MANY),
        ("[" * 60_000, DEEP),
        ("{a: " * 15_000, DEEP),
        ("- " * 30_000, DEEP),
        ("x" * 70_000, "holds more than 65536 bytes, which no config does"),
        ("train: {epochs: !!int '1_0'}", "gives '1_0' the tag !!int; leave it out"),
        (
            "a: !!python/name:os.system x",
            "gives 'x' the tag !!python/name:os.system; leave it out",
        ),
        ("a: *b", "is not YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2\n", "is not YAML: expected a single document"),
        ("? [a]\n: 1\n", "is not YAML: while constructing a mapping"),
        ("a: '\x07'", "is not YAML: unacceptable character"),
    ],
)
def test_what_is_no_config_is_refused_at_once(tmp_path, content, message):
    path = tmp_path / "more.yaml"
    path.write_text(content, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(YamlError) as error:
        read_yaml(path)
    with pytest.raises(ConfigError) as config_error:
        resolve("efficientnetv2-s", "digits", str(path))
    assert time.process_time() - start < 2  # twice
    assert str(error.value).startswith(message)
    assert str(config_error.value).startswith(f"config file '{path}' {message}")
    assert len(str(config_error.value)) <= 400


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("3", 3), ("-3", -3), ("+3", 3), ("0", 0), ("1.5", 1.5), ("1.0e-05", 1e-5)),
        *(("true", True), ("FALSE", False), ("null", None), ("~", None), ("", None)),
        *(("yes", "yes"), ("on", "on"), ("1_000", "1_000"), ("0x10", "0x10"), ("010", "010")),
        *(("1:30", "1:30"), ("1e-3", "1e-3"), (".inf", ".inf"), (".nan", ".nan")),
        *(("2001-01-01", "2001-01-01"), ("\u0661", "\u0661"), ("'3'", "3"), ("=", "=")),
    ],
)
def test_plain_values(tmp_path, text, value):
    (tmp_path / "a.yaml").write_text(f"\ufeffa: {text}\n", encoding="utf-8")
    result = read_yaml(tmp_path / "a.yaml")["a"]
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 1_000}", "train.epochs must be an int, got '1_000'"),
        ("train: {epochs: 0x10}", "train.epochs must be an int, got '0x10'"),
        ("train: {epochs: 1:30}", "train.epochs must be an int, got '1:30'"),
        ("train: {epochs: \u0661\u0662}", "train.epochs must be an int, got '\u0661\u0662'"),
        ("train: {lr_base: .inf}", "train.lr_base must be a float, got '.inf'"),
        ("data: {flip: yes}", "data.flip must be a bool, got 'yes'"),
    ],
)
def test_values_are_those_of_the_text_form(tmp_path, text, expected):
    path = tmp_path / "more.yaml"
    path.write_text(text, encoding="utf-8")
    section, rest = text.split(": {")
    overrides = f"{section}.{rest[:-1].replace(': ', '=')}"
    for given in (str(path), overrides):
        with pytest.raises(ConfigError) as error:
            resolve("efficientnetv2-s", "digits", given)
        assert str(error.value) == expected


def test_aliases_and_merges_of_sane_size_are_followed(tmp_path):
    path = tmp_path / "more.yaml"
    path.write_text("train: {<<: {seed: &s 7, epochs: 3}, epochs: 4}\nsearch: {seed: *s}\n")
    config = resolve("efficientnetv2-s", "digits", path)
    assert (config.train.seed, config.train.epochs, config.search.seed) == (7, 4, 7)


def test_a_long_file_is_not_read_to_its_end(tmp_path):
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises(YamlError, match="holds more than 65536 bytes"):
        read_yaml(tmp_path / "zero.yaml")
