"""YAML as people write it: what would be read otherwise than it looks is refused.

A key that is there twice would lose its first value; aliases of aliases can stand for billions of
values in a few lines; one inside itself has no end.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ConfigError

if TYPE_CHECKING:
    import yaml


MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_NUMBER = 1000
"""Characters of a scalar that is no text."""


def read(path: Path) -> Any:  # noqa: ANN401 - whatever YAML can hold
    """Return what a YAML file says.

    Raises:
        ConfigError: it is no regular file of a sensible size, or no YAML; one line that says where.
    """
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: is not a regular file")
        with path.open("rb") as content:
            text = content.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(text, str(path))


def parse(text: str | bytes, where: str) -> Any:  # noqa: ANN401
    """Return what a YAML text says.

    Raises:
        ConfigError: one line that starts with ``where`` and says what is wrong in which line.
    """
    import yaml

    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: longer than {MAX_BYTES:,} bytes, so it is no recipe")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, where, {}, ())
        return loader.construct_document(node)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8; save the file as UTF-8") from error
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    except (AttributeError, LookupError, TypeError) as error:  # a tag that does not fit its value
        raise ConfigError(
            f"{where}: not YAML: a value does not fit its tag, such as '!!bool foo'"
        ) from error


def _count(node: "yaml.Node", where: str, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values ``node`` stands for, its aliases' included.

    Raises:
        ConfigError: they are too many, an alias is inside itself, or a key is there twice.
    """
    import yaml

    place = f"{where}:{node.start_mark.line + 1}"
    if id(node) in above:
        raise ConfigError(f"{place}: an alias that contains itself")
    if len(above) > MAX_DEPTH:
        raise ConfigError(f"{place}: nested more than {MAX_DEPTH} deep")
    if id(node) in known:
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":str"):
        _check_scalar(node, place)
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, where)
        inside = [value for pair in node.value for value in pair]
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    count = 1 + sum(_count(each, where, known, (*above, id(node))) for each in inside)
    if count > MAX_VALUES:
        raise ConfigError(f"{place}: stands for more than {MAX_VALUES:,} values")
    known[id(node)] = count
    return count


def _check_scalar(node: "yaml.ScalarNode", place: str) -> None:
    """Refuse numbers that take long to read: of YAML's base 60, each digit costs all before it."""
    if len(node.value) > MAX_NUMBER:
        raise ConfigError(
            f"{place}: a number or date of {len(node.value):,} characters; put text in quotes"
        )


def _check_keys(node: "yaml.MappingNode", where: str) -> None:
    first: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        name = (key.tag, str(key.value))
        if name in first and key.tag != "tag:yaml.org,2002:merge":
            raise ConfigError(
                f"{where}:{line}: '{key.value}' is there twice, first in line {first[name]}; "
                "remove one of the two"
            )
        first[name] = line


def with_settings(
    content: Mapping[str, Any],
    settings: Sequence[str],
    expected: str = "KEY=VALUE, such as finetune.epochs=2",
) -> dict[str, Any]:
    """Return ``content`` with each ``KEY.KEY=VALUE`` laid over it in turn; the value is YAML.

    Raises:
        ConfigError: one of them is no setting.
    """
    whole = dict(content)
    for text in settings:
        path, equals, value = text.partition("=")
        if not (equals and all(path.split("."))):
            raise ConfigError(f"--set {text}: expected {expected}")
        _set(whole, path.split("."), parse(value, f"--set {text}"), text)
    return whole


def _set(
    place: dict[str, Any],
    path: Sequence[str],
    value: Any,  # noqa: ANN401 - whatever YAML can hold
    text: str,
) -> None:
    """Set the value at ``path``, in copies of the sections on the way."""
    for key in path[:-1]:
        inner = place.get(key, {})
        if not isinstance(inner, Mapping):
            raise ConfigError(f"--set {text}: '{key}' holds no settings")
        place[key] = dict(inner)
        place = place[key]
    place[path[-1]] = value
