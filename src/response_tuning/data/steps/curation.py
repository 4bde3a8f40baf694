"""The chain of steps that candidates pass: a step may drop one, flag it, or change its text.

A step yields all its candidates in their order, dropped ones included, so that the audit counts
them. It ignores what an earlier step dropped. ``preparation`` builds the chain.
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
    """One assistant turn on its way through the chain, or a row without one."""

    row: int
    turn: int
    where: str
    """File and line, or record number."""
    answer: Turn
    """The response and its context; empty for a row without an assistant turn."""
    dropped: str = ""
    """Why it does not become an example; empty while it may."""
    detail: str = ""
    """A detail of the reason, such as the row of the near-duplicate."""
    flags: tuple[tuple[str, str], ...] = ()
    """(what, detail) of every finding that did not drop it."""
    digest: bytes = b""
    """The digest of its texts that tells duplicates, where it is known already."""

    def drop(self, reason: str, detail: str = "") -> None:
        """Drop the candidate and its flags, which only matter in examples."""
        self.dropped, self.detail, self.flags = reason, detail, ()

    def flag(self, what: str, detail: str = "") -> None:
        """Flag a finding for a person to check."""
        self.flags += ((what, detail),)


Step = Callable[[Iterator[Candidate]], Iterator[Candidate]]


def each(look: Callable[[Candidate], None]) -> Step:
    """Return a step that calls ``look`` with each candidate that is not dropped."""

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for candidate in candidates:
            if not candidate.dropped:
                look(candidate)
            yield candidate

    return step


def only_refusals(selector: str) -> Step:
    """Drop every response that is not a refusal by ``selector``."""

    def look(candidate: Candidate) -> None:
        if not refusals.is_refusal(candidate.answer.response, selector):
            candidate.drop(f"not a refusal ({selector})")

    return each(look)


def restatements_step(config: CurationConfig) -> list[Step]:
    """Return the step for openings that restate the instruction, if the settings want one."""

    def look(candidate: Candidate) -> None:
        # A flag carries the opening, so that a person can check what was found or cut off.
        response, instruction = candidate.answer.response, candidate.answer.instruction
        opening = restatements.opening(response, instruction)
        if opening is None:
            return
        if config.restatements == "drop":
            candidate.drop("restates the instruction")
        elif config.restatements == "flag":
            candidate.flag("restates the instruction", opening.strip())
        else:
            rest = restatements.stripped(response, instruction)
            candidate.answer = candidate.answer._replace(response=rest)
            candidate.flag("restatement of the instruction stripped", opening.strip())

    return [] if config.restatements == "keep" else [each(look)]


def steps(config: CurationConfig) -> list[Step]:
    """Return the steps that look at one response alone, the fastest first."""
    chosen = []
    if config.personal_data in ("flag", "drop"):
        chosen.append(_personal_data(drop=config.personal_data == "drop"))
    if config.tokenizer is not None:
        chosen.append(_token_bounds(config.tokenizer, config.min_tokens, config.max_tokens))
    if config.language is not None:
        chosen.append(_in_language(config.language))
    return chosen


def _personal_data(*, drop: bool) -> Step:
    def look(candidate: Candidate) -> None:
        kinds = personal.kinds_in(candidate.answer.response)
        if kinds and drop:
            candidate.drop(f"personal data ({', '.join(kinds)})")
            return
        for kind in kinds:
            candidate.flag(f"personal data ({kind})")

    return each(look)


def _in_language(wanted: str) -> Step:
    def look(candidate: Candidate) -> None:
        language = languages.language(candidate.answer.response)
        if language is None:  # "Yes." is too short to tell, and no reason to lose an answer
            candidate.flag("language cannot be told")
        elif language != wanted:
            candidate.drop(f"language {language}, not {wanted}")

    return each(look)


def _token_bounds(name: str, fewest: int | None, most: int | None) -> Step:
    """Drop responses with too few or too many tokens, not counting the stop token."""
    count = token_counter(name)

    # Not ``each``: a fast tokenizer is faster on a batch than on single texts.
    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        while chunk := list(islice(candidates, TOKENIZED_AT_ONCE)):
            remaining = [candidate for candidate in chunk if not candidate.dropped]
            tokens = count([candidate.answer.response for candidate in remaining])
            for candidate, length in zip(remaining, tokens, strict=True):
                if fewest is not None and length < fewest:
                    candidate.drop(f"fewer than {fewest:,} tokens")
                elif most is not None and length > most:
                    candidate.drop(f"more than {most:,} tokens")
            yield from chunk

    return step
