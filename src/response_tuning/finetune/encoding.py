"""Segments become token ids and labels, and every row proves itself before it is trained on.

Prefix and response are tokenised apart, so no token straddles the boundary and training sees
exactly the prefix that generation sends. Labels follow from the segments: nothing is searched for
in the ids, and nothing is compared with the pad token.
"""

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from typing import NamedTuple

from response_tuning.artifacts import Example, Message
from response_tuning.errors import ModelError, TemplateError
from response_tuning.finetune.examples import Examples
from response_tuning.finetune.objectives import IGNORED, OBJECTIVES, Another, Segment, UnfitError
from response_tuning.templates import Chat
from response_tuning.templates.continuation import continuation_tokenizer

KEPT, TRUNCATED = "kept", "truncated"
CHUNK = 1000
"""Examples that are tokenised together, and are in memory together."""


class Row(NamedTuple):
    """One example as the model will see it, or the reason why it will not."""

    example: Example
    status: str
    """``kept``, ``truncated`` (cut to the window, so it has no stop token) or a drop reason."""
    input_ids: list[int]
    """(T,); empty if dropped."""
    labels: list[int]
    """(T,); the id itself where a token carries loss, else -100. Not shifted."""

    @property
    def trained(self) -> bool:
        """Whether the row is trained on."""
        return self.status in (KEPT, TRUNCATED)

    @property
    def supervised(self) -> int:
        """Number of tokens that carry loss."""
        return len(self.labels) - self.labels.count(IGNORED)


class Encoder:
    """Turns examples into rows under one objective and one chat template.

    With ``twins``, an example is cut to the window, or dropped, as the longest prefix among this
    objective and its twins demands: all arms then train on the same response tokens.

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
        arms = [objective, *(name for name in twins if name != objective)]
        self._objectives = [OBJECTIVES.get(name) for name in arms]
        self._bos = chat.tokenizer.bos_token_id
        self._continuation = continuation_tokenizer(chat.tokenizer)
        end = chat.turn_end
        after = self._continuation.encode(end.rest, add_special_tokens=False).ids
        self._ending = [end.stop_id, *(after if final_newline else [])]
        self._check_continuation()
        self._check_served_prefix()

    def rows(self, examples: Examples) -> Iterator[Row]:
        """Yield one row for each example, in order, dropped ones included.

        At most two chunks of examples are in memory, the one that is read and the one before it.
        """
        others = _Others(examples, self.seed)
        numbered = enumerate(examples)
        while chunk := list(islice(numbered, CHUNK)):
            yield from self._encode(chunk, others)

    def _encode(self, chunk: list[tuple[int, Example]], others: "_Others") -> Iterator[Row]:
        prompts = [self._prompts(example, partial(others.of, place)) for place, example in chunk]
        ids = self._encoded_once(
            text for texts in prompts if isinstance(texts, list) for text in texts
        )
        responses = self._continuation.encode_batch_fast(
            [example.response for _, example in chunk], add_special_tokens=False
        )
        for (_, example), texts, response in zip(chunk, prompts, responses, strict=True):
            if isinstance(texts, str):
                yield Row(example, texts, [], [])
                continue
            prefixes = [ids[text] for text in texts]
            room = self.window - max(map(len, prefixes))
            yield self._row(example, prefixes[0], room, response.ids)

    def _prompts(self, example: Example, other: Another) -> list[str] | str:
        """Return what stands before the response, here and in each twin; or the reason to drop."""
        try:
            return [_unsupervised(each(example, other, self.chat)) for each in self._objectives]
        except (UnfitError, TemplateError) as reason:
            return str(reason)

    def _encoded_once(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Encode rendered prompts, of which response tuning has a single one."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        # As Chat.encode: the template has already placed the special tokens.
        encoded = self.chat.tokenizer(
            distinct, add_special_tokens=False, return_attention_mask=False
        )
        return dict(zip(distinct, encoded.input_ids, strict=True))

    def _row(self, example: Example, prefix: list[int], room: int, response: list[int]) -> Row:
        if room < 1:
            return Row(example, "prompt fills the window", [], [])
        whole = [*response, *self._ending]
        tail = whole[:room]
        status = KEPT if len(tail) == len(whole) else TRUNCATED
        row = Row(example, status, prefix + tail, [IGNORED] * len(prefix) + tail)
        self._prove(row, len(prefix))
        return row

    def _prove(self, row: Row, prefix: int) -> None:
        """Refuse a row whose mask is not exact; see the module's first lines.

        Raises:
            ModelError: naming the row and what is wrong with it.
        """
        bos, stop = self._bos, self.chat.turn_end.stop_id
        ids, labels = row.input_ids, row.labels
        content = labels[prefix : len(ids) - (len(self._ending) if row.status == KEPT else 0)]
        faults = {
            "ids and labels differ in length": len(ids) != len(labels),
            "it is longer than the window": len(ids) > self.window,
            "no token carries loss": prefix >= len(ids),
            "the prefix carries loss": labels[:prefix].count(IGNORED) < prefix,
            "a response token carries none": labels[prefix:] != ids[prefix:],
            "it starts with two BOS tokens": bos is not None and ids[:2] == [bos, bos],
            "it does not end in the stop token": row.status == KEPT
            and ids[-len(self._ending)] != stop,
            "the stop token stands inside the response": stop in content[: len(content) - 1]
            or (row.status == KEPT and stop in content),
        }
        for fault, found in faults.items():
            if found:
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


def _unsupervised(segments: list[Segment]) -> str:
    (text,) = (segment.text for segment in segments if not segment.supervised)
    return text


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
