"""What surrounds the answer in a mail: the mail that it quotes, the greeting, the signature.

The rules know the marks of common mail programs and closings in eight languages. They cut nothing
that carries no such mark.
"""

import re
from collections.abc import Sequence

_QUOTED = re.compile(r"[ \t]*>")
# "On Tue, 3 Mar 2026 at 10:12, Anna <a@b.c> wrote:", also wrapped over up to three lines. A day,
# a year or an address keeps sentences such as "On the box, somebody wrote:" out.
_WHEN = r"(?=[^\n]*(?:\n[^\n]*){0,2}?(?:\d{4}|\d\d?[.:/]\d\d|@))"
_WROTE = re.compile(
    rf"^[ \t>]*(?:On|Am|Le|El|Il|Op|Em|Den|Dne|W dniu)\b{_WHEN}[^\n]*(?:\n[^\n]+){{0,2}}?"
    r"\b(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|skrev|napsala?|napisała?)\b"
    r"[^\n:]{0,120}(?:\n[^\n:]{1,80})?:[ \t]*$"
    # The other order: "Anna <a@b.c> schrieb am 3. März 2026:"
    r"|^[ \t>]*[^\n]{0,100}(?:@|<)[^\n]{0,100}\b(?:wrote|schrieb)\b"
    r"[^\n]{0,100}:[ \t]*$",
    re.MULTILINE,
)
_ORIGINAL = re.compile(
    r"^[ \t>]*[-_*]{2,} ?(?:Original(?: Message|nachricht| Appointment)?|Ursprüngliche Nachricht"
    r"|Forwarded [Mm]essage|Weitergeleitete Nachricht|Message d'origine|Message transféré"
    r"|Mensaje original|Messaggio originale|Oorspronkelijk bericht|Mensagem original) ?[-_*]{2,}"
    r"[ \t]*$|^[ \t>]*Begin forwarded message:[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_HEADERS = re.compile(
    r"^[ \t]*(?:_{10,}[ \t]*\n\s*)?\*?(?:From|Von|De|Da|Van)\*?:\*?[ \t]*[^\n]+\n"
    r"(?:[ \t]*\*?(?:Sent|Date|To|Cc|Subject|Gesendet|Datum|An|Betreff|Envoyé|Date|À|Objet|Enviado"
    r"|Fecha|Para|Asunto|Inviato|Data|A|Oggetto|Verzonden|Aan|Onderwerp|Reply-To|Importance)\*?:"
    r"[^\n]*(?:\n|\Z)){2,}",
    re.MULTILINE,
)
"""The headers that Outlook writes above the mail that it quotes, at least three of them."""

_CLOSINGS = (
    r"(?:with )?(?:(?:kind(?:est)?|best|warm(?:est)?|many|friendly) (?:regards|wishes|greetings)"
    r"|kindly|yours(?: (?:sincerely|faithfully|truly))?|sincerely(?: yours)?|cordially|cheers"
    r"|all the best|take care|regards|rgds)",
    r"(?:mit |viele |liebe |beste |herzliche |freundliche |schöne |sonnige ){1,3}"
    r"gr(?:ü|ue)(?:ß|ss)en?"
    r"|mit (?:freundlichen|besten|herzlichen|lieben|vielen) gr(?:ü|ue)(?:ß|ss)en|hochachtungsvoll"
    r"|mfg|lg|vg",
    r"(?:bien )?cordialement|bien à vous|sincères salutations|(?:un )?(?:cordial |atento )?saludos?"
    r"(?: cordial(?:es)?)?|atentamente|(?:cordiali|distinti) saluti"
    r"|met (?:vriendelijke|hartelijke) groet(?:en)?|com os melhores cumprimentos|atenciosamente"
    r"|med (?:venlig|vänlig) h(?:il|äl)sn?(?:en|ing(?:ar)?)|z poważaniem|s pozdravem",
)
_CLOSING = rf"(?:{'|'.join(_CLOSINGS)})"
_WEAK = r"(?:best|thanks|thank you|many thanks|danke|vielen dank|merci|gracias)"
"""Closings that also begin sentences: they need a comma, or a name on the next line."""
_WEAK_AND_NAME = re.compile(rf"{_WEAK}[ \t]*[,!][ \t]*(?P<name>[^\n.!?]{{1,40}})", re.IGNORECASE)
"""The same with a name behind it; "Thanks, Anna" opens mails too, so no sentence may follow."""
_NAME = r"[ \t]*(?:(?:from|aus|vom|von|de)\b[^\n]{0,40}|[^\n.!?]{0,40})"
_SIGNED = re.compile(
    rf"^[ \t]*(?:{_CLOSING}\b[ \t]*[,.!]?{_NAME}[,.!]?|{_WEAK}[ \t]*[,!]?"
    rf"|{_WEAK_AND_NAME.pattern})[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_IN_LINE = re.compile(
    rf"(?<=[.!?])[ \t]+{_CLOSING}\b[,.!]?[ \t]*(?:\S+[ \t]*){{0,5}}\Z", re.IGNORECASE
)
_SENTENCE = re.compile(r"[.!?:,;][ \t]*$", re.MULTILINE)
_DASHES = re.compile(r"^--[ \t]*$", re.MULTILINE)
_DEVICE = re.compile(
    r"^[ \t]*(?:Sent from my \w[^\n]{0,40}|Sent from (?:Mail|Outlook|Yahoo)[^\n]{0,40}"
    r"|Get Outlook for \w+[^\n]{0,60}|Von mein(?:em|er) [^\n]{1,40} gesendet"
    r"|Gesendet (?:mit|von) [^\n]{1,60}|Envoyé de mon [^\n]{1,40}|Enviado desde mi [^\n]{1,40}"
    r"|Inviato da(?:l mio)? [^\n]{1,40})[ \t]*$",
    re.MULTILINE | re.IGNORECASE,
)
_POSTSCRIPT = re.compile(r"^[ \t]*P\.?[ \t]?S\.?[:.]?[ \t]", re.MULTILINE | re.IGNORECASE)
_GREETING = re.compile(
    r"[\s*_]*(?:dear|hi|hello|hey|greetings|good (?:morning|afternoon|evening|day)"
    r"|hallo|moin|guten (?:tag|morgen|abend)|liebe[rs]?|sehr geehrte[rs]?|bonjour|bonsoir|chère?"
    r"|hola|buenos días|buenas tardes|estimad[oa]|ciao|buongiorno|gentile|beste|geachte)\b"
    r"[^\n.!?:,]{0,60}(?:[,!.](?=\s)|(?=[ \t]*\n))\s*",
    re.IGNORECASE,
)
"""The greeting of a mail and the white space behind it."""
LONGEST_SIGNATURE = 20
"""Most lines with text behind the mark of a signature; what is longer is part of the mail."""


