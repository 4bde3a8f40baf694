"""Segments become token ids and spans that carry loss; every row is verified before it is trained.

Segments are tokenised apart, so no token straddles the boundary between them and training sees
exactly the prefix that generation sends. Spans follow from the segments: nothing is searched for in
the ids, and nothing is compared with the pad token.
"""

import logging
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Example, Message
from response_tuning.errors import ConfigError, ModelError, TemplateError
from response_tuning.finetune.example_file import Examples
from response_tuning.finetune.objectives import IGNORED, OBJECTIVES, Another, Segment, UnfitError
from response_tuning.finetune.supervised import Encoded, Supervised
from response_tuning.finetune.witness import ALTERED, Witness
from response_tuning.templates import Chat, front
from response_tuning.templates.continuation import continuation_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


logger = logging.getLogger(__name__)

KEPT, TRUNCATED = "kept", "truncated"
SHOWN = 20
"""Characters that a warning names."""
UNLIKE_TWINS = "carry loss on other text than under a twin"
CHUNK = 1000
"""Examples that are tokenised together, and are in memory together."""

Span = tuple[int, int]
"""The first of some consecutive tokens, and the one after the last."""


def labelled(ids: list[int], spans: Iterable[Span]) -> list[int]:
    """Return (T,) labels: the id itself where a token carries loss, else -100. Not shifted."""
    labels = [IGNORED] * len(ids)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    return labels


