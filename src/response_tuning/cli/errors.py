"""The one line that a command prints when something is wrong, in terms of the command that ran."""

import errno
import re
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from response_tuning.errors import ResponseTuningError

_ELSEWHERE = {
    "continue_from": "",  # a run of a recipe extends none of its cells
    "mixture_path": "data.mixture.path",
    "scope": "data.mixture.scope",
    "max_passages": "data.max_examples",
    "text_column": "data.extraction.text_column",
    "min_words": "data.extraction.min_words",
    "max_words": "data.extraction.max_words",
    "judge": "grade.judge.engine",
    "judge_model": "grade.judge.settings.model",
    "judge_url": "grade.judge.settings.base_url",
    "judge_table": "grade.judge.settings.table",
    "reference": "grade.reference",
    "limit": "grade.limit",
}
"""FlagGroup whose settings have other names or places in a recipe."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_FLAG_AND_VALUE = re.compile(
    rf"(?P<flag>{_FLAG.pattern})(?: (?P<value>[A-Z][A-Z_]+\b|https?://[^\s,;)]+|openai\b|hf\b))?"
)
"""A flag, and what looks like its value: a placeholder, an address, an engine."""
_BESIDE = re.compile(r" \((--[a-z][a-z-]+)\)")
"""A flag beside the key of a recipe that does the same."""
_COMMAND = re.compile(r"(rtune [a-z][^'\"`);]*)")
"""A command that a line names, with flags of its own."""


def usage(error: TyperException) -> str:
    """Return what is wrong with a command line, and which help to read."""
    if error.format_message().startswith("Usage:"):  # no arguments at all
        return error.format_message()
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rtune"
    cause = _misspelt(error) or " ".join(error.format_message().split()).rstrip(".")
    where = "".join(f"{name}: " for name in [command.partition(" ")[2]] if name)
    return f"rtune: {where}{cause[:1].lower()}{cause[1:]}; run '{command} --help' for its options"


def _misspelt(error: TyperException) -> str:
    """Return the error for an unknown option or command, with a known one that is similar."""
    from response_tuning.registry import suggestion

    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    known = {
        "option": {flag for parameter in context.command.params for flag in parameter.opts},
        "command": {*getattr(context.command, "commands", ())},
    }
    match = re.match(r"No such (option|command)\W+?(-*\w[\w-]*)", error.format_message())
    hint = suggestion(match[2], sorted(known[match[1]])) if match else ""
    if match is None:
        return ""
    return f"no such {match[1]} '{match[2]}'" + (f": {hint}" if hint else "")


def system(error: OSError) -> str:
    """Return what the system refused, with a next step."""
    path = error.filename2 or error.filename  # for a move, the destination
    where = f"{path}: " if path else ""
    hint = "check the path, its permissions and the free space on the disk"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "allow more, such as with 'ulimit -n 1024'"
    return f"rtune: {where}{error.strerror}; {hint}"


def ours(error: ResponseTuningError, app: typer.Typer, arguments: Sequence[str]) -> str:
    """Return an error of this package, with flags that the command has.

    Code that several commands share names the flags of one of them. If the command that ran lacks
    such a flag, the line names the ``--set`` for the same setting, or else the flag's command.
    """
    line = " ".join((error.in_flags or str(error)).split()).removeprefix("rtune ")
    if _FLAG.search(line):
        commands = dict(_commands(typer.main.get_command(app)))
        ran = commands.get(_name(arguments, commands), set())
        line = _BESIDE.sub(lambda match: match[0] if match[1] in ran or not ran else "", line)
        parts = _COMMAND.split(line)  # what is between commands, and commands, in turn
        parts[::2] = [
            _FLAG_AND_VALUE.sub(lambda match: _in_terms_of(ran, commands, match), part)
            for part in parts[::2]
        ]
        line = "".join(parts)
    return f"rtune: {line}"


def _in_terms_of(ran: set[str], commands: dict[str, set[str]], found: re.Match[str]) -> str:
    flag, value = found["flag"], found["value"]
    owners = [name for name, flags in commands.items() if flag in flags]
    if flag in ran or not ran or not owners:
        return found[0]
    setting = _setting(flag.removeprefix("--").replace("-", "_"))
    if setting and "--set" in ran:
        return f"--set {setting}={value or '...'}"
    return f"{found[0]} (of 'rtune {owners[0]}')"


def _setting(name: str) -> str:
    """Return the key of a recipe that a flag sets; empty if no key does."""
    from response_tuning.configs import Config, DataConfig, FinetuneConfig, GenerateConfig

    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    sections: dict[str, type[Config]] = {
        "finetune": FinetuneConfig,
        "data": DataConfig,
        "generate": GenerateConfig,
    }
    return next(
        (f"{key}.{name}" for key, kind in sections.items() if name in kind.model_fields), ""
    )


def _commands(
    command: Any,  # noqa: ANN401 - typer's own click
    path: str = "",
) -> Iterator[tuple[str, set[str]]]:
    """Yield the name of every command, such as ``data prepare``, and its flags."""
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _commands(inner, f"{path} {name}".strip())
    else:
        yield path, {flag for parameter in command.params for flag in parameter.opts}


def _name(arguments: Sequence[str], commands: dict[str, set[str]]) -> str:
    words = [word for word in arguments if not word.startswith("-")]
    two = " ".join(words[:2])
    if two not in commands and words[:1] == ["data"]:
        return "data prepare"
    return two if two in commands else " ".join(words[:1])
