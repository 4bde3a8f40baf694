"""Which examples contain a prompt of an evaluation, as their instruction or inside a text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from response_tuning.artifacts import digest
from response_tuning.data.conversations import Turn
from response_tuning.data.steps.curation import Candidate, Step, each
from response_tuning.data.steps.near_duplicates import triples, words

Prompts = Mapping[str, Mapping[str, str]]
"""Name of a benchmark or of a file -> id of a prompt -> its text."""

EXACT, IN_INSTRUCTION, IN_RESPONSE, NEAR = MATCH_KINDS = (
    "exact",
    "in the instruction",
    "in the response",
    "near",
)
LONG = 8
"""Fewest words of a prompt that is searched inside texts and compared for similarity. A shorter one
occurs in unrelated texts, and becomes another prompt if one word differs."""


class Match(NamedTuple):
    """A prompt that an example contains, and where."""

    name: str
    prompt_id: str
    kind: str


class _Prompt(NamedTuple):
    name: str
    prompt_id: str
    words: tuple[str, ...]
    triples: int
    """Number of distinct triples."""


class PromptIndex:
    """Finds the prompts that an example contains. Memory holds the prompts only."""

    def __init__(self, prompts: Prompts, threshold: float) -> None:
        self._threshold = threshold
        self._prompts: list[_Prompt] = []
        # Places in the list of prompts, by all words, by the first words, and by word triple.
        self._exact: defaultdict[str, list[int]] = defaultdict(list)
        self._starts: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._triples: defaultdict[str, list[int]] = defaultdict(list)
        for name, texts in prompts.items():
            for prompt_id, text in texts.items():
                self._add(name, prompt_id, words(text))

    def _add(self, name: str, prompt_id: str, prompt: list[str]) -> None:
        place, parts = len(self._prompts), triples(prompt)
        self._prompts.append(_Prompt(name, prompt_id, tuple(prompt), len(parts)))
        self._exact[" ".join(prompt)].append(place)
        if len(prompt) >= LONG:
            self._starts[tuple(prompt[:LONG])].append(place)
            for part in parts:
                self._triples[part].append(place)

    def matches(self, turn: Turn) -> list[Match]:
        """Return one match a name, of the strongest kind; of similar prompts, the nearest."""
        instructions = [message.content for message in turn.earlier if message.role == "user"]
        instructions += [turn.instruction] if turn.instruction else []
        tokenized = [words(text) for text in instructions]
        first: dict[str, Match] = {}
        for place, kind in self._all_matches(tokenized, words(turn.response)):
            prompt = self._prompts[place]
            first.setdefault(prompt.name, Match(prompt.name, prompt.prompt_id, kind))
        return list(first.values())

    def _all_matches(
        self, instructions: list[list[str]], response: list[str]
    ) -> Iterator[tuple[int, str]]:
        """Yield (place, kind) of every match, the strongest kind first."""
        for instruction in instructions:
            yield from ((place, EXACT) for place in self._exact.get(" ".join(instruction), ()))
        for instruction in instructions:
            yield from ((place, IN_INSTRUCTION) for place in self._inside(instruction))
        yield from ((place, IN_RESPONSE) for place in self._inside(response))
        yield from ((place, NEAR) for place in self._near(map(triples, instructions)))

    def _inside(self, text: list[str]) -> Iterator[int]:
        """Yield the prompts that ``text`` contains, looked up by their first ``LONG`` words."""
        windows = zip(*(text[start:] for start in range(LONG)), strict=False)
        for start, window in enumerate(windows):
            for place in self._starts.get(window, ()):
                prompt = self._prompts[place].words
                if prompt == tuple(text[start : start + len(prompt)]):
                    yield place

    def _near(self, instructions: Iterable[set[str]]) -> list[int]:
        """Return the prompts that share enough triples with an instruction, the nearest first."""
        similar: dict[int, float] = {}
        for parts in instructions:
            common = Counter(place for part in parts for place in self._triples.get(part, ()))
            for place, count in common.items():
                # Jaccard similarity: the intersection over the union of both sets of triples.
                share = count / (len(parts) + self._prompts[place].triples - count)
                if share >= self._threshold:
                    similar[place] = max(share, similar.get(place, 0.0))
        return sorted(similar, key=lambda place: (-similar[place], place))


def decontaminate(prompts: Prompts, threshold: float, *, remove: bool) -> Step:
    """Return the step that flags, or with ``remove`` drops, every example with a prompt in it."""
    index = PromptIndex(prompts, threshold)

    def look(candidate: Candidate) -> None:
        matches = index.matches(candidate.answer)
        if matches and remove:
            candidate.drop(_what(matches[0].name, matches[0].kind), matches[0].prompt_id)
        for match in matches:
            candidate.flag(_what(match.name, match.kind), match.prompt_id)

    return each(look)


def counts(names: Iterable[str], flagged: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return the number of examples that contain a prompt, by name and kind of match."""
    return {
        name: {kind: flagged.get(_what(name, kind), 0) for kind in MATCH_KINDS} for name in names
    }


def prompts_digest(texts: Mapping[str, str]) -> str:
    """Return a digest of the prompts of one name and their ids."""
    return digest(*(part for prompt in texts.items() for part in prompt))


def _what(name: str, kind: str) -> str:
    return f"contaminated with {name} ({kind})"
