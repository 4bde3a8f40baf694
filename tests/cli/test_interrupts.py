import os
import signal
import sys

import pytest

from response_tuning.cli.interrupts import ending_well


@pytest.mark.parametrize(
    ("ended", "said", "code"),
    [
        (KeyboardInterrupt(), "rtune: interrupted; run the same command to continue\n", 130),
        (SystemExit(130), "rtune: interrupted; run the same command to continue\n", 130),
        (SystemExit(143), "rtune: ended by SIGTERM; run the same command to continue\n", 143),
        (SystemExit(2), "", 2),
        (SystemExit(), "", None),
    ],
)
def test_a_command_that_is_stopped_says_how_it_goes_on(
    capsys: pytest.CaptureFixture[str], ended: BaseException, said: str, code: int | None
) -> None:
    with pytest.raises(SystemExit) as left, ending_well():
        raise ended
    assert left.value.code == code
    assert capsys.readouterr().err == said


def test_sigterm_ends_a_command_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    order = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, ending_well():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            order.append("cleaned up")
    assert left.value.code == 143
    assert order == ["cleaned up"]
    assert "ended by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGUSR1")
def test_sigusr1_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with ending_well():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert [record.message for record in caplog.records] == [
        "SIGUSR1: finished work is on disk; continuing"
    ]
