"""Mails of a mailbox (``.mbox``, as Thunderbird, Apple Mail and Google Takeout write it) or a file.

A mail becomes a row with the columns ``response`` (its text), ``subject``, ``from``, ``to`` and
``date``. Attachments are left out.
"""

import mailbox
import re
from collections.abc import Iterator
from email import message_from_binary_file, policy
from email.errors import MessageError
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from response_tuning.rows import Row, check_is_file
from response_tuning.spreadsheets import Form

_ESCAPED = re.compile(r"^>(>*From )", re.MULTILINE)
MAIL_HEADERS = ("subject", "from", "to", "date")


def read_mbox(path: Path, form: Form) -> Iterator[Row]:
    """Yield the mails of a mailbox; the offsets of all of them are held in memory."""
    check_is_file(path)
    box = mailbox.mbox(path, create=False)
    try:
        for number, key in enumerate(box.iterkeys(), start=1):
            with box.get_file(key) as content:
                row = _row(content, path, number)
            if "response" in row.fields:  # a mailbox has ">From " where a line begins with "From "
                row.fields["response"] = _ESCAPED.sub(r"\1", row.fields["response"])
            yield row
    finally:
        box.close()


def read_eml(path: Path, form: Form) -> Iterator[Row]:
    """Yield the one mail of a file."""
    check_is_file(path)
    with path.open("rb") as content:
        yield _row(content, path, 1)


def _row(content: Any, path: Path, number: int) -> Row:  # noqa: ANN401 - a binary file
    where = f"{path}: mail {number}"
    mail: EmailMessage = message_from_binary_file(content, policy=policy.default)
    try:
        fields = {name: str(mail.get(name) or "") for name in MAIL_HEADERS}
        body: Any = mail.get_body(preferencelist=("plain", "html"))
        text = "" if body is None else str(body.get_content())
    # A mail that no standard allows: an unknown character set, broken structure or headers.
    except (MessageError, LookupError, ValueError, TypeError, AttributeError) as error:
        return Row(where, {}, f"a mail that cannot be read ({type(error).__name__})")
    text = text.replace("\r\n", "\n").removesuffix("\n")
    return Row(where, {"response": text, **fields})
