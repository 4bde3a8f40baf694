"""Segments become token ids and spans with weights; each row's mask is verified before training.

Segments are tokenized apart, so no token straddles the boundary between them and training sees
exactly the prefix that generation sends. Spans follow from the segments: the code neither searches
the ids for a marker nor compares them with the pad token.
"""

import logging
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

from response_tuning.artifacts import Example, Message
from response_tuning.errors import ConfigError, ModelError, TemplateError
from response_tuning.finetune.example_file import Examples
from response_tuning.finetune.objectives import (
    Another,
    ObjectiveConfig,
    Segment,
    UnfitError,
    build_objective,
    checked,
)
from response_tuning.finetune.rows import (
    KEPT,
    TRUNCATED,
    EncodedRow,
    Span,
    are_in_order,
    in_whole_groups,
)
from response_tuning.finetune.supervised import EncodedText, Supervised
from response_tuning.finetune.witness import ALTERED, Witness
from response_tuning.templates import UNPREDICTED, Chat, front

logger = logging.getLogger(__name__)

NAMED_CHARACTERS = 20
"""Characters that a warning names at most."""
MERGED = "the tokenizer merges hidden text with the text beside it"
UNLIKE_TWINS = "carry loss on other text than under a twin"
CHUNK = 1000
"""Examples that are tokenized together, and are in memory together."""


class Piece(NamedTuple):
    """A segment that is not empty, and all that decides how it is tokenized."""

    text: str
    weight: float
    rendered: bool
    """Whether special tokens in it are special tokens; see ``Segment``."""
    first: bool
    """Whether it starts the row."""
    hidden: tuple[int, int] | None
    """Bounds of its characters that cannot be seen; see ``Segment``."""

    @property
    def is_learned(self) -> bool:
        """Whether it is text for the model to write: it carries loss and is no prompt."""
        return self.weight > 0 and not self.rendered


class _Whole(NamedTuple):
    """A row before it is cut to the window: its segments and the stop token, end to end."""

    ids: list[int]
    spans: list[Span]
    learned: list[int]
    """Where each text for the model to write starts; the last is the stop token."""
    stops: list[int]
    """Where stop tokens are meant to be: the template printed them, or they end the row."""
    hidden: list[range]
    """Tokens that cannot be seen."""


