"""What the options promise in their help is what the settings do."""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import pytest
import typer

from response_tuning.cli import data_options, options
from response_tuning.cli.flags import FlagGroup
from response_tuning.cli.main import app
from response_tuning.configs import (
    Config,
    CurationConfig,
    DataConfig,
    DecontaminationConfig,
    EngineConfig,
    FinetuneConfig,
    GradeConfig,
    RefinementConfig,
)

SETTINGS: dict[type[FlagGroup], type[Config]] = {
    data_options.DataFlags: DataConfig,
    data_options.CurationFlags: CurationConfig,
    data_options.DecontaminationFlags: DecontaminationConfig,
    options.RefinementFlags: RefinementConfig,
    options.EngineFlags: EngineConfig,
    options.FinetuneFlags: FinetuneConfig,
    options.BenchmarkFlags: GradeConfig,
}
OTHER_NAMES = {"twin": "twins"}


class Command(NamedTuple):
    """A command, as Typer has built it."""

    path: str
    command: Any


def commands(group: Any = None, path: str = "rtune") -> Iterator[Command]:
    group = group or typer.main.get_command(app)
    for name, inner in group.commands.items():
        yield Command(f"{path} {name}", inner)
        if hasattr(inner, "commands"):
            yield from commands(inner, f"{path} {name}")


COMMANDS = [*commands()]
SINGLE = [one for one in COMMANDS if not hasattr(one.command, "commands")]


@pytest.mark.parametrize("group", SETTINGS, ids=lambda group: group.__name__)
def test_a_flag_has_the_name_of_its_setting_and_its_help_the_default(
    group: type[FlagGroup],
) -> None:
    for field in fields(group):  # type: ignore[arg-type]
        setting = SETTINGS[group].model_fields[OTHER_NAMES.get(field.name, field.name)]
        (option,) = field.type.__metadata__  # type: ignore[union-attr]
        default = setting.default
        if isinstance(default, int | float | str) and not isinstance(default, bool):
            shown = default if isinstance(default, str | int) else f"{default:g}"
            assert re.search(rf"default: {shown}\b", option.help), option.help


@pytest.mark.parametrize("one", COMMANDS, ids=lambda one: one.path)
def test_a_summary_of_a_command_is_not_cut_off(one: Command) -> None:
    summary = one.command.get_short_help_str(limit=63)
    assert summary and not summary.endswith("..."), summary
    assert re.match(r"[A-Z][a-z-]+[ ,]", summary), "an imperative verb"


@pytest.mark.parametrize("one", SINGLE, ids=lambda one: one.path)
def test_every_option_and_argument_has_help(one: Command) -> None:
    for parameter in one.command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.help


@pytest.mark.parametrize("one", COMMANDS, ids=lambda one: one.path)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_both_flags_of_help_work_everywhere(rtune: Any, one: Command, flag: str) -> None:
    result = rtune(*one.path.split()[1:], flag)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: {one.path} ")