def without_quotes(text: str) -> str:
    """Return the answer without the mails that it quotes.

    Lines with ``>`` are left out, and an answer between them stays. A mail that is quoted without
    such signs, below "-----Original Message-----", Outlook's headers or "On ... wrote:", is cut off
    with all that follows.
    """
    if headers := _HEADERS.search(text):
        text = text[: headers.start()]
    if original := _ORIGINAL.search(text):
        text = text[: original.start()]
    while wrote := _WROTE.search(text):
        rest = text[wrote.end() :].lstrip()
        follows = rest if _QUOTED.match(rest) else ""
        text = f"{text[: wrote.start()].rstrip()}\n\n{follows}"
    if not any(map(_QUOTED.match, text.split("\n"))):
        return text.strip()
    kept = [line for line in text.split("\n") if not _QUOTED.match(line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def greeting_of(text: str) -> str:
    """Return the greeting that a text begins with, and the white space behind it; else ''."""
    found = _GREETING.match(text)
    return found.group() if found else ""


def without_greeting(text: str) -> str:
    """Return the text behind its greeting."""
    return text[len(greeting_of(text)) :]


def without_signature(text: str) -> str:
    """Return the text up to its signature, with a postscript that follows it."""
    found = [_DASHES.search(text), _last_closing(text), _DEVICE.search(text)]
    starts = [mark.start() for mark in found if mark and _is_short(text[mark.end() :])]
    if not starts:
        in_line = _IN_LINE.search(text)
        return text[: in_line.start()].rstrip() if in_line else text
    start = min(starts)
    postscript = _POSTSCRIPT.search(text, start)
    after = f"\n\n{text[postscript.start() :].strip()}" if postscript else ""
    return text[:start].rstrip() + after


def _last_closing(text: str) -> re.Match[str] | None:
    """Return the first closing that has only a signature behind it."""
    for closing in _SIGNED.finditer(text, _last_lines(text)):
        behind = text[closing.end() :].strip()
        is_weak = re.fullmatch(_WEAK, closing.group().strip(" \t,!"), re.IGNORECASE)
        named = _WEAK_AND_NAME.fullmatch(closing.group().strip())
        if named and (_SENTENCE.search(behind[: _start_of(behind)]) or not _is_name(named["name"])):
            continue
        ends_in_comma = closing.group().rstrip().endswith((",", "!"))
        if is_weak and not (behind and (ends_in_comma or _is_name(behind.split("\n")[0]))):
            continue
        if _is_short(behind):
            return closing
    return None


def _last_lines(text: str) -> int:
    """Return where the last lines begin: a signature and a postscript are not longer."""
    start = len(text)
    for _ in range(4 * LONGEST_SIGNATURE):
        start = text.rfind("\n", 0, max(0, start))
        if start < 0:
            return 0
    return start + 1


def _is_short(behind: str) -> bool:
    lines = [line for line in behind[: _start_of(behind)].split("\n") if line.strip()]
    return len(lines) <= LONGEST_SIGNATURE


def _start_of(behind: str) -> int:
    postscript = _POSTSCRIPT.search(behind)
    return postscript.start() if postscript else len(behind)


def _is_name(line: str) -> bool:
    words: Sequence[str] = line.split()
    capitals = all(word[0].isupper() for word in words)
    return 0 < len(words) <= 4 and capitals and words[-1][-1] not in ".!?:"