class Encoder:
    """Turns examples into rows under one objective and one chat template.

    A row is the objective's segments as they stand, and the stop token, which carries loss. With
    ``twins``, an example is cut at its end, or dropped, as the longest row among this objective and
    its twins demands: arms that supervise the same text then train on the same tokens.
    ``settings`` belong to the objective; twins use their defaults.

    Raises:
        ModelError: the tokenizer cannot encode a text as the continuation of another.
    """

    def __init__(  # noqa: PLR0913 - all that decides on a row, by name
        self,
        chat: Chat,
        objective: str,
        window: int,
        *,
        settings: Mapping[str, Any] | None = None,
        twins: Sequence[str] = (),
        final_newline: bool = False,
        seed: int = 0,
    ) -> None:
        self.chat = chat
        self.window = window
        self.seed = seed
        self._own = objective
        self._objectives = {objective: build_objective(objective, settings)}
        self._objectives |= {name: build_objective(name) for name in twins if name != objective}
        self._bos = chat.tokenizer.bos_token_id
        self._continuation = chat.continuation
        end = chat.turn_end
        after = self._continuation.encode(end.rest, add_special_tokens=False).ids
        self._ending = [end.stop_id, *(after if final_newline else [])]
        if end.gap:
            logger.warning(
                "the template prints %r between an answer and %r; a row has the stop token right "
                "after its response, so that replies do not end in white space",
                end.gap,
                chat.decode([end.stop_id]),
            )
        self._check_continuation()
        self._check_served_prefix()
        self._supervised = Supervised(chat, self._continuation)
        self._witness = Witness(chat)
        # Marks open every prompt, such as BOS or a role tag. Text after the last one is left out:
        # its tokens may merge with what follows.
        self._marks = chat.encode(chat.marks.rstrip())

    def rows(self, examples: Examples) -> Iterator[EncodedRow]:
        """Yield one row for each example, in order, dropped ones included.

        At most two chunks of examples are in memory: the current one and the one before it.

        Raises:
            ConfigError: an objective returns segments that cannot be trained on.
        """
        yield from in_whole_groups(self._rows(examples))
        if lost := self._supervised.lost:
            logger.warning(
                "the tokenizer cannot spell %s%s: responses with such characters are dropped",
                ", ".join(map(repr, lost[:NAMED_CHARACTERS])),
                f" and {len(lost) - NAMED_CHARACTERS:,} more"
                if len(lost) > NAMED_CHARACTERS
                else "",
            )

    def _rows(self, examples: Examples) -> Iterator[EncodedRow]:
        others = _Others(examples, self.seed)
        numbered = enumerate(examples)
        while chunk := list(islice(numbered, CHUNK)):
            yield from self._encode(chunk, others)

    def arms(self, example: Example, other: Another) -> list[list[Piece]] | str:
        """Return the pieces to tokenize, or why to drop the example.

        An arm is what one objective makes of an example: this objective's first, then its twins'.
        """
        try:
            return [self._pieces(name, example, other) for name in self._objectives]
        except (UnfitError, TemplateError) as reason:
            return str(reason)

    def _pieces(self, objective: str, example: Example, other: Another) -> list[Piece]:
        chat = self._witness if objective == self._own else self.chat
        returned = self._objectives[objective](example, other, chat)
        where = f"objective '{objective}', row {example.row}"
        segments = [checked(Segment(*segment), where) for segment in returned]
        if not any(segment.weight for segment in segments):
            raise ConfigError(f"{where}: no segment carries loss, so nothing would be learned")
        filled = self._with_marks_apart([segment for segment in segments if segment.text])
        # An objective may well learn a row from its second token on. A response, though, must not
        # lose its first token to a prompt that happens to be empty: a twin's prompt may not be.
        if segments[0].is_prompt and not (filled and filled[0].is_prompt):
            raise UnfitError(UNPREDICTED)
        return [
            Piece(text, weight, bool(rendered), place == 0, hidden)
            for place, (text, weight, rendered, hidden) in enumerate(filled)
        ]

    def _with_marks_apart(self, segments: list[Segment]) -> list[Segment]:
        """Split the marks off a first segment of plain text, in which they would be text."""
        first = segments[0] if segments else Segment("", 0.0, rendered=True)
        # Without what follows the last mark, as in the check that every row undergoes.
        marks = self.chat.marks.rstrip()
        if first.rendered or not (marks and first.text.startswith(marks)):
            return segments
        rest = first._replace(text=first.text.removeprefix(marks))
        apart = Segment(marks, 0.0, rendered=True)
        return [apart, *([rest] if rest.text else []), *segments[1:]]

    def _encode(self, chunk: list[tuple[int, Example]], others: "_Others") -> Iterator[EncodedRow]:
        arms_of_each, altered = [], []
        for place, example in chunk:
            arms_of_each.append(self.arms(example, partial(others.of, place)))
            # What the template left out or changed in the prompts rendered since the last call.
            altered.append(self._witness.take())
        # All texts of a chunk at once: the tokenizer works on batches many times faster.
        encoded = self._encoded_once(
            piece
            for arms in arms_of_each
            if isinstance(arms, list)
            for arm in arms
            for piece in arm
        )
        for (_, example), arms, changed in zip(chunk, arms_of_each, altered, strict=True):
            if isinstance(arms, str):
                yield EncodedRow(example, arms, [], [], group=self._group(example))
            else:
                row = self._row(example, [[(p, encoded[p]) for p in arm] for arm in arms])
                noted = (*row.remarks, ALTERED) if changed and row.trained else row.remarks
                yield row._replace(remarks=noted)

    def _encoded_once(self, pieces: Iterable[Piece]) -> dict[Piece, EncodedText]:
        """Tokenize every distinct piece once; response tuning has a single prompt."""
        alike: dict[tuple[bool, bool], dict[Piece, None]] = {}
        for piece in pieces:
            # Plain text is encoded as a continuation wherever it is; see ``Supervised``.
            alike.setdefault((piece.rendered, piece.first), {})[piece] = None
        result: dict[Piece, EncodedText] = {}
        for (rendered, first), distinct in alike.items():
            texts = [piece.text for piece in distinct]
            encoded = self._prompts(texts, first) if rendered else self._supervised.encode(texts)
            result.update(zip(distinct, encoded, strict=True))
        for piece in filter(lambda piece: piece.hidden, result):
            result[piece] = self._with_hidden(piece, result[piece])
        return result

    def _with_hidden(self, piece: Piece, encoded: EncodedText) -> EncodedText:
        """Find the tokens of the hidden characters, or why a row with them is dropped."""
        assert piece.hidden is not None
        ids, (start, end) = encoded.ids, piece.hidden
        # Encoded once in its whole, as it is served; what can be seen must be tokens by itself.
        before = self._prompts([piece.text[:start]], piece.first)[0].ids
        after = self._prompts([piece.text[end:]], first=False)[0].ids
        hidden = range(len(before), len(ids) - len(after))
        if not hidden or ids[: hidden.start] != before or ids[hidden.stop :] != after:
            return encoded._replace(fault=MERGED)
        return encoded._replace(hidden=hidden)

    def _prompts(self, texts: list[str], first: bool) -> list[EncodedText]:
        """Tokenize what a server would send: special tokens in it are special tokens."""
        if first:  # as Chat.encode: the template has already placed the special tokens
            served = self.chat.tokenizer(
                texts, add_special_tokens=False, return_attention_mask=False
            )
            return [EncodedText(ids) for ids in served.input_ids]
        later = self.chat.prompt_continuation.encode_batch_fast(texts, add_special_tokens=False)
        return [EncodedText(each.ids) for each in later]

    def _row(self, example: Example, arms: list[list[tuple[Piece, EncodedText]]]) -> EncodedRow:
        """Return the row of this objective, cut and dropped as the longest of all arms demands."""
        wholes = [self._whole(arm) for arm in arms]  # this objective's row first, then its twins'
        group = self._group(example)
        with_loss = [[(piece.text, each) for piece, each in arm if piece.weight] for arm in arms]
        # All arms lose as many tokens at the end, so they keep the same tokens of the response.
        excess = max(0, max(len(whole.ids) for whole in wholes) - self.window)
        fault = next((each.fault for arm in arms for _, each in arm if each.fault), "")
        if any(whole.ids[: len(self._marks)] != self._marks for whole in wholes):
            fault = f"does not begin with {self.chat.marks.strip()!r}, as every prompt does"
        # ``learned[0]`` is the first token with loss: cut off, no loss is left.
        if any(whole.learned[0] >= len(whole.ids) - excess for whole in wholes):
            fault = fault or "prompt fills the window"
        if fault:
            return EncodedRow(example, fault, [], [], group=group)
        whole = wholes[0]
        room = len(whole.ids) - excess
        remarks = [remark for _, each in with_loss[0] for remark in each.remarks]
        if any(arm != with_loss[0] for arm in with_loss):
            remarks.append(UNLIKE_TWINS)
        row = EncodedRow(
            example,
            TRUNCATED if excess else KEPT,
            whole.ids[:room],
            [span._replace(end=min(span.end, room)) for span in whole.spans if span.start < room],
            tuple(dict.fromkeys(remarks)),
            group,
            tuple(range(each.start, min(each.stop, room)) for each in whole.hidden),
        )
        self._verify(row, [place for place in whole.stops if place < room])
        return row

    def _group(self, example: Example) -> int | None:
        objective = self._objectives[self._own]
        return objective.group(example) if isinstance(objective, ObjectiveConfig) else None

    def _whole(self, arm: list[tuple[Piece, EncodedText]]) -> _Whole:
        """Lay pieces end to end, and the stop token after them."""
        whole = _Whole([], [], [], [], [])
        for piece, encoded in arm:
            if piece.is_learned:
                # The first token is never learned, because nothing predicts it.
                whole.learned.append(max(1, len(whole.ids)))
            if encoded.hidden:
                start, stop = encoded.hidden.start, encoded.hidden.stop
                whole.hidden.append(range(len(whole.ids) + start, len(whole.ids) + stop))
            self._append(whole, encoded.ids, piece.weight, may_stop=piece.rendered)
        whole.learned.append(len(whole.ids))
        self._append(whole, self._ending, 1.0, may_stop=True)
        return whole

    def _append(self, whole: _Whole, ids: list[int], weight: float, *, may_stop: bool) -> None:
        before, spans = len(whole.ids), whole.spans
        # Nothing predicts the first token, and marks such as BOS start every prompt: no loss.
        start, end = max(1, len(self._marks), before), before + len(ids)
        whole.ids.extend(ids)
        if weight == 0 or start >= end:
            return
        if may_stop:
            stop = self.chat.turn_end.stop_id
            whole.stops.extend(place for place in range(start, end) if whole.ids[place] == stop)
        if spans and spans[-1].end == start and spans[-1].weight == weight:
            start = spans.pop().start
        spans.append(Span(start, end, weight))

    def _verify(self, row: EncodedRow, stops: list[int]) -> None:
        """Refuse a row whose spans are not exact; see the module's first lines.

        Args:
            row: a row to be trained on.
            stops: where stop tokens with loss are meant to be.

        Raises:
            ModelError: naming the row and what is wrong with it.
        """
        ids, spans, stop = row.input_ids, row.spans, self.chat.turn_end.stop_id
        # Independent of how the row was assembled: only the ids and the spans are looked at.
        learned = [place for span in spans for place in range(*span[:2]) if ids[place] == stop]
        faults = {
            "it is longer than the window": len(ids) > self.window,
            "no token carries loss": not spans,
            "its spans are not in order": not are_in_order(spans, len(ids)),
            "it starts with two BOS tokens": self._bos is not None
            and ids[:2] == [self._bos, self._bos],
            "it does not end in the stop token": row.status == KEPT
            and (ids[-len(self._ending)] != stop or spans[-1].end < len(ids)),
            "the stop token stands inside the response": learned != stops,
            "hidden text carries loss, or predicts text that does": any(
                span.start <= places.stop and places.start < span.end
                for span in spans
                for places in row.hidden
            ),
        }
        for fault, is_so in faults.items():
            if is_so:
                raise ModelError(f"row {row.example.row}: {fault}; this is never trained on")

    def _check_continuation(self) -> None:
        """Check on this tokenizer that decode(prefix + response) is the text."""
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
        """Check that the prompt of generation starts with one BOS token, not two."""
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
        self.chat.has_own_mark()  # checks conversations of other kinds too


class _Others:
    """Draws another example for each one, by the seed; all of them form a single circle."""

    def __init__(self, examples: Examples, seed: int) -> None:
        self._examples = examples
        self._seed = seed

    def of(self, position: int) -> Example:
        """Return the example that follows the one at ``position`` in the circle."""
        return self._examples[self._following[position]]

    @cached_property
    def _following(self) -> "array[int]":
        """Positions, 4 bytes each, computed on first use: few objectives need them."""
        order = array("i", range(len(self._examples)))
        random.Random(self._seed).shuffle(order)
        following = array("i", order)
        for place, position in enumerate(order):
            following[position] = order[(place + 1) % len(order)]
        return following
