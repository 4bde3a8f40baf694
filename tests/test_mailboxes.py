from email.message import EmailMessage
from mailbox import mbox
from pathlib import Path

from response_tuning.readers import read


def mail(text: str, subtype: str = "plain", charset: str = "utf-8") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Anna Müller <anna@tea.example>"
    message["To"] = "Ben <ben@post.example>"
    message["Subject"] = "Re: grüner Tee"
    message["Date"] = "Tue, 03 Mar 2026 10:12:00 +0100"
    message.set_content(text, subtype=subtype, charset=charset)
    return message


def test_each_mail_of_a_mailbox_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "sent.mbox"
    box = mbox(path)
    box.add(mail("Ihr Tee ist unterwegs.\nFrom now on, daily.\n", charset="cp1252"))
    both = mail("The plain text.\n")
    both.add_alternative("<p>The page.</p>", subtype="html")
    both.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="bill.pdf")
    box.add(both)
    box.add(mail("<p>Only a page.</p>", subtype="html"))
    box.close()
    rows = list(read(path))
    assert [row.fields["response"] for row in rows] == [
        "Ihr Tee ist unterwegs.\nFrom now on, daily.",
        "The plain text.",
        "<p>Only a page.</p>",
    ]
    assert rows[0].where == f"{path}: mail 1"
    assert rows[0].fields["from"] == "Anna Müller <anna@tea.example>"
    assert rows[0].fields["subject"] == "Re: grüner Tee"


def test_a_mail_in_a_file_of_its_own_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    path.write_bytes(mail("Bis morgen, grüß Sie.\n").as_bytes())
    (row,) = read(path)
    assert row.fields["response"] == "Bis morgen, grüß Sie."


def test_a_mail_that_cannot_be_read_is_a_row_with_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    path.write_bytes(b"Subject: x\nContent-Type: text/plain; charset=klingon\n\nnuqneH\n")
    (row,) = read(path)
    assert row.fault == "a mail that cannot be read (LookupError)"
