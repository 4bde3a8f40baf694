"""Personal data and secrets, which a model would memorise: detected or masked, never shown.

Only data with a fixed form is detected: e-mail addresses, telephone numbers and keys. Names, postal
addresses and the like need a person or a dedicated tool.
"""

import re
from itertools import count, islice

_E_MAIL = re.compile(
    r"(?<![\w.+@-])[\w.+-]{1,64}@(?!\dx\.)(?P<domain>(?:[\w-]{1,63}\.){1,8}[a-z]{2,24})(?![\w(@-])",
    re.IGNORECASE,  # icon@2x.png is a file name, and x@w.sum() a product of matrices
)
_NOBODY = re.compile(
    r"(?:.*\.)?(?:example\.(?:com|org|net)|example|test|invalid|localhost|local|internal)",
    re.IGNORECASE,
)
"""Reserved domains, which reach nobody (RFC 2606, 6762; ICANN)."""

# With a country code, or in North American notation: the only ones that are recognisable without
# knowing the country. A bare run of digits may be anything.
_PHONE = re.compile(
    r"(?<![\w.,+*/=$-])(?:\+[1-9](?:[ .()/-]{0,2}\d){7,14}"
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}(?![ .]\d))(?![\w-])"
)
_FICTION = re.compile(r"555\D?01\d\d$")
PHONES_TRIED = 1000
"""Most candidates to check in one text, so that a text full of digits takes little time."""

_KEY = re.compile(
    r"\bAKIA(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}\b"  # Amazon, but not its manual's
    r"|\bAIza[0-9A-Za-z_-]{35}"  # Google
    r"|\bgh[pousr]_[0-9A-Za-z]{36}|\bgithub_pat_[0-9A-Za-z_]{40}"  # GitHub
    r"|\bhf_[0-9A-Za-z]{34}"  # Hugging Face
    r"|\bsk-(?=[\w-]{0,99}[A-Z])(?=[\w-]{0,99}\d)[\w-]{20}"  # OpenAI, Anthropic and others
    r"|\bxox[abeoprs]-\d[0-9A-Za-z-]{10}"  # Slack
    r"|-----BEGIN (?:[A-Z]{1,12} ){0,2}PRIVATE KEY-----"
)

_WHOLE_KEY = re.compile(rf"(?:{_KEY.pattern})[\w=+/-]*(?:[^-]*-----END [A-Z ]+PRIVATE KEY-----)?")
"""A key to its end, and a private key to its last line."""


# Masked before a text is shown, also in doubt: ``kinds_in`` does not count local telephone numbers,
# which have no fixed form, but they are masked here, and so are dates of eight digits.
_ADDRESS = re.compile(r"(?<![^\s@])[^\s@]+(?:@[^\s@]+)+")
_NUMBER = re.compile(r"[+(]{0,2}\d(?:[\s*_.()/\u2010-\u2014-]{0,3}\d){5,}")
_TOKEN = re.compile(r"[A-Za-z0-9_+/=-]{20,}")
_LONG_TOKEN = 32
"""Fewest characters of a token in one case that is masked, such as a hexadecimal key."""


def masked(text: str) -> str:
    """Return a text with every possible address, number of six digits or more, and key masked.

    Mask the whole text before you cut a part out of it: half a number is not recognisable.
    """
    without = _ADDRESS.sub("[address]", text) if "@" in text else text
    return _TOKEN.sub(_masked_token, _NUMBER.sub("[number]", without))


def kinds_in(text: str) -> list[str]:
    """Return the kinds of personal data in a text, among ``e-mail``, ``phone`` and ``key``.

    Data that reaches nobody does not count: addresses at reserved domains such as ``example.com``,
    the numbers 555-01xx, which are reserved for fiction, and toll-free numbers.
    """
    detectors = (("e-mail", _has_e_mail), ("phone", _has_phone), ("key", _KEY.search))
    return [kind for kind, detects in detectors if detects(text)]


def without(text: str) -> tuple[str, list[str]]:
    """Return the text with ``[e-mail]``, ``[phone]`` and ``[key]`` in it, and the kinds found.

    What is masked is what ``kinds_in`` finds.
    """
    kinds = kinds_in(text)
    if "key" in kinds:
        text = _WHOLE_KEY.sub("[key]", text)
    if "e-mail" in kinds:
        text = _E_MAIL.sub(
            lambda found: found[0] if _NOBODY.fullmatch(found["domain"]) else "[e-mail]", text
        )
    if "phone" in kinds:
        tried = count()
        text = _PHONE.sub(
            lambda found: (
                "[phone]" if next(tried) < PHONES_TRIED and _is_phone(found[0]) else found[0]
            ),
            text,
        )
    return text, kinds


def _masked_token(token: re.Match[str]) -> str:
    text = token.group()
    mixed = text != text.lower() and text != text.upper()
    is_key = any(map(str.isdigit, text)) and any(map(str.isalpha, text))
    return "[key]" if is_key and (mixed or len(text) >= _LONG_TOKEN) else text


def _has_e_mail(text: str) -> bool:
    addresses = _E_MAIL.finditer(text) if "@" in text else ()
    return any(not _NOBODY.fullmatch(address["domain"]) for address in addresses)


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
