from collections.abc import Callable
from email.message import EmailMessage
from mailbox import mbox
from pathlib import Path
from typing import Any

import pytest

from response_tuning.errors import DataError

OUTLOOK = (
    "Subject;Body;From: (Name);From: (Address)\r\n"
    "Re: Tee;Wir öffnen um neun.;Anna Müller;anna@tee.example\r\n"
    "Zeiten;Wann öffnen Sie?;Ben;ben@post.example\r\n"
    "Re: Tee;Wir schließen um sechs.;Anna Müller;Anna@tee.example\r\n"
)


@pytest.fixture
def outlook(tmp_path: Path) -> Path:
    path = tmp_path / "outlook.csv"
    path.write_bytes(OUTLOOK.encode("cp1252"))
    return path


@pytest.mark.parametrize("sender", ["anna@tee.example", "Müller"])
def test_only_the_mails_of_the_named_sender_are_answers(
    sender: str, outlook: Path, prepare_source: Callable[..., Any]
) -> None:
    audit, examples, dropped = prepare_source(outlook, sender=sender)
    assert [one.response for one in examples] == ["Wir öffnen um neun.", "Wir schließen um sechs."]
    assert audit.dropped == {f"not from {sender}": 1}
    assert dropped[0].where == f"{outlook}:3"


def test_mails_of_several_senders_are_refused_until_one_is_named(
    outlook: Path, prepare_source: Callable[..., Any]
) -> None:
    with pytest.raises(DataError) as error:
        prepare_source(outlook)
    assert "mails of 2 senders, most from anna@tee.example (2), ben@post.example (1)" in str(
        error.value
    )
    assert "--sender" in str(error.value)
    with pytest.raises(DataError, match=r"no mail is from 'carla' \(--sender\); most are"):
        prepare_source(outlook, sender="carla")


def test_a_sent_folder_needs_no_sender_and_its_headers_no_warning(
    tmp_path: Path, prepare_source: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    box = mbox(tmp_path / "sent.mbox")
    for name in ("Anna", "Anna M."):
        message = EmailMessage()
        message["From"] = f"{name} <anna@tee.example>"
        message.set_content(f"Greetings, {name}.\n")
        box.add(message)
    box.close()
    audit, _, _ = prepare_source(tmp_path / "sent.mbox")
    assert audit.examples == 2
    assert not caplog.records


def test_a_sender_where_nobody_is_named_is_refused(prepare_rows: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="there is no column with a sender"):
        prepare_rows([{"response": "Yes."}], sender="anna")