class Row(NamedTuple):
    """One example as the model will see it, or the reason why it will not."""

    example: Example
    status: str
    """``kept``, ``truncated`` (cut to the window, so it has no stop token) or a drop reason."""
    input_ids: list[int]
    """(T,); empty if dropped."""
    spans: list[Span]
    """Tokens that carry loss, in order; spans neither touch nor overlap."""
    remarks: tuple[str, ...] = ()
    """What a person should know about a row that is trained on; see ``supervised``."""

    @property
    def labels(self) -> list[int]:
        """The ids again where they carry loss, else -100."""
        return labelled(self.input_ids, self.spans)

    @property
    def trained(self) -> bool:
        """Whether the row is trained on."""
        return self.status in (KEPT, TRUNCATED)

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss."""
        return sum(end - start for start, end in self.spans)


class Piece(NamedTuple):
    """A segment that is not empty, and all that decides how it is tokenised."""

    text: str
    supervised: bool
    first: bool
    """Whether nothing stands before it."""


class Encoder:
    """Turns examples into rows under one objective and one chat template.

    A row is the objective's segments as they stand, and the stop token, which carries loss. With
    ``twins``, an example is cut at its end, or dropped, as the longest row among this objective and
    its twins demands: arms that supervise the same text then train on the same tokens.

    Raises:
        ModelError: the tokenizer cannot encode a text as the continuation of another.
    """

    def __init__(
        self,
        chat: Chat,
        objective: str,
        window: int,
        *,
        twins: Sequence[str] = (),
        final_newline: bool = False,
        seed: int = 0,
    ) -> None:
        self.chat = chat
        self.window = window
        self.seed = seed
        self._own = objective
        arms = [objective, *(name for name in twins if name != objective)]
        self._objectives = {name: OBJECTIVES.get(name) for name in arms}
        self._bos = chat.tokenizer.bos_token_id
        self._continuation = continuation_tokenizer(chat.tokenizer)
        end = chat.turn_end
        after = self._continuation.encode(end.rest, add_special_tokens=False).ids
        self._ending = [end.stop_id, *(after if final_newline else [])]
        self._check_continuation()
        self._check_served_prefix()
        self._supervised = Supervised(chat, self._continuation)
        self._witness = Witness(chat)
        # Without what stands after the last mark, which may merge with what follows.
        self._marks = chat.encode(chat.marks.rstrip())

    def rows(self, examples: Examples) -> Iterator[Row]:
        """Yield one row for each example, in order, dropped ones included.

        At most two chunks of examples are in memory, the one that is read and the one before it.

        Raises:
            ConfigError: an objective returns segments that cannot be trained on.
        """
        others = _Others(examples, self.seed)
        numbered = enumerate(examples)
        while chunk := list(islice(numbered, CHUNK)):
            yield from self._encode(chunk, others)
        if lost := self._supervised.lost:
            logger.warning(
                "the tokenizer cannot spell %s%s: responses with such characters are left out",
                ", ".join(map(repr, lost[:SHOWN])),
                f" and {len(lost) - SHOWN:,} more" if len(lost) > SHOWN else "",
            )

    def arms(self, example: Example, other: Another) -> list[list[Piece]] | str:
        """Return what is tokenised, here and in each twin; or the reason to drop the example."""
        try:
            return [self._pieces(name, example, other) for name in self._objectives]
        except (UnfitError, TemplateError) as reason:
            return str(reason)

    def _pieces(self, objective: str, example: Example, other: Another) -> list[Piece]:
        chat = self._witness if objective == self._own else self.chat
        segments = [*map(Segment._make, self._objectives[objective](example, other, chat))]
        where = f"objective '{objective}', row {example.row}"
        texts: list[Any] = [segment.text for segment in segments]
        for text in texts:
            if not isinstance(text, str):  # an instruction that is None, say
                raise ConfigError(f"{where}: a segment's text is {text!r}")
        flags: list[Any] = [segment.supervised for segment in segments]
        for flag in flags:
            if not isinstance(flag, bool):
                raise ConfigError(f"{where}: a segment's supervised is {flag!r}; use True or False")
        if not any(flags):
            raise ConfigError(f"{where}: no segment is supervised, so nothing would be learned")
        filled = self._with_marks_given([segment for segment in segments if segment.text])
        return [Piece(*segment, first=place == 0) for place, segment in enumerate(filled)]

    def _with_marks_given(self, segments: list[Segment]) -> list[Segment]:
        """Split the marks off a first segment that carries loss, in which they would be text."""
        first = segments[0] if segments else Segment("", False)
        # Without what stands after the last mark, as in what every row is checked for.
        marks = self.chat.marks.rstrip()
        if not (marks and first.supervised and first.text.startswith(marks)):
            return segments
        rest = Segment(first.text.removeprefix(marks), True)
        return [Segment(marks, False), *([rest] if rest.text else []), *segments[1:]]

    def _encode(self, chunk: list[tuple[int, Example]], others: "_Others") -> Iterator[Row]:
        found, altered = [], []
        for place, example in chunk:
            found.append(self.arms(example, partial(others.of, place)))
            altered.append(self._witness.take())
        encoded = self._encoded_once(
            piece for arms in found if isinstance(arms, list) for arm in arms for piece in arm
        )
        for (_, example), arms, changed in zip(chunk, found, altered, strict=True):
            if isinstance(arms, str):
                yield Row(example, arms, [], [])
            else:
                row = self._row(example, [[(p, encoded[p]) for p in arm] for arm in arms])
                noted = (*row.remarks, ALTERED) if changed and row.trained else row.remarks
                yield row._replace(remarks=noted)

    def _encoded_once(self, pieces: Iterable[Piece]) -> dict[Piece, Encoded]:
        """Tokenise every distinct piece once; response tuning has a single prompt."""
        alike: dict[tuple[bool, bool], dict[Piece, None]] = {}
        for piece in pieces:
            alike.setdefault((piece.supervised, piece.first), {})[piece] = None
        result: dict[Piece, Encoded] = {}
        for (supervised, first), distinct in alike.items():
            texts = [piece.text for piece in distinct]
            encoded = self._supervised.encode(texts) if supervised else self._given(texts, first)
            result.update(zip(distinct, encoded, strict=True))
        return result

    def _given(self, texts: list[str], first: bool) -> list[Encoded]:
        """Tokenise what a server would send, in which special tokens are what they are."""
        if first:  # as Chat.encode: the template has already placed the special tokens
            served = self.chat.tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False
            )
            return [Encoded(ids) for ids in served.input_ids]
        further = self._further.encode_batch_fast(texts, add_special_tokens=False)
        return [Encoded(each.ids) for each in further]

    @cached_property
    def _further(self) -> "Tokenizer":
        further = continuation_tokenizer(self.chat.tokenizer)
        further.encode_special_tokens = False
        return further

    def _row(self, example: Example, arms: list[list[tuple[Piece, Encoded]]]) -> Row:
        wholes = [self._whole(arm) for arm in arms]
        said = [[(piece.text, each) for piece, each in arm if piece.supervised] for arm in arms]
        excess = max(0, max(len(ids) for ids, _ in wholes) - self.window)
        fault = next((each.fault for arm in said for _, each in arm if each.fault), "")
        if any(ids[: len(self._marks)] != self._marks for ids, _ in wholes):
            fault = f"does not begin with {self.chat.marks.strip()!r}, as every prompt does"
        if any(spans[0][0] >= len(ids) - excess for ids, spans in wholes):
            fault = fault or "prompt fills the window"
        if fault:
            return Row(example, fault, [], [])
        ids, spans = wholes[0]
        room = len(ids) - excess
        remarks = [remark for _, each in said[0] for remark in each.remarks]
        if any(arm != said[0] for arm in said):
            remarks.append(UNLIKE_TWINS)
        row = Row(
            example,
            TRUNCATED if excess else KEPT,
            ids[:room],
            [(start, min(end, room)) for start, end in spans if start < room],
            tuple(dict.fromkeys(remarks)),
        )
        self._verify(row, stops=int(excess < len(self._ending)))
        return row

    def _whole(self, arm: list[tuple[Piece, Encoded]]) -> tuple[list[int], list[Span]]:
        """Return the ids of a row, stop token included, and the spans that carry loss."""
        ids: list[int] = []
        spans: list[Span] = []
        for supervised, more in (
            *((p.supervised, each.ids) for p, each in arm),
            (True, self._ending),
        ):
            # Nothing predicts the first token, so it cannot carry loss.
            start, end = max(1, len(ids)), len(ids) + len(more)
            ids += more
            if not supervised or start >= end:
                continue
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, end))
        return ids, spans

    def _verify(self, row: Row, stops: int) -> None:
        """Refuse a row whose spans are not exact; see the module's first lines.

        Raises:
            ModelError: naming the row and what is wrong with it.
        """
        ids, spans, stop = row.input_ids, row.spans, self.chat.turn_end.stop_id
        found = sum(ids[start:end].count(stop) for start, end in spans)
        faults = {
            "it is longer than the window": len(ids) > self.window,
            "no token carries loss": not spans,
            "its spans are not in order": not all(
                before < after for before, after in pairwise((0, *chain(*spans), len(ids) + 1))
            ),
            "it starts with two BOS tokens": self._bos is not None
            and ids[:2] == [self._bos, self._bos],
            "it does not end in the stop token": row.status == KEPT
            and (ids[-len(self._ending)] != stop or spans[-1][1] < len(ids)),
            "the stop token stands inside the response": found != stops,
        }
        for fault, is_so in faults.items():
            if is_so:
                raise ModelError(f"row {row.example.row}: {fault}; this is never trained on")

    def _check_continuation(self) -> None:
        """Check on the tokenizer itself that decode(prefix + response) is the text."""
        opening = self.chat.encode(self.chat.opening)
        decode = self.chat.decode
        for probe in ("answer", " answer", "\nanswer", "answer\n\n", "1"):
            ids: list[int] = self._continuation.encode(probe, add_special_tokens=False).ids
            if decode(opening + ids) != decode(opening) + probe:
                raise ModelError(
                    f"this tokenizer reads {probe!r} as {decode(ids)!r} when it continues a "
                    "prompt, so what is trained would not be what is served; use another base"
                )

    def _check_served_prefix(self) -> None:
        """Check that what generation will send starts with one BOS token, not two."""
        served = self.chat.encode(self.chat.prompt([Message(role="user", content="question")]))
        if self._bos is not None and served[:2] == [self._bos, self._bos]:
            raise ModelError("the chat template prints two BOS tokens; take one out of it")
        own = front(self.chat.tokenizer)
        if own and served[: 2 * len(own)] == own * 2:
            raise ModelError(
                f"the chat template prints {self.chat.decode(own)!r} twice; take one out of it"
            )
        if served[: len(own)] != own:
            logger.warning(
                "prompts begin with %r, but this tokenizer begins every text with %r: let the "
                "template print that first",
                self.chat.decode(served[: len(own) + 1]),
                self.chat.decode(own),
            )
        self.chat.has_own_mark()  # in conversations of other kinds as well


class _Others:
    """For each example another one, drawn by the seed; they form a single circle."""

    def __init__(self, examples: Examples, seed: int) -> None:
        self._examples = examples
        self._seed = seed

    def of(self, position: int) -> Example:
        """Return the example that follows the one at ``position`` in the circle."""
        return self._examples[self._following[position]]

    @cached_property
    def _following(self) -> "array[int]":
        """Positions, 4 bytes each, made when the first is asked for: few objectives need them."""
        order = array("i", range(len(self._examples)))
        random.Random(self._seed).shuffle(order)
        following = array("i", order)
        for place, position in enumerate(order):
            following[position] = order[(place + 1) % len(order)]
        return following
