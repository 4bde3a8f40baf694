"""Candidates in a file, with the examples that they become: one line each.

A line is a JSON array of what is known about the candidate, and its examples as they are written
into ``examples.jsonl``, with tabs in between: JSON has none.
"""

import json
from collections.abc import Iterator

from response_tuning.artifacts import Example
from response_tuning.data.conversations import Turn
from response_tuning.data.steps.curation import Candidate


class Aside(Candidate):
    """A candidate that was read from a line; its texts are parsed if a step asks for them."""

    __slots__ = ("_answer", "_lines", "late")

    def __init__(self, line: str) -> None:
        about, *lines = line.rstrip("\n").split("\t")
        self.row, self.turn, self.where, self.dropped, self.detail, flags, digest = json.loads(
            about
        )
        self.flags = tuple(map(tuple, flags))
        self.digest = bytes.fromhex(digest)
        self.late: tuple[str, str] | None = None
        """Why a step dropped it after its digest was taken."""
        self._lines = lines
        self._answer: Turn | None = None
        if self.dropped and digest:
            self.late, self.dropped = (self.dropped, self.detail), ""

    @property
    def answer(self) -> Turn:
        """The response and its context; empty if it was dropped before it was written."""
        if self._answer is None:
            examples = [Example.model_validate_json(line) for line in self._lines]
            first = examples[0] if examples else Example(row=self.row, response="")
            self._answer = Turn(first.response, first.instruction, first.earlier)
            for second in examples[1:]:
                # The second of a pair has the same instruction, that of a judged answer another.
                of_pair = second.instruction == first.instruction
                beside = (
                    {"rejected": second.response}
                    if of_pair
                    else {"without_reference": second.instruction}
                )
                self._answer = self._answer._replace(**beside)
        return self._answer

    @answer.setter
    def answer(self, answer: Turn) -> None:
        self._answer, self._lines = answer, []

    def lines(self) -> list[str]:
        """Return its examples as JSON; empty if a step changed it."""
        return self._lines


def late_drops(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """Drop what was dropped after duplicates in another process, where duplicates are unknown."""
    for candidate in candidates:
        if isinstance(candidate, Aside) and candidate.late and not candidate.dropped:
            candidate.drop(*candidate.late)
        candidate.digest = b""  # whoever writes it again knows why it was dropped
        yield candidate


def line(candidate: Candidate) -> str:
    """Return the line of a candidate, without texts if it is dropped."""
    about = (candidate.row, candidate.turn, candidate.where, candidate.dropped, candidate.detail)
    texts = [] if candidate.dropped else lines(candidate)
    return "\t".join((json.dumps((*about, candidate.flags, candidate.digest.hex())), *texts)) + "\n"


def lines(candidate: Candidate) -> list[str]:
    """Return the examples of a candidate as JSON.

    The response and, in a pair, the rejected one; or a digit behind a judge's two prompts.
    """
    if isinstance(candidate, Aside) and (written := candidate.lines()):
        return written
    answer = candidate.answer
    both = [(answer.instruction, answer.response)]
    if answer.rejected is not None:
        both.append((answer.instruction, answer.rejected))
    if answer.without_reference is not None:
        both.append((answer.without_reference, answer.response))
    # The bytes that pydantic writes of an ``Example``, faster.
    earlier = [{"role": message.role, "content": message.content} for message in answer.earlier]
    return [
        _ENCODE(
            {
                "row": candidate.row,
                "turn": candidate.turn + place,
                "response": response,
                "instruction": instruction,
                "earlier": earlier,
            }
        )
        for place, (instruction, response) in enumerate(both)
    ]


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
