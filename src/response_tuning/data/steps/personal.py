"""Personal data and secrets, which a model would learn by heart: found, never shown.

Only what has a form is found: e-mail addresses, telephone numbers and keys. Names, postal
addresses and the like need a person, or a tool made for them.
"""

import re
from itertools import islice

_E_MAIL = re.compile(
    r"(?<![\w.+@-])[\w.+-]{1,64}@(?!\dx\.)(?P<domain>(?:[\w-]{1,63}\.){1,8}[a-z]{2,24})(?![\w(@-])",
    re.IGNORECASE,  # icon@2x.png is a file name, and x@w.sum() a product of matrices
)
_NOBODY = re.compile(
    r"(?:.*\.)?(?:example\.(?:com|org|net)|example|test|invalid|localhost|local|internal)",
    re.IGNORECASE,
)
"""Domains that are reserved and reach nobody (RFC 2606, 6762; ICANN)."""

# With its country's code, or as North America writes it, the one notation that can be told
# without knowing the country: a bare run of digits may be anything.
_PHONE = re.compile(
    r"(?<![\w.,+*/=$-])(?:\+[1-9](?:[ .()/-]{0,2}\d){7,14}"
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![ .]\d))(?![\w-])"
)
_FICTION = re.compile(r"555\D?01\d\d$")
PHONES_TRIED = 1000
"""Candidates that are looked at in one text, so that a text of digits alone costs little."""

_KEY = re.compile(
    r"\bAKIA(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}\b"  # Amazon, but not its manual's
    r"|\bAIza[0-9A-Za-z_-]{35}"  # Google
    r"|\bgh[pousr]_[0-9A-Za-z]{36}|\bgithub_pat_[0-9A-Za-z_]{40}"  # GitHub
    r"|\bhf_[0-9A-Za-z]{34}"  # Hugging Face
    r"|\bsk-(?=[\w-]{0,99}[A-Z])(?=[\w-]{0,99}\d)[\w-]{20}"  # OpenAI, Anthropic and others
    r"|\bxox[abeoprs]-\d[0-9A-Za-z-]{10}"  # Slack
    r"|-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----"
)


# What is masked before a text is shown, in doubt too: a local number has no form of its own, so
# that ``found`` does not count it, and a date of eight digits may well be masked.
_ADDRESS = re.compile(r"(?<![^\s@])[^\s@]+(?:@[^\s@]+)+")
_NUMBER = re.compile(r"[+(]{0,2}\d(?:[\s*_.()/\u2010-\u2014-]{0,3}\d){5,}")
_TOKEN = re.compile(r"[A-Za-z0-9_+/=-]{20,}")
_LONG_TOKEN = 32
"""Characters from which a token of one case is masked: hexadecimal keys."""


def masked(text: str) -> str:
    """Return a text with all that may be an address, a number of six digits or a key masked.

    Mask the whole text before a part of it is cut out: half a number has no form.
    """
    without = _ADDRESS.sub("[address]", text) if "@" in text else text
    return _TOKEN.sub(_masked_token, _NUMBER.sub("[number]", without))


def found(text: str) -> list[str]:
    """Return the kinds of personal data in a text, among ``e-mail``, ``phone`` and ``key``.

    What reaches nobody does not count: addresses at reserved domains such as ``example.com``, the
    numbers 555-01xx, which are kept for fiction, and toll-free numbers, which are no person's.
    """
    looked_for = (("e-mail", _has_e_mail), ("phone", _has_phone), ("key", _KEY.search))
    return [kind for kind, has in looked_for if has(text)]


def _masked_token(token: re.Match[str]) -> str:
    said = token.group()
    mixed = said != said.lower() and said != said.upper()
    is_key = any(map(str.isdigit, said)) and any(map(str.isalpha, said))
    return "[key]" if is_key and (mixed or len(said) >= _LONG_TOKEN) else said


def _has_e_mail(text: str) -> bool:
    found = _E_MAIL.finditer(text) if "@" in text else ()
    return any(not _NOBODY.fullmatch(match["domain"]) for match in found)


def _has_phone(text: str) -> bool:
    candidates = (match.group() for match in islice(_PHONE.finditer(text), PHONES_TRIED))
    return any(map(_is_phone, candidates))


def _is_phone(candidate: str) -> bool:
    import phonenumbers

    try:
        number = phonenumbers.parse(candidate, "US")
    except phonenumbers.NumberParseException:
        return False
    return (
        phonenumbers.is_valid_number(number)
        and phonenumbers.number_type(number) != phonenumbers.PhoneNumberType.TOLL_FREE
        and not _FICTION.search(candidate)
    )
