"""Secrets are taken out of whatever is shown or kept: keys, tokens, passwords in addresses."""

import re
from functools import cache

MASK = "[key]"
_FORMS = (
    # user:password@ in an address
    re.compile(r"(?<=://)[^/\s@\"']+(?=@)"),
    # ?key=..., &token=...
    re.compile(
        r"(?i)(?<=[?&])((?:api[-_]?)?key|(?:access[-_]?)?token|sig(?:nature)?|secret|password|code)="
        r"[^&\s\"'#]+"
    ),
    # Authorization: Bearer ..., api_key: ...
    re.compile(
        r"(?i)\b((?:proxy-)?authorization|(?:x-)?api[-_]?key)(?![\w-])[\"']?\s*[:=]\s*[\"']?"
        r"(?:(?:bearer|basic)\s+)?[^\s\"',;}&]+"
    ),
    re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]{8,}"),
    # Keys of the usual services
    re.compile(
        r"\b(?:(?:sk|pk|rk|xai|ak)-[\w-]{8,}|(?:gsk|hf|ghp|glpat|nvapi|r8)[_-]\w{12,}|AIza[\w-]{20,}"
        r"|AKIA\w{12,})"
    ),
)


def redacted(text: str, *secrets: str) -> str:
    """Return ``text`` without ``secrets``, and without anything that looks like one."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = masked(text, secret)
    for form in _FORMS:
        text = form.sub(lambda found: f"{found[1]}={MASK}" if found.re.groups else MASK, text)
    return text


def masked(text: str, secret: str) -> str:
    """Return ``text`` without ``secret``, as it is or escaped as JSON, HTML and addresses do."""
    return _spelt(secret).sub(MASK, text)


@cache
def _spelt(secret: str) -> "re.Pattern[str]":
    signs = [
        rf"\\{{0,8}}(?:{re.escape(sign)}"
        rf"|(?i:u{ord(sign):04x}|x{ord(sign):02x}|%(?:25)*{ord(sign):02x}"
        rf"|&#(?:0*{ord(sign)}|x0*{ord(sign):x});))"
        for sign in secret
    ]
    return re.compile("".join(signs))


def is_key(text: str) -> bool:
    """Whether ``text`` looks like a key itself."""
    return MASK in redacted(text)
