import os
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.yaml_text import MAX_BYTES, parse, read


def test_what_people_write_is_read() -> None:
    text = "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  b: 2\ne: [1, null, é]\n"
    assert parse(text, "r.yaml") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 2},
        "e": [1, None, "é"],
    }
    assert parse("", "r.yaml") is None


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [0]\nseeds: [1]\n", "r.yaml:2: 'seeds' appears twice, first in line 1"),
        ("a: {b: 1, b: 2}", "r.yaml:1: 'b' appears twice, first in line 1"),
        ("x:\n  - a: 1\n    b: 2\n    a: 3\n", "r.yaml:4: 'a' appears twice, first in line 2"),
        (BOMB, "values"),
        ("a: &a [*a]", "r.yaml:1: an alias that contains itself"),
        ("a: &a {b: {c: *a}}", "an alias that contains itself"),
        ("[" * 100_000, "nested too deeply"),
        ("- " * 5000 + "x", "nested"),
        ("{a: " * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        ("a: 2024-99-99", "r.yaml: not YAML: month must be in 1..12"),
        ("a: !!python/object/apply:os.system [ls]", "r.yaml: not YAML"),
        ("a: " + "9" * 5000, "r.yaml:1: a number or date of 5,000 characters"),
        ("a: !!bool foo", "r.yaml: not YAML: a value does not fit its tag"),
        ("a: !!timestamp foo", "r.yaml: not YAML: a value does not fit its tag"),
        ("a: !!int ''", "r.yaml: not YAML"),
        ("a: 1" + ":0" * 100_000, "r.yaml:1: a number or date of 200,001 characters"),
        ("? [a, b]\n: 1\n", "r.yaml: not YAML"),
        ("a: 1\n--- \nb: 2\n", "r.yaml: not YAML"),
        (b"a: \xff", "r.yaml: not YAML"),
        ("x" * (MAX_BYTES + 1), "longer than 1,048,576 bytes"),
    ],
    ids=lambda value: str(value)[:25],
)
def test_what_would_be_read_otherwise_than_it_looks_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text, "r.yaml")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path,
    make: Callable[[Path], None],
) -> None:
    make(tmp_path / "r.yaml")
    for path in (tmp_path / "r.yaml", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is not a regular file"):
            read(path)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read(tmp_path / "none.yaml")
