"""Removes secrets from everything that is shown or stored: keys, tokens, passwords in URLs."""

import re
from functools import cache

MASK = "[key]"
_WORDS_OF_ERRORS = (
    "a an and any as at absent authentication authorization be been by can cannot could denied did "
    "disabled does empty environment error expected expired extra failed failure false field "
    "fields for forbidden found from given has have header if in incorrect input inputs invalid is "
    "it known malformed may missing must needed nil no none not null of on only or permission "
    "please provided required revoked set should str string that the this to true unable "
    "unauthorized undefined unexpected unknown unset unsupported use value values variable was "
    "when will with wrong you your"
)
_ORDINARY = rf"(?:{_WORDS_OF_ERRORS.replace(' ', '|')})(?=[.:!?)\]]*(?:[\s\\\"',;}}&]|$))"
"""Words that errors put after the name of a key. Any other word may be the key itself."""
_FORMS = (
    # user:password@ in a URL
    re.compile(r"(?<=://)[^/\s@\"']+(?=@)"),
    # ?key=..., &token=...
    re.compile(
        r"(?i)(?<=[?&])((?:api[-_]?)?key|(?:access[-_]?)?token|sig(?:nature)?|secret|password|code)="
        r"[^&\s\"'#]+"
    ),
    # Authorization: Bearer ..., api_key: ..., but not "api_key: field required"
    re.compile(
        r"(?i)\b((?:proxy-)?authorization|(?:x-)?api[-_]?key|api[-_ ]?key provided)(?![\w-])"
        r"[\\\"']*\s*[:=]\s*+[\\\[\"']*+(?:(?:bearer|basic|token|key)\s++)?+"
        rf"(?!{_ORDINARY})[^\s\"',;}}&]+"
    ),
    re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]{8,}"),
    # Keys of common services
    re.compile(
        r"\b(?:(?:sk|pk|rk|xai|ak)-[\w-]{8,}|(?:gsk|hf|ghp|glpat|nvapi|r8)[_-]\w{12,}|AIza[\w-]{20,}"
        r"|AKIA\w{12,})"
    ),
)


def redacted(text: str, *secrets: str) -> str:
    """Return ``text`` without ``secrets`` and anything that looks like one."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = masked(text, secret)
    for form in _FORMS:
        text = form.sub(lambda match: f"{match[1]}={MASK}" if match.re.groups else MASK, text)
    return text


def masked(text: str, secret: str) -> str:
    """Return ``text`` without ``secret``, plain or escaped as in JSON, HTML and URLs."""
    return _pattern(secret).sub(MASK, text)


@cache
def _pattern(secret: str) -> "re.Pattern[str]":
    # Each character may be escaped on its own, and several times over: a key in JSON in a log line.
    signs = [
        rf"\\{{0,8}}(?:{re.escape(sign)}"
        rf"|(?i:u{ord(sign):04x}|x{ord(sign):02x}|%(?:25)*{ord(sign):02x}"
        rf"|&#(?:0*{ord(sign)}|x0*{ord(sign):x});))"
        for sign in secret
    ]
    return re.compile("".join(signs))


def is_key(text: str) -> bool:
    """Whether ``text`` looks like a key."""
    return MASK in redacted(text)
