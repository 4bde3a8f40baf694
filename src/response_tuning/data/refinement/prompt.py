"""The prompt of a refiner: it asks for a short review, then the rewrite after a marker line."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import Example, Message, Request, digest
from response_tuning.data.refinement.reply import MARKER
from response_tuning.rewriting import Material

if TYPE_CHECKING:
    import jinja2


def ask_for_rewrite(example: Example, material: Material) -> Request:
    """Return the request to rewrite the response of ``example``.

    It is one user message, which every chat template can render, and includes the instruction and
    the earlier turns, if any.
    """
    content = _template(material).render(
        earlier=example.earlier,
        instruction=example.instruction,
        response=example.response,
        marker=MARKER,
    )
    message = Message(role="user", content=content)
    return Request(item_id=f"{example.row}.{example.turn}", prompt=(message,))


def prompt_digest(material: Material) -> str:
    """Return a digest of the wording of the prompt."""
    return digest(_wording(material))


@cache
def _template(material: Material) -> "jinja2.Template":
    import jinja2

    # Without autoescape: this is a prompt, not a page.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_wording(material))


def _wording(material: Material) -> str:
    path = Path(__file__).with_name(f"{material}.jinja")
    return path.read_text(encoding="utf-8")
