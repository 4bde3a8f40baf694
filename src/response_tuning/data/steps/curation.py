"""The chain that an answer goes through: each step may drop it, flag it, or change its text.

A step takes candidates and yields them all, in their order, so that nothing is lost uncounted. It
leaves alone what an earlier one dropped. ``preparation`` puts the chain together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from response_tuning.configs import CurationConfig
from response_tuning.data.conversations import Turn
from response_tuning.data.steps import language as languages
from response_tuning.data.steps import personal, refusals, restatements
from response_tuning.data.tokens import token_counter

TOKENIZED_AT_ONCE = 1000


@dataclass(slots=True)
class Candidate:
    """One assistant turn on its way through the chain, or a row that has none."""

    row: int
    turn: int
    where: str
    """File and line, or record number."""
    said: Turn
    """The text; of no meaning where the row gave none."""
    dropped: str = ""
    """Why it does not become an example; empty as long as it may."""
    detail: str = ""
    """What the reason is about, such as the row that it is a near-duplicate of."""
    flags: tuple[tuple[str, str], ...] = ()
    """(what, detail) of everything that was found and left, or changed."""

    def drop(self, reason: str, detail: str = "") -> None:
        """Drop it; what was found in it before no longer matters."""
        self.dropped, self.detail, self.flags = reason, detail, ()

    def flag(self, what: str, detail: str = "") -> None:
        """Note something for a person to look at."""
        self.flags += ((what, detail),)


Step = Callable[[Iterator[Candidate]], Iterator[Candidate]]


def each(look: Callable[[Candidate], None]) -> Step:
    """Return the step that looks at one candidate at a time."""

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for candidate in candidates:
            if not candidate.dropped:
                look(candidate)
            yield candidate

    return step


def only_refusals(selector: str) -> Step:
    """Drop what ``selector`` takes for no refusal."""

    def look(candidate: Candidate) -> None:
        if not refusals.is_refusal(candidate.said.response, selector):
            candidate.drop(f"not a refusal ({selector})")

    return each(look)


def restatements_step(config: CurationConfig) -> list[Step]:
    """Return the step for openings that give the instruction away, if one is asked for."""

    def look(candidate: Candidate) -> None:
        response, instruction = candidate.said.response, candidate.said.instruction
        opening = restatements.opening(response, instruction)
        if opening is None:
            return
        if config.restatements == "drop":
            candidate.drop("restates the instruction")
        elif config.restatements == "flag":
            candidate.flag("restates the instruction", opening.strip())
        else:
            left = restatements.stripped(response, instruction)
            candidate.said = candidate.said._replace(response=left)
            candidate.flag("restatement of the instruction stripped", opening.strip())

    return [] if config.restatements == "keep" else [each(look)]


def steps(config: CurationConfig) -> list[Step]:
    """Return the steps that judge a response by itself, the cheapest first."""
    found = []
    if config.personal_data != "keep":
        found.append(_personal_data(drop=config.personal_data == "drop"))
    if config.tokenizer is not None:
        found.append(_token_bounds(config.tokenizer, config.min_tokens, config.max_tokens))
    if config.language is not None:
        found.append(_in_language(config.language))
    return found


def _personal_data(*, drop: bool) -> Step:
    def look(candidate: Candidate) -> None:
        kinds = personal.found(candidate.said.response)
        if kinds and drop:
            candidate.drop(f"personal data ({', '.join(kinds)})")
            return
        for kind in kinds:
            candidate.flag(f"personal data ({kind})")

    return each(look)


def _in_language(wanted: str) -> Step:
    def look(candidate: Candidate) -> None:
        found = languages.language(candidate.said.response)
        if found is None:  # "Yes." is no reason to lose an answer
            candidate.flag("language cannot be told")
        elif found != wanted:
            candidate.drop(f"language {found}, not {wanted}")

    return each(look)


def _token_bounds(name: str, fewest: int | None, most: int | None) -> Step:
    """Drop what is too short or too long in tokens, its stop token not counted."""
    count = token_counter(name)

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        while chunk := list(islice(candidates, TOKENIZED_AT_ONCE)):
            judged = [candidate for candidate in chunk if not candidate.dropped]
            tokens = count([candidate.said.response for candidate in judged])
            for candidate, length in zip(judged, tokens, strict=True):
                if fewest is not None and length < fewest:
                    candidate.drop(f"fewer than {fewest:,} tokens")
                elif most is not None and length > most:
                    candidate.drop(f"more than {most:,} tokens")
            yield from chunk

    return step
