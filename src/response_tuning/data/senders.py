"""Who wrote a mail: only the mails of one sender are answers."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from email.utils import parseaddr
from typing import Any

from response_tuning.errors import DataError
from response_tuning.mailboxes import MAIL_HEADERS
from response_tuning.rows import Row

_FROM = re.compile(
    r"(?:from|von|de|da|van)"
    r"(?:: ?\((?:name|address|adresse|dirección|indirizzo|adres|nom|nombre)\))?"
    r"|absender",
    re.IGNORECASE,
)
"""Columns of a mailbox, and of Outlook's CSV export in some languages."""
_LISTED = 3


class Senders:
    """Counts the senders of a mailbox or of Outlook's export while its rows are read."""

    def __init__(self, name: str, wanted: str | None) -> None:
        self._name = name
        self._wanted = wanted
        self._counts: Counter[str] = Counter()
        self._found = 0

    def seen(self, row: Row) -> Row:
        """Count the sender of a row, and return the row."""
        if is_mail(row.fields):
            address = next(_senders(row.fields), "nobody")
            self._counts[(parseaddr(address)[1] or address).lower()] += 1
        if self._wanted is not None:
            self._found += is_from(self._wanted, row.fields)
        return row

    def merge(self, other: "Senders") -> None:
        """Add what was seen in later rows."""
        self._counts.update(other._counts)
        self._found += other._found

    def check(self) -> None:
        """Refuse mails of several senders: training would learn what others wrote.

        Raises:
            DataError: there are several, and none is named; or none of them is the named one.
        """
        most = ", ".join(f"{who} ({count:,})" for who, count in self._counts.most_common(_LISTED))
        if self._wanted is not None and not self._found:
            found = f"most are from {most}" if most else "there is no column with a sender"
            raise DataError(f"{self._name}: no mail is from '{self._wanted}' (--sender); {found}")
        if self._wanted is None and len(self._counts) > 1:
            raise DataError(
                f"{self._name}: mails of {len(self._counts):,} senders, most from {most}; training "
                "would learn what others wrote; name whose mails are the answers with --sender "
                "ADDRESS"
            )


def is_mail(fields: Mapping[str, Any]) -> bool:
    """Whether a row is a mail: it has the columns of our mailboxes or of Outlook's export."""
    return fields.keys() == {"response", *MAIL_HEADERS} or any(
        "(" in name and _FROM.fullmatch(name) for name in fields
    )


def is_from(wanted: str, fields: Mapping[str, Any]) -> bool:
    """Whether the name or address of the sender contains ``wanted``."""
    return any(wanted.lower() in sender.lower() for sender in _senders(fields))


def _senders(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield addresses before names."""
    found = [(name, value) for name, value in fields.items() if _FROM.fullmatch(name) and value]
    for _, value in sorted(found, key=lambda one: "adr" not in one[0].lower().replace("dd", "d")):
        yield str(value)
