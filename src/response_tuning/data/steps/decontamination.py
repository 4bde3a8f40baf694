"""Which examples hold a prompt of an evaluation, as their instruction or inside a text."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from response_tuning.artifacts import digest
from response_tuning.data.conversations import Turn
from response_tuning.data.steps.curation import Candidate, Step, each
from response_tuning.data.steps.near_duplicates import triples, words

Prompts = Mapping[str, Mapping[str, str]]
"""Name of a benchmark or of a file -> id of a prompt -> its text."""

EXACT, IN_INSTRUCTION, IN_RESPONSE, NEAR = KINDS = (
    "exact",
    "in the instruction",
    "in the response",
    "near",
)
LONG = 8
"""Words from which a prompt is looked for inside texts, and near instructions. A shorter one stands
in texts that have nothing to do with it, and is another prompt if one word differs."""


class Match(NamedTuple):
    """A prompt that an example holds."""

    name: str
    prompt_id: str
    kind: str


class _Prompt(NamedTuple):
    name: str
    prompt_id: str
    words: tuple[str, ...]
    triples: int
    """How many different ones it has."""


class PromptIndex:
    """Finds the prompts that an example holds; memory holds the prompts."""

    def __init__(self, prompts: Prompts, threshold: float) -> None:
        self._threshold = threshold
        self._prompts: list[_Prompt] = []
        # Places in the list, by all words, by the first words, and by triple.
        self._exact: defaultdict[str, list[int]] = defaultdict(list)
        self._starts: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._triples: defaultdict[str, list[int]] = defaultdict(list)
        for name, texts in prompts.items():
            for prompt_id, text in texts.items():
                self._add(name, prompt_id, words(text))

    def _add(self, name: str, prompt_id: str, of: list[str]) -> None:
        place, parts = len(self._prompts), triples(of)
        self._prompts.append(_Prompt(name, prompt_id, tuple(of), len(parts)))
        self._exact[" ".join(of)].append(place)
        if len(of) >= LONG:
            self._starts[tuple(of[:LONG])].append(place)
            for part in parts:
                self._triples[part].append(place)

    def matches(self, said: Turn) -> list[Match]:
        """Return one match for each name, of the first kind that there is; the nearest of near."""
        asked = [message.content for message in said.earlier if message.role == "user"]
        asked += [said.instruction] if said.instruction else []
        found: dict[str, Match] = {}
        for place, kind in self._found([words(text) for text in asked], words(said.response)):
            prompt = self._prompts[place]
            found.setdefault(prompt.name, Match(prompt.name, prompt.prompt_id, kind))
        return list(found.values())

    def _found(self, asked: list[list[str]], response: list[str]) -> Iterator[tuple[int, str]]:
        for of in asked:
            yield from ((place, EXACT) for place in self._exact.get(" ".join(of), ()))
        for of in asked:
            yield from ((place, IN_INSTRUCTION) for place in self._inside(of))
        yield from ((place, IN_RESPONSE) for place in self._inside(response))
        yield from ((place, NEAR) for place in self._near(map(triples, asked)))

    def _inside(self, text: list[str]) -> Iterator[int]:
        windows = zip(*(text[start:] for start in range(LONG)), strict=False)
        for start, window in enumerate(windows):
            for place in self._starts.get(window, ()):
                sought = self._prompts[place].words
                if sought == tuple(text[start : start + len(sought)]):
                    yield place

    def _near(self, asked: Iterable[set[str]]) -> list[int]:
        """Return the prompts that share enough of their triples, the nearest first."""
        similar: dict[int, float] = {}
        for parts in asked:
            common = Counter(place for part in parts for place in self._triples.get(part, ()))
            for place, count in common.items():
                share = count / (len(parts) + self._prompts[place].triples - count)
                if share >= self._threshold:
                    similar[place] = max(share, similar.get(place, 0.0))
        return sorted(similar, key=lambda place: (-similar[place], place))


def decontaminate(prompts: Prompts, threshold: float, *, remove: bool) -> Step:
    """Flag every example that holds one of the prompts, and drop it if it is to be removed."""
    index = PromptIndex(prompts, threshold)

    def look(candidate: Candidate) -> None:
        matches = index.matches(candidate.said)
        if matches and remove:
            candidate.drop(_what(matches[0].name, matches[0].kind), matches[0].prompt_id)
        for match in matches:
            candidate.flag(_what(match.name, match.kind), match.prompt_id)

    return each(look)


def counts(names: Iterable[str], flagged: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return how many examples hold a prompt, by name and kind, from the counts of the flags."""
    return {name: {kind: flagged.get(_what(name, kind), 0) for kind in KINDS} for name in names}


def prompts_digest(texts: Mapping[str, str]) -> str:
    """Return a digest of the prompts of one name and their ids."""
    return digest(*(part for prompt in texts.items() for part in prompt))


def _what(name: str, kind: str) -> str:
    return f"contaminated with {name} ({kind})"
