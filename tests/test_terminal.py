import io
import logging
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from response_tuning import terminal
from response_tuning.terminal import console, printable, progress_bar, quiet_libraries


@pytest.fixture(autouse=True)
def _ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval of lines of progress, which all other tests are without."""
    monkeypatch.setattr(terminal, "PLAIN_EVERY_S", 10.0)


@pytest.fixture
def plain() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_away_from_a_terminal_progress_is_a_line_now_and_then(
    plain: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 3.0, 9.9, 10.0, 15.0, 20.0])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr(terminal, "time", clock)
    with progress_bar("answers", plain) as advance:
        for done in (1, 2, 3000, 4000):
            advance(done, 12345)
    assert said(plain) == "answers: 3,000 of 12,345\n"


def test_a_short_wait_away_from_a_terminal_is_silent(plain: Console) -> None:
    with progress_bar("answers", plain) as advance:
        for done in range(100):
            advance(done, 100)
    assert said(plain) == ""


def test_in_a_terminal_progress_is_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PLAIN_EVERY_S", 0.0)
    out = Console(file=io.StringIO(), width=80, force_terminal=True)
    with progress_bar("answers", out) as advance:
        advance(50, 100)
    assert "50/100" in said(out)
    assert "50 of 100" not in said(out)


def test_a_command_never_reads_words_of_the_data_as_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console().print("a [bold]word[/bold] in [brackets]")
    assert capsys.readouterr().out == "a [bold]word[/bold] in [brackets]\n"


@pytest.mark.parametrize(("rank", "lines"), [(None, 1), ("0", 1), ("1", 0)])
def test_of_several_processes_the_first_alone_speaks(
    rank: str | None,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    console().print("hello")
    assert capsys.readouterr().out.count("\n") == lines


def test_the_libraries_underneath_are_quiet() -> None:
    from transformers.utils import logging as libraries

    libraries.set_verbosity_info()  # type: ignore[no-untyped-call]
    libraries.enable_progress_bar()  # type: ignore[no-untyped-call]
    quiet_libraries()
    assert libraries.get_verbosity() == logging.ERROR
    assert not libraries.is_progress_bar_enabled()
    assert logging.getLogger("httpx").level == logging.WARNING


STEERING = "a\x1b[2J\x1b]0;title\x07b\x9b1mc\u202ed\r\x00e\u2028f"
SPELT = r"a\x1b[2J\x1b]0;title\x07b\x9b1mc\u202ed\r\x00e\u2028f"


def test_what_would_steer_a_terminal_is_spelt_out() -> None:
    assert printable(STEERING) == SPELT
    assert printable("one\n\ttwo é 漢字 👩‍👩‍👧 [bold]") == "one\n\ttwo é 漢字 👩‍👩‍👧 [bold]"
    assert printable("\ud800") == r"\ud800"


def test_nothing_that_a_command_prints_steers_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console().print(STEERING, highlight=False, soft_wrap=True)
    console(stderr=True).print(STEERING, highlight=False, soft_wrap=True)
    assert [*capsys.readouterr()] == [f"{SPELT}\n", f"{SPELT}\n"]
    console().print(Text(STEERING, style="red"), soft_wrap=True)  # which drops some by itself
    assert capsys.readouterr().out == SPELT.replace(r"\x07", "").replace(r"\r", "") + "\n"


def test_neither_does_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    script = "import logging; from response_tuning.terminal import log_to_stderr; log_to_stderr()"
    warn = f"logging.getLogger('x').warning('%s', {STEERING!r})"
    subprocess.run([sys.executable, "-c", f"{script}; {warn}"], check=True)
    assert capfd.readouterr().err == f"rtune: {SPELT}\n"


def run_shell(line: str) -> "subprocess.CompletedProcess[str]":
    rtune = f"{shlex.quote(sys.executable)} -m response_tuning"
    return subprocess.run(
        ["bash", "-c", line.replace("rtune", rtune)], capture_output=True, text=True, check=False
    )


def test_closed_streams_are_one_line_or_none() -> None:
    done = run_shell("rtune list >&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("rtune: standard output is closed; send it to a file or to /dev/null\n")
    assert run_shell("rtune list 2>&-").stdout.startswith("datasets: ")
    assert run_shell("rtune list <&-").stdout.startswith("datasets: ")
    done = run_shell("rtune nope 2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_terminal_without_an_encoding_shows_letters_by_their_numbers() -> None:
    done = run_shell("PYTHONIOENCODING=ascii rtune nöpe")
    assert done.returncode == 2
    assert r"no such command 'n\xf6pe'" in done.stderr
