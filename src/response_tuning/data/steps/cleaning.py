"""Steps that leave the answer of a text and take away what surrounds it."""

import re
from collections.abc import Callable

import yaml

from response_tuning.configs import CurationConfig
from response_tuning.data.steps import mail, markup, personal
from response_tuning.data.steps.curation import Candidate, Step, each

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n+|\Z)", re.DOTALL)


def steps(config: CurationConfig) -> list[Step]:
    """Return the steps that the settings want, in the order in which they must run.

    Tags hide the marks of quotations and signatures, and a signature is the end of a mail once the
    quoted one is gone.
    """
    chosen: list[Step] = []
    for wanted, what, clean in (
        (config.html, "HTML", _visible),
        (config.quoted_mail, "quoted mail", mail.without_quotes),
        (config.signatures, "signature", mail.without_signature),
        (config.greetings, "greeting", mail.without_greeting),
    ):
        if wanted != "keep":
            chosen.append(_cleaning(wanted, what, clean))
    if config.personal_data == "mask":
        chosen.append(each(_mask))
    return chosen


def front_matter_step() -> Step:
    """Return the step that takes YAML front matter off a text file."""

    def look(candidate: Candidate) -> None:
        rest = without_front_matter(candidate.answer.response)
        _replace(candidate, rest, "YAML front matter")

    return each(look)


def without_front_matter(text: str) -> str:
    """Return a text without the YAML between two lines ``---`` at its top.

    What is no mapping of YAML stays: two rules around a paragraph look the same.
    """
    found = _FRONT_MATTER.match(text)
    if not found:
        return text
    try:
        content = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return text
    return text[found.end() :] if isinstance(content, dict) else text


def _cleaning(wanted: str, what: str, clean: Callable[[str], str]) -> Step:
    def look(candidate: Candidate) -> None:
        response = candidate.answer.response
        rest = clean(response)
        if rest == response or rest == response.strip():
            return
        if wanted == "strip":
            _replace(candidate, rest, what)
        elif wanted == "drop":
            candidate.drop(f"holds {what}")
        else:
            candidate.flag(f"holds {what}", _amount(response, rest))

    return each(look)


def _replace(candidate: Candidate, rest: str, what: str) -> None:
    """Put ``rest`` in the place of the response, and count it; an empty rest is no example."""
    response = candidate.answer.response
    if rest == response:
        return
    if not rest.strip():
        candidate.drop(f"only {what}")
        return
    candidate.answer = candidate.answer._replace(response=rest)
    candidate.flag(f"{what} stripped", _amount(response, rest))


def _amount(response: str, rest: str) -> str:
    # Never the text: signatures and quoted mails are where names and addresses are.
    return f"{len(response) - len(rest):,} characters"


def _visible(text: str) -> str:
    return markup.visible(text) if markup.is_html(text) else text


def _mask(candidate: Candidate) -> None:
    """Mask personal data in the response and everything before it."""
    kinds: dict[str, None] = {}

    def masked(text: str) -> str:
        rest, found = personal.without(text)
        kinds.update(dict.fromkeys(found))
        return rest

    answer = candidate.answer
    earlier = [
        message.model_copy(update={"content": masked(message.content)})
        for message in answer.earlier
    ]
    candidate.answer = answer._replace(
        response=masked(answer.response),
        instruction=answer.instruction and masked(answer.instruction),
        earlier=tuple(earlier),
    )
    for kind in kinds:
        candidate.flag(f"personal data masked ({kind})")
