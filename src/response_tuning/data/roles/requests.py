"""What the model is asked: to write a role, to answer in it, and whether an answer keeps a rule.

The paper publishes no prompts; these are ours.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import ValidationError

from response_tuning.artifacts import Completion, Example, Message, Question, Request, digest
from response_tuning.data.refinement.screening import read_verdict
from response_tuning.roles import Role, Rule
from response_tuning.thoughts import answer

if TYPE_CHECKING:
    import jinja2

CHECKERS: Mapping[str, str] = MappingProxyType(
    {
        "keywords:existence": '{"keywords": ["one", "two"]}',
        "keywords:forbidden_words": '{"forbidden_words": ["one", "two"]}',
        "length_constraints:number_words": '{"num_words": 40, "relation": "less than"}',
        "length_constraints:number_paragraphs": '{"num_paragraphs": 2}',
        "length_constraints:nth_paragraph_first_word": (
            '{"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "well"}'
        ),
        "detectable_content:number_placeholders": '{"num_placeholders": 1}',
        "detectable_format:number_bullet_lists": '{"num_bullets": 3}',
        "detectable_format:title": "{}",
        "detectable_format:json_format": "{}",
        "change_case:english_capital": "{}",
        "change_case:english_lowercase": "{}",
        "startend:end_checker": '{"end_phrase": "Take care."}',
        "startend:quotation": "{}",
        "punctuation:no_comma": "{}",
    }
)
"""IFEval's checkers that need no download, with an example of their arguments."""
_FORM = {
    "type": "object",
    "properties": {
        "role": {"type": "string"},
        "rules": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "kind": {"type": "string"},
                    "checker": {"type": ["string", "null"]},
                    "arguments": {"type": "object"},
                },
                "required": ["text", "kind"],
            },
        },
    },
    "required": ["role", "rules"],
}


def ask_for_role(example: Example, number: int) -> Question:
    """Return the request for a role with ``number`` rules for the instruction of ``example``."""
    content = _template("role").render(
        number=number,
        checkers=CHECKERS,
        instruction=example.instruction,
        response=example.response,
    )
    return Question(item_id=_name(example), prompt=(_user(content),), form=_FORM)


def read_role(reply: Completion, number: int) -> Role | None:
    """Return the role in a reply; None if it is no role with ``number`` rules of two kinds."""
    text = answer(reply).text if reply.response else ""
    begin, end = text.find("{"), text.rfind("}")
    try:
        role = Role.model_validate(json.loads(text[begin : end + 1]))
    except (ValueError, ValidationError):
        return None
    kinds = {rule.kind for rule in role.rules}
    return role if len(role.rules) == number and len(kinds) >= min(number, 2) else None


def ask_in_role(example: Example, role: Role) -> Request:
    """Return the instruction of ``example``, with ``role`` in the system turn."""
    system = Message(role="system", content=role.system)
    prompt = (system, *example.earlier, _user(example.instruction or ""))
    return Request(item_id=_name(example), prompt=prompt)


def ask_about_rule(rule: Rule, example: Example, response: str) -> Request:
    """Return the question whether ``response`` keeps ``rule``."""
    content = _template("judge").render(
        rule=rule.text, instruction=example.instruction, response=response
    )
    return Request(item_id=_name(example), prompt=(_user(content),))


def keeps_rule(reply: Completion) -> bool:
    """Whether a judge said yes; what cannot be read is no."""
    return read_verdict(reply) == "yes"


def wording_digest() -> str:
    """Return a digest of the wording of all requests."""
    return digest(*(_wording(name) for name in ("role", "judge")))


def _name(example: Example) -> str:
    return f"{example.row}.{example.turn}"


def _user(content: str) -> Message:
    return Message(role="user", content=content)


@cache
def _template(name: str) -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_wording(name))


def _wording(name: str) -> str:
    return Path(__file__).with_name(f"{name}.jinja").read_text(encoding="utf-8")
