"""YAML as people write it; a text that YAML would read differently from how it looks is refused.

A repeated key would lose its first value. Aliases of aliases can expand a few lines to billions of
values, and an alias inside itself never ends.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ConfigError

if TYPE_CHECKING:
    import yaml


MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_NUMBER = 1000
"""Longest number or date, in characters."""


def read(path: Path) -> Any:  # noqa: ANN401 - whatever YAML can hold
    """Return the content of a YAML file.

    Raises:
        ConfigError: it is not a regular file, too large, or not YAML; one line names the place.
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
    """Return the content of a YAML text.

    Raises:
        ConfigError: one line that starts with ``where`` and names the problem and its line.
    """
    import yaml

    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: longer than {MAX_BYTES:,} bytes; is it a recipe?")
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
        raise ConfigError(f"{where}: not YAML: {_problem(error)}") from error
    except (AttributeError, LookupError, TypeError) as error:  # a tag that does not fit its value
        raise ConfigError(
            f"{where}: not YAML: a value does not fit its tag, such as '!!bool foo'"
        ) from error


def _problem(error: Exception) -> str:
    """Return what is wrong and where, without the snippet of YAML's own messages.

    The text of a ``--set`` may hold a key.
    """
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None or mark is None:
        return " ".join(str(error).split())
    context = getattr(error, "context", None)
    what = f"{context}: {problem}" if context else problem
    return f"{what}, line {mark.line + 1}, column {mark.column + 1}"


def _count(node: "yaml.Node", where: str, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values ``node`` expands to, including aliases.

    ``known`` holds the counts of finished nodes by id, so that an alias costs one look-up.
    ``above`` holds the ids of the nodes around this one, which shows a circle.

    Raises:
        ConfigError: there are too many values, an alias contains itself, or a key is repeated.
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
    # An alias of aliases multiplies: a small file could fill the memory. So values are counted
    # before they are built.
    count = 1 + sum(_count(each, where, known, (*above, id(node))) for each in inside)
    if count > MAX_VALUES:
        raise ConfigError(f"{place}: expands to more than {MAX_VALUES:,} values")
    known[id(node)] = count
    return count


def _check_scalar(node: "yaml.ScalarNode", place: str) -> None:
    """Refuse long numbers: reading one in YAML's base 60 takes time quadratic in its length."""
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
                f"{where}:{line}: '{key.value}' appears twice, first in line {first[name]}; "
                "remove one of the two"
            )
        first[name] = line
