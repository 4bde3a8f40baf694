from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from response_tuning.cli.flags import FlagGroup, chosen, spread


@dataclass(frozen=True)
class TeaFlags(FlagGroup):
    """A group of two options."""

    minutes: Annotated[int | None, typer.Option(help="How long.")] = None
    hot: Annotated[bool | None, typer.Option("--hot", help="Use hot water.")] = None


@dataclass(frozen=True)
class NamedTeaFlags(TeaFlags):
    """A group that has the options of another one."""

    name: Annotated[str | None, typer.Option(help="Which tea.")] = None


def brewed(*arguments: str) -> list[object]:
    """What a command with a group is called with."""
    app = typer.Typer()
    calls: list[object] = []

    @app.command()
    @spread
    def brew(
        pot: str, tea: NamedTeaFlags, out: Annotated[str, typer.Option()], cups: int = 1
    ) -> None:
        calls.append((pot, tea, out, cups))

    result = CliRunner().invoke(app, [*arguments, "--out", "o"])
    assert result.exit_code == 0, result.output
    return calls


def test_a_command_gets_its_group_with_the_options_that_were_given() -> None:
    assert brewed("blue", "--minutes", "3", "--name", "mint", "--cups", "2") == [
        ("blue", NamedTeaFlags(minutes=3, name="mint"), "o", 2)
    ]
    assert brewed("blue") == [("blue", NamedTeaFlags(), "o", 1)]


def test_only_given_options_become_settings() -> None:
    assert NamedTeaFlags(minutes=0, hot=False).given() == {"minutes": 0, "hot": False}
    assert NamedTeaFlags().given() == {}
    assert chosen(a=None, b=0, c="", d=()) == {"b": 0, "c": "", "d": ()}


def test_two_options_with_one_name_are_an_error_of_ours() -> None:
    def twice(tea: TeaFlags, minutes: int = 1) -> None:
        """A group and an option with one name."""

    with pytest.raises(ValueError, match="duplicate parameter name: 'minutes'"):
        spread(twice)
