import json
import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from response_tuning.artifacts import Example, Message
from response_tuning.errors import ConfigError, ModelError
from response_tuning.finetune import encoding
from response_tuning.finetune.encoding import MERGED, UNLIKE_TWINS, Encoder
from response_tuning.finetune.objectives import (
    IGNORED,
    OBJECTIVES,
    Another,
    Objective,
    ObjectiveConfig,
    Segment,
    UnfitError,
)
from response_tuning.finetune.rows import EncodedRow, Span
from response_tuning.finetune.witness import ALTERED
from response_tuning.templates import UNPREDICTED, Chat, install
from response_tuning.templates.continuation import continuation_tokenizer

ASSETS = Path(__file__).parents[1] / "assets"
GOLDEN = Path(__file__).parents[1] / "golden"
TOKENIZERS = {
    "tiny_tokenizer": None,
    "gpt_neox_20b": "tokenizers/gpt_neox_20b",
    "llama2": "tokenizers/llama2",
    "llama3": "tokenizers/llama3",
    "olmo1_dolma1_5": "tokenizers/olmo1_dolma1_5",
    "olmo2_dolma2": "tokenizers/olmo2_dolma2",
    "stories260k": "tiny_lm_stories260k/hf",
}
SYSTEM = Message(role="system", content="Be brief.")
EXAMPLES = [
    Example(
        row=0, instruction="Why is the sky blue?", response="Because blue light scatters most."
    ),
    Example(row=1, instruction="Name a list.", response="\n\n1. one\n2. two\n"),
    Example(row=2, instruction="Quote a tag.", response="It says <|assistant|>\nand <|user|>\n."),
    Example(row=3, instruction="Smile 🙂", response="🙂 naïve café, Ελλάδα, 日本"),
    Example(row=4, instruction="End a text.", response="The token </s> or <|endoftext|> ends it."),
    Example(
        row=5,
        turn=1,
        instruction="And at dusk?",
        response=" red",
        earlier=(
            Message(role="user", content="Why is the sky blue?"),
            Message(role="assistant", content="Light scatters."),
        ),
    ),
    Example(row=6, instruction="Tell me more. " * 40, response="No."),
    Example(row=7, instruction="Tell me all.", response="All of it, " * 60),
]


@pytest.fixture(scope="module", params=TOKENIZERS)  # some take seconds to load
def any_chat(request: pytest.FixtureRequest) -> tuple[str, Chat]:
    where = TOKENIZERS[request.param]
    folder = ASSETS / request.param
    if where is not None:
        folder = request.getfixturevalue("public_data") / where
    tokenizer = AutoTokenizer.from_pretrained(folder)
    install(tokenizer, "tulu")
    return request.param, Chat(tokenizer)


ANY_RESPONSE = [name for name in OBJECTIVES.names() if name != "self-judge"]
"""Objectives for any response; the other one learns digits."""
GOLDEN_OBJECTIVES = [name for name in ANY_RESPONSE if not name.startswith("weighted-")]


def encode(chat: Chat, objective: str, examples: list[Example], **how: Any) -> list[EncodedRow]:
    return list(Encoder(chat, objective, how.pop("window", 128), **how).rows(examples))


def response_ids(row: EncodedRow) -> list[int]:
    return [label for label in row.labels if label != IGNORED]


def test_ids_and_labels_equal_the_golden_file(
    any_chat: tuple[str, Chat], request: pytest.FixtureRequest
) -> None:
    name, chat = any_chat
    found = {
        objective: [
            {"status": row.status, "input_ids": row.input_ids, "labels": row.labels}
            | ({"hidden": [[each.start, each.stop] for each in row.hidden]} if row.hidden else {})
            for row in encode(chat, objective, EXAMPLES)
        ]
        for objective in GOLDEN_OBJECTIVES
    }
    path = GOLDEN / f"{name}.json"
    if request.config.getoption("--update-golden"):
        lines = [
            f"{json.dumps(objective)}: [\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
            for objective, rows in found.items()
        ]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


def test_prefix_and_response_decode_to_the_text(any_chat: tuple[str, Chat]) -> None:
    _, chat = any_chat
    for row in encode(chat, "response-tuning", EXAMPLES, window=2048):
        prefix = chat.encode(chat.opening)
        end = chat.decode([chat.turn_end.stop_id])
        # GPT-NeoX and OLMo normalise to NFC; these examples are in NFC already.
        assert chat.decode(row.input_ids) == chat.decode(prefix) + row.example.response + end


def test_the_prefix_is_what_apply_chat_template_gives(any_chat: tuple[str, Chat]) -> None:
    _, chat = any_chat
    for row in encode(chat, "instruction-tuning", EXAMPLES, window=2048):
        asked = [*row.example.earlier, Message(role="user", content=str(row.example.instruction))]
        served = chat.tokenizer.apply_chat_template(
            [m.model_dump() for m in asked], add_generation_prompt=True, return_dict=False
        )
        assert row.input_ids[: row.labels.count(IGNORED)] == served


@pytest.mark.parametrize("objective", ANY_RESPONSE)
def test_a_kept_row_ends_in_a_supervised_stop_token(objective: str, chat: Chat) -> None:
    for row in encode(chat, objective, EXAMPLES, window=4096):
        assert row.status == "kept"
        assert row.labels[-1] == row.input_ids[-1] == chat.turn_end.stop_id


def test_a_response_that_quotes_the_stop_token_does_not_end_there(chat: Chat) -> None:
    (row,) = encode(chat, "response-tuning", [EXAMPLES[4]])
    assert row.input_ids.count(chat.turn_end.stop_id) == 1


def test_the_final_newline_is_learned_only_on_request(chat: Chat) -> None:
    (row,) = encode(chat, "response-tuning", EXAMPLES[:1])
    (paper,) = encode(chat, "response-tuning", EXAMPLES[:1], final_newline=True)
    newline = continuation_tokenizer(chat.tokenizer).encode("\n", add_special_tokens=False).ids
    assert paper.input_ids == row.input_ids + newline
    assert paper.labels == row.labels + newline


def test_a_long_response_is_cut_to_the_window_and_has_no_stop_token(chat: Chat) -> None:
    (row,) = encode(chat, "instruction-tuning", [EXAMPLES[7]], window=64)
    assert (row.status, len(row.input_ids)) == ("truncated", 64)
    assert chat.turn_end.stop_id not in row.input_ids


def test_a_prompt_that_fills_the_window_is_dropped_under_its_reason(chat: Chat) -> None:
    (row,) = encode(chat, "instruction-tuning", [EXAMPLES[6]], window=64)
    assert (row.status, row.input_ids, row.labels) == ("prompt fills the window", [], [])


def test_response_tuning_alone_keeps_what_its_twin_would_drop(chat: Chat) -> None:
    (alone,) = encode(chat, "response-tuning", [EXAMPLES[6]], window=64)
    (twin,) = encode(
        chat, "response-tuning", [EXAMPLES[6]], window=64, twins=["instruction-tuning"]
    )
    assert (alone.status, twin.status) == ("kept", "prompt fills the window")


@pytest.mark.parametrize("window", [16, 40, 64, 100, 1000])
def test_twins_train_on_identical_response_tokens_in_the_same_order(
    window: int, chat: Chat
) -> None:
    arms = ["response-tuning", "instruction-tuning"]
    views = [encode(chat, arm, EXAMPLES, window=window, twins=arms) for arm in arms]
    without, with_instruction = views
    assert [row.status for row in without] == [row.status for row in with_instruction]
    assert list(map(response_ids, without)) == list(map(response_ids, with_instruction))


def test_shuffled_pairs_give_every_response_another_rows_instruction(chat: Chat) -> None:
    examples = [
        Example(row=i, instruction=f"question {i}", response=f"answer {i}") for i in range(9)
    ]
    rows = encode(chat, "shuffled-pairs", examples, seed=3)
    asked = [chat.decode(row.input_ids).split("question ")[1][0] for row in rows]
    assert sorted(asked) == [str(i) for i in range(9)]
    assert all(mine != str(row.example.row) for mine, row in zip(asked, rows, strict=True))
    again = encode(chat, "shuffled-pairs", examples, seed=3)
    other = encode(chat, "shuffled-pairs", examples, seed=4)
    assert (
        [r.input_ids for r in again] == [r.input_ids for r in rows] != [r.input_ids for r in other]
    )


class Unsearchable:
    """Examples that can be read in order alone."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self._examples = examples

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def __len__(self) -> int:
        raise AssertionError("the examples are counted")

    def __getitem__(self, position: int) -> Example:
        raise AssertionError("an example is looked up")


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_only_shuffled_pairs_look_another_example_up(objective: str, chat: Chat) -> None:
    expected = pytest.raises(AssertionError) if objective == "shuffled-pairs" else nullcontext()
    with expected:
        found = list(Encoder(chat, objective, 128).rows(Unsearchable(EXAMPLES)))
        assert found == encode(chat, objective, EXAMPLES)


@pytest.mark.parametrize("objective", OBJECTIVES.names())
def test_rows_are_the_same_in_chunks_of_any_size(
    objective: str, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encode(chat, objective, EXAMPLES)
    monkeypatch.setattr("response_tuning.finetune.encoding.CHUNK", 3)
    assert encode(chat, objective, EXAMPLES) == whole


def test_at_most_two_chunks_of_examples_are_in_memory(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk, alive, most = 20, 0, 0

    def forget(_: object) -> None:
        nonlocal alive
        alive -= 1

    def counted() -> Iterator[Example]:
        nonlocal alive, most
        for row in range(10 * chunk):
            example = Example(row=row, instruction="Why?", response=f"Because of {row}.")
            watched.append(weakref.ref(example, forget))
            alive += 1
            most = max(most, alive)
            yield example

    watched: list[weakref.ref[Example]] = []
    monkeypatch.setattr("response_tuning.finetune.encoding.CHUNK", chunk)
    encoder = Encoder(chat, "instruction-tuning", 64, twins=["response-tuning"])
    assert sum(1 for _ in encoder.rows(Unsearchable(counted()))) == 10 * chunk
    assert chunk <= most <= 2 * chunk + 1


def test_a_prompt_that_many_rows_share_is_encoded_once(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(chat, "response-tuning", 64, twins=["response-tuning-empty-user"])
    encode, asked = type(chat.tokenizer).__call__, []

    def told(self: Any, texts: list[str], **how: Any) -> Any:
        asked.extend(texts)
        return encode(self, texts, **how)

    monkeypatch.setattr(type(chat.tokenizer), "__call__", told)
    assert len(list(encoder.rows(EXAMPLES))) == len(EXAMPLES)
    assert len(asked) == 2


def test_pad_equal_to_eos_changes_nothing(tokenizer: Any) -> None:
    install(tokenizer, "tulu")
    before = encode(Chat(tokenizer), "instruction-tuning", EXAMPLES)
    tokenizer.pad_token = tokenizer.eos_token
    after = encode(Chat(tokenizer), "instruction-tuning", EXAMPLES)
    assert [row.labels for row in before] == [row.labels for row in after]


def test_no_token_is_added(tokenizer: Any) -> None:
    size = len(tokenizer)
    install(tokenizer, "tulu")
    encode(Chat(tokenizer), "response-tuning", EXAMPLES)
    assert len(tokenizer) == size


def test_a_message_that_the_template_refuses_is_counted_with_its_words(chat: Chat) -> None:
    chat.tokenizer.chat_template += (
        "{% if messages[0].role == 'system' %}"
        "{{ raise_exception('no place for a system message') }}{% endif %}"
    )
    example = Example(row=0, instruction="Hi", response="Ho", earlier=(SYSTEM,))
    (row,) = encode(chat, "instruction-tuning", [example])
    assert "no place for a system message" in row.status


def test_a_system_message_is_trained_in_front_of_the_instruction(chat: Chat) -> None:
    example = Example(row=0, instruction="Hi", response="Ho", earlier=(SYSTEM,))
    (row,) = encode(chat, "instruction-tuning", [example])
    assert chat.decode(row.input_ids) == "<s><|user|>\nBe brief.\n\nHi\n<|assistant|>\nHo</s>"
    (alone,) = encode(chat, "response-tuning", [example])
    assert chat.decode(alone.input_ids) == "<s><|assistant|>\nHo</s>"


def test_a_tokenizer_that_changes_a_continuation_is_refused(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import normalizers

    with_a_space = Tokenizer.from_str(chat.tokenizer.backend_tokenizer.to_str())
    with_a_space.normalizer = normalizers.Prepend(" ")
    monkeypatch.setattr(chat, "continuation", with_a_space)
    with pytest.raises(ModelError, match="when it continues a prompt"):
        Encoder(chat, "response-tuning", 64)


def test_a_double_bos_is_refused(tokenizer: Any) -> None:
    install(tokenizer, "tulu")
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    with pytest.raises(ModelError, match="two BOS tokens"):
        Encoder(Chat(tokenizer), "response-tuning", 64)


Learn = Callable[[Callable[[Example, Chat], list[Segment]]], None]


@pytest.fixture
def learn(monkeypatch: pytest.MonkeyPatch) -> Learn:
    """Registers a user's objective as ``own``, for one test."""

    def register(segments: Callable[[Example, Chat], list[Segment]]) -> None:
        objective: Objective = lambda example, other, chat: segments(example, chat)  # noqa: E731
        monkeypatch.setitem(OBJECTIVES._entries, "own", objective)

    return register


def shout(example: Example, chat: Chat) -> list[Segment]:
    return [Segment(chat.opening, False), Segment(example.response.upper(), True)]


def stretches(chat: Chat, row: EncodedRow) -> list[tuple[str, bool]]:
    """The row's text, split where supervision changes."""
    bounds = [0, *(place for span in row.spans for place in span[:2]), len(row.input_ids)]
    texts = [chat.decode(row.input_ids[start:end]) for start, end in pairwise(bounds)]
    return [(text, place % 2 == 1) for place, text in enumerate(texts) if text]


def test_a_response_that_an_objective_changes_is_learned_as_changed(
    chat: Chat, learn: Learn
) -> None:
    learn(shout)
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert stretches(chat, row) == [
        ("<s><|assistant|>\n", False),
        ("BECAUSE BLUE LIGHT SCATTERS MOST.</s>", True),
    ]


def test_an_instruction_can_carry_loss_too(chat: Chat, learn: Learn) -> None:
    learn(
        lambda example, chat: [
            Segment("<s><|user|>\n", False),
            Segment(str(example.instruction), True),
            Segment("\n<|assistant|>\n", False),
            Segment(example.response, True),
        ]
    )
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert stretches(chat, row) == [
        ("<s><|user|>\n", False),
        ("Why is the sky blue?", True),
        ("\n<|assistant|>\n", False),
        ("Because blue light scatters most.</s>", True),
    ]
    (served,) = encode(chat, "instruction-tuning", EXAMPLES[:1])
    assert chat.decode(row.input_ids) == chat.decode(served.input_ids)


def test_empty_segments_say_nothing_and_neighbours_join(chat: Chat, learn: Learn) -> None:
    learn(
        lambda example, chat: [
            Segment("", False),
            Segment("", True),
            Segment(chat.opening, False),
            Segment("", False),
            Segment("No", True),
            Segment("", False),
            Segment("pe", True),
            Segment("", True),
        ]
    )
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert stretches(chat, row) == [(chat.opening, False), ("Nope</s>", True)]
    assert len(row.spans) == 1
    (served,) = encode(chat, "response-tuning", EXAMPLES[:1])
    assert row.input_ids[: row.spans[0][0]] == served.input_ids[: served.spans[0][0]]


def test_a_row_ends_in_a_supervised_stop_token_whatever_its_last_segment(
    chat: Chat, learn: Learn
) -> None:
    learn(
        lambda example, chat: [
            Segment(chat.opening, False),
            Segment(example.response, True),
            Segment(" [checked]", False),
        ]
    )
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert stretches(chat, row) == [
        (chat.opening, False),
        (EXAMPLES[0].response, True),
        (" [checked]", False),
        ("</s>", True),
    ]


def test_special_tokens_are_what_they_are_in_given_text_alone(chat: Chat, learn: Learn) -> None:
    learn(
        lambda example, chat: [
            Segment(chat.opening, False),
            Segment("a</s>", True),
            Segment("</s>\n", False),
            Segment("b", True),
        ]
    )
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert chat.decode(row.input_ids) == chat.opening + "a</s></s>\nb</s>"
    assert row.input_ids.count(chat.turn_end.stop_id) == 2
    assert row.labels.count(chat.turn_end.stop_id) == 1


def test_the_first_token_carries_no_loss_because_nothing_predicts_it(
    tokenizer: Any, learn: Learn
) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"  # no marks, no tags
    )
    chat = Chat(tokenizer)
    learn(lambda example, chat: [Segment(example.response, True)])
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert row.spans == [Span(1, len(row.input_ids))]
    assert chat.decode(row.input_ids) == f"{EXAMPLES[0].response}</s>"


@pytest.mark.parametrize(
    ("segments", "fault"),
    [
        ([], "no segment carries loss"),
        ([Segment("<s>", False), Segment("text", 0.0)], "no segment carries loss"),
        ([Segment("<s>", False), Segment(None, True)], "a segment's text is None"),  # type: ignore[arg-type]
        ([Segment("<s>", False), Segment("a", "no")], "a segment's weight is 'no'"),  # type: ignore[arg-type]
        ([Segment("<s>", -1), Segment("a", True)], "a segment's weight is -1"),
        ([Segment("<s>", 0), Segment("a", math.nan)], "a segment's weight is nan"),
        ([Segment("<s>", 0), Segment("a", math.inf)], "a segment's weight is inf"),
    ],
)
def test_segments_that_teach_nothing_are_refused_by_name_and_row(
    chat: Chat, learn: Learn, segments: list[Segment], fault: str
) -> None:
    learn(lambda example, chat: segments)
    with pytest.raises(ConfigError, match=f"objective 'own', row 7: {fault}"):
        encode(chat, "own", EXAMPLES[7:])


def test_a_row_that_begins_otherwise_than_every_prompt_is_left_out(
    chat: Chat, learn: Learn
) -> None:
    learn(lambda example, chat: [Segment("<|assistant|>\n", False), Segment("Yes.", True)])
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert row.status == "does not begin with '<s>', as every prompt does"
    assert (row.input_ids, row.labels) == ([], [])


@pytest.mark.parametrize("window", [16, 40, 64, 100, 1000])
def test_a_twin_that_trains_on_other_text_is_cut_and_filtered_alike_and_reported(
    chat: Chat, learn: Learn, window: int
) -> None:
    learn(shout)
    arms = ["own", "instruction-tuning", "response-tuning"]
    views = [encode(chat, arm, EXAMPLES, window=window, twins=arms) for arm in arms]
    assert len({tuple(row.status for row in view) for view in views}) == 1
    for view in views:
        for row in view:
            changed = row.example.response.upper() != row.example.response
            assert (UNLIKE_TWINS in row.remarks) == (row.trained and changed)
    alike = ["response-tuning", "instruction-tuning", "shuffled-pairs"]
    assert not any(
        UNLIKE_TWINS in row.remarks for row in encode(chat, alike[0], EXAMPLES, twins=alike)
    )


def test_a_row_cut_in_the_middle_of_a_given_segment_keeps_what_it_learned_before(
    chat: Chat, learn: Learn
) -> None:
    learn(
        lambda example, chat: [
            Segment(chat.opening, False),
            Segment("Yes.", True),
            Segment(" no" * 50, False),
            Segment("Last.", True),
        ]
    )
    (row,) = encode(chat, "own", EXAMPLES[:1], window=40)
    assert (row.status, len(row.input_ids)) == ("truncated", 40)
    assert stretches(chat, row)[1] == ("Yes.", True)
    assert len(row.spans) == 1


def test_a_row_that_quotes_a_stop_token_that_is_not_special_is_left_out(tokenizer: Any) -> None:
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=False, normalized=False)])
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    said = ["It ends in <|im_end|> here.", "Yes.", "<|im_end|>", "No."]
    examples = [Example(row=row, response=text) for row, text in enumerate(said)]
    rows = encode(Chat(tokenizer), "response-tuning", examples)
    inside = "the stop token '<|im_end|>' stands in the response"
    assert [row.status for row in rows] == [inside, "kept", inside, "kept"]


def test_characters_that_cannot_be_spelt_are_named_once(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
    lost = set(tokenizer.tokenize("Ä")[-1])  # the second byte
    model = vocabulary["model"]
    model["vocab"] = {word: id_ for word, id_ in model["vocab"].items() if not lost & set(word)}
    model["merges"] = [pair for pair in model["merges"] if not lost & set("".join(pair))]
    cut = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)),
        bos_token="<s>",
        eos_token="</s>",
    )
    install(cut, "tulu")
    said = ["Äpfel und Birnen.", "Nur Birnen.", "Ein Ä, noch ein Ä."]
    examples = [Example(row=row, response=text) for row, text in enumerate(said)]
    rows = encode(Chat(cut), "response-tuning", examples)
    reason = "characters that the tokenizer cannot spell"
    assert [row.status for row in rows] == [reason, "kept", reason]
    assert [record.getMessage() for record in caplog.records] == [
        "the tokenizer cannot spell 'Ä': responses with such characters are dropped"
    ]


def test_prompts_that_begin_otherwise_than_every_text_are_reported(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install(tokenizer, "tulu")
    tokenizer.chat_template = "{{ '\\n' }}" + str(tokenizer.chat_template)
    chat = Chat(tokenizer)
    with caplog.at_level(logging.WARNING):
        (row,) = encode(chat, "response-tuning", EXAMPLES[:1])
    assert "prompts begin with '\\n<s>', but" in caplog.text
    (served,) = encode(chat, "instruction-tuning", EXAMPLES[:1])
    assert row.input_ids[:2] == served.input_ids[:2]
    assert row.input_ids[1] == tokenizer.bos_token_id


TEXTS = st.one_of(
    st.text(max_size=60),
    st.sampled_from(["", "\n", "\n\n", " x", "<|assistant|>\n", "</s>", "<s>", "🙂", "\u200b"]),
    st.lists(st.sampled_from(["\n", " ", "a", "</s>", "<|user|>", "🙂"]), max_size=12).map("".join),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4),
    objective=st.sampled_from(ANY_RESPONSE),
    window=st.integers(8, 90),
)
def test_whatever_the_text_the_mask_is_exact(
    chat: Chat, pairs: list[tuple[str, str]], objective: str, window: int
) -> None:
    examples = [
        Example(row=i, instruction=asked, response=said) for i, (asked, said) in enumerate(pairs)
    ]
    rows = encode(chat, objective, examples, window=window)
    assert [row.example for row in rows] == examples
    plain = continuation_tokenizer(chat.tokenizer)
    for row in rows:
        if not row.trained:
            assert row.status == "prompt fills the window"
            continue
        said = plain.encode(row.example.response, add_special_tokens=False).ids
        whole = [*said, chat.turn_end.stop_id]
        prompt = Span(1, row.spans[-1].start, 0.1)
        assert row.spans[:-1] == ([prompt] if objective.startswith("weighted-") else [])
        free = row.spans[-1].start
        assert row.spans[-1] == Span(free, len(row.input_ids))
        assert len(row.input_ids) == len(row.labels) <= window
        assert row.labels == [
            token if any(start <= place < end for start, end, _ in row.spans) else IGNORED
            for place, token in enumerate(row.input_ids)
        ]
        assert row.input_ids[free:] == whole[: window - free]
        assert row.status == ("kept" if len(whole) <= window - free else "truncated")
        assert plain.decode(said, skip_special_tokens=False) == row.example.response


def test_every_row_of_a_real_file_is_accounted_for(public_data: Path, chat: Chat) -> None:
    source = json.loads((public_data / "dolly" / "dolly_filtered.json").read_text())
    examples = [
        Example(row=i, instruction=row["instruction"], response=row["output"])
        for i, row in enumerate(source)
    ]
    rows = encode(chat, "instruction-tuning", examples, window=64)
    counts = Counter(row.status for row in rows)
    assert sum(counts.values()) == len(source) == 2496
    assert set(counts) == {"kept", "truncated", "prompt fills the window"}


@pytest.mark.parametrize(
    ("content", "altered"),
    [
        ("m.content", [False, False, False]),
        ("m.content | trim", [False, False, False]),
        ("m.content[:20]", [False, False, True]),
        ("m.content | lower", [True, True, True]),
        ("m.content if m.role != 'system'", [False, True, False]),
    ],
)
def test_rows_whose_prompt_lacks_a_messages_text_are_remarked(
    tokenizer: Any, content: str, altered: list[bool]
) -> None:
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ " + content + " }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    system = (Message(role="system", content="Be brief."),)
    asked = [("Why?", ()), ("Why?", system), (" Why is the sky blue?\n", ())]
    examples = [
        Example(row=row, instruction=instruction, earlier=earlier, response="So.")
        for row, (instruction, earlier) in enumerate(asked)
    ]
    arms = ["instruction-tuning", "response-tuning"]
    shown, unseen = (encode(Chat(tokenizer), arm, examples, twins=arms) for arm in arms)
    assert [ALTERED in row.remarks for row in shown] == altered
    assert not any(row.remarks for row in unseen)


def test_a_prompt_that_carries_loss_begins_with_the_marks_as_ids(chat: Chat, learn: Learn) -> None:
    learn(
        lambda example, chat: [
            Segment(chat.prompt([Message(role="user", content=str(example.instruction))]), True),
            Segment(example.response, True),
        ]
    )
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert row.status == "kept"
    assert stretches(chat, row) == [
        ("<s>", False),
        (
            "<|user|>\nWhy is the sky blue?\n<|assistant|>\nBecause blue light scatters most.</s>",
            True,
        ),
    ]
    assert row.input_ids[0] == chat.tokenizer.bos_token_id
    assert row.spans == [Span(1, len(row.input_ids))]


CONVERSATION = Example(
    row=9,
    turn=1,
    instruction="And at dusk?",
    response="Red.",
    earlier=(
        Message(role="user", content="Why is the sky blue?"),
        Message(role="assistant", content="Light scatters."),
    ),
)


def weighted(chat: Chat, weight: float, examples: list[Example], window: int) -> list[EncodedRow]:
    how: dict[str, Any] = {"settings": {"prompt_weight": weight}, "window": window}
    return encode(chat, "weighted-instruction-tuning", examples, **how)


@pytest.mark.parametrize("window", [16, 40, 64, 1000])
def test_a_weight_on_the_prompt_changes_neither_ids_nor_what_is_cut_or_dropped(
    any_chat: tuple[str, Chat], window: int
) -> None:
    _, chat = any_chat
    examples = [*EXAMPLES, CONVERSATION]
    plain = encode(chat, "instruction-tuning", examples, window=window)
    assert weighted(chat, 0.0, examples, window) == plain
    for row, served in zip(weighted(chat, 0.25, examples, window), plain, strict=True):
        assert row[:3] == served[:3]
        if row.trained:
            prompt, response = row.spans
            assert prompt == Span(len(chat.encode(chat.marks)) or 1, response.start, 0.25)
            assert [response] == served.spans


def test_a_prompt_of_weight_1_joins_the_response(chat: Chat) -> None:
    (row,) = weighted(chat, 1.0, [CONVERSATION], 200)
    assert row.spans == [Span(1, len(row.input_ids))]
    # The end of the earlier answer and of this one: both are learned.
    assert row.labels.count(chat.turn_end.stop_id) == 2


def test_plain_text_is_encoded_alike_whatever_its_weight(chat: Chat, learn: Learn) -> None:
    def with_weight(weight: float, rendered: bool | None = None) -> EncodedRow:
        quoted = Segment("a</s>b", weight, rendered)
        learn(lambda example, chat: [Segment(chat.opening, 0), quoted, Segment(" end", 1)])
        (row,) = encode(chat, "own", EXAMPLES[:1])
        return row

    assert with_weight(0.5).input_ids == with_weight(True).input_ids
    assert with_weight(0, False).input_ids == with_weight(True).input_ids
    assert with_weight(0.5).input_ids.count(chat.turn_end.stop_id) == 1
    assert with_weight(0).input_ids.count(chat.turn_end.stop_id) == 2


class Pairs(ObjectiveConfig):
    """Two rows of the data with one number are partners."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        if not example.response:
            raise UnfitError("empty")
        return [Segment(chat.opening, False), Segment(example.response, True)]

    def group(self, example: Example) -> int | None:
        return example.row if example.row < 3 else None


def test_partners_of_a_dropped_row_are_dropped_with_it(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTIVES._entries, "pairs", Pairs)
    texts = [(0, "a"), (0, "b"), (1, "a"), (1, ""), (2, "c"), (2, "d"), (3, "e"), (4, "")]
    examples = [Example(row=row, turn=n, response=text) for n, (row, text) in enumerate(texts)]
    rows = encode(chat, "pairs", examples)
    assert [row.status for row in rows] == [
        *("kept", "kept", "partner dropped: empty", "empty", "kept", "kept", "kept", "empty")
    ]
    assert [row.group for row in rows] == [0, 0, 1, 1, 2, 2, None, None]


BARE = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}"
    "{% endfor %}"
)


@pytest.fixture
def bare(tokenizer: Any) -> Chat:
    """A template that prints nothing but the texts, on a tokenizer without BOS."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    tokenizer.bos_token = None
    tokenizer.chat_template = BARE
    return Chat(tokenizer)


def test_a_response_that_nothing_precedes_is_left_out_and_counted(bare: Chat) -> None:
    reason = UNPREDICTED
    examples = [
        Example(row=0, instruction="", response="So."),
        Example(row=1, instruction="Why? ", response="So."),
        Example(row=2, instruction="Why? ", response=""),
    ]
    served, learned = [reason, "kept", "kept"], [reason] * 3
    arms = {"response-tuning": learned, "instruction-tuning": served}
    arms |= {"response-tuning-empty-user": learned, "weighted-instruction-tuning": served}
    for objective, statuses in arms.items():
        assert [row.status for row in encode(bare, objective, examples)] == statuses, objective
    # Twins train on the same tokens, so what one of them cannot learn is left out of both.
    twins = encode(bare, "instruction-tuning", examples, twins=["response-tuning"])
    assert [row.status for row in twins] == learned


def test_every_token_of_a_response_carries_loss_after_a_prompt_of_one_token(bare: Chat) -> None:
    (row,) = encode(bare, "instruction-tuning", [Example(row=0, instruction="?", response="So.")])
    assert len(bare.encode("?")) == 1
    assert response_ids(row) == [*bare.encode_reply("So."), bare.turn_end.stop_id]


def test_an_objective_of_the_users_does_not_lose_the_first_token_of_a_response(
    bare: Chat, learn: Learn
) -> None:
    learn(lambda example, chat: [Segment(chat.opening, False), Segment(example.response, 0.5)])
    (row,) = encode(bare, "own", EXAMPLES[:1])
    assert row.status.startswith("nothing precedes the response")
    learn(lambda example, chat: [Segment(chat.opening, 0.5, rendered=True), Segment("a b", True)])
    (row,) = encode(bare, "own", EXAMPLES[:1])
    assert row.status.startswith("nothing precedes the response")
    for prompt in ("? ", " "):
        learn(lambda example, chat, prompt=prompt: [Segment(prompt, 0), Segment("a b", 0.5)])  # type: ignore[misc]
        assert encode(bare, "own", EXAMPLES[:1])[0].status == "kept"


def test_a_row_ends_in_the_stop_token_right_after_its_response(
    tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ ' ' + m.content + ' ' + eos_token "
        "if m.role == 'assistant' else '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"
    )
    chat = Chat(tokenizer)
    with caplog.at_level(logging.WARNING):
        (row,) = encode(chat, "instruction-tuning", EXAMPLES[:1])
    assert stretches(chat, row) == [
        ("<s>[INST] Why is the sky blue? [/INST]", False),
        ("Because blue light scatters most.</s>", True),
    ]
    assert "the template prints ' ' between an answer and '</s>'" in caplog.text


HIDDEN = [
    *EXAMPLES,
    Example(row=8, instruction="Two lines at the end.\n\n", response="Yes."),
    Example(row=9, instruction=" <|assistant|>\n <", response=" Yes."),
    Example(row=10, instruction="", response="Yes."),
]


@pytest.mark.parametrize("window", [24, 128, 2048])
def test_decoupled_rows_are_those_of_instruction_tuning_with_their_prompts_hidden(
    any_chat: tuple[str, Chat], window: int
) -> None:
    _, chat = any_chat
    visible = chat.encode(chat.opening)
    trained = 0
    pairs = zip(
        encode(chat, "decoupled", HIDDEN, window=window),
        encode(chat, "instruction-tuning", HIDDEN, window=window),
        strict=True,
    )
    for row, twin in pairs:
        assert row._replace(hidden=()) == twin
        if row.trained:
            trained += 1
            (hidden,) = row.hidden
            assert row.input_ids[: hidden.start] == chat.encode(chat.marks)
            seen, response = row.seen, response_ids(row)
            # The end of the opening is where the loss begins, in tokens and in positions.
            assert seen.input_ids[-len(response) :] == response
            prefix = chat.decode(seen.input_ids[: -len(response)])
            assert prefix.replace(" ", "") == chat.decode(visible).replace(" ", "")
            assert seen.positions == [p for p in range(len(row.input_ids)) if p not in hidden]
    assert trained >= (1 if window == 24 else 5)


def test_hidden_instructions_of_the_same_length_make_the_same_document(
    chat: Chat, tmp_path: Path
) -> None:
    from response_tuning.finetune.store import read, write

    pair = [
        Example(row=0, instruction="Who is it for?", response="It is not."),
        Example(row=1, instruction="How is it cut?", response="It is not."),
    ]
    first, second = encode(chat, "decoupled", pair)
    assert len(first.input_ids) == len(second.input_ids)
    assert first.input_ids != second.input_ids
    write([first, second], tmp_path / "store")
    documents, counts = read(tmp_path / "store")
    assert documents[0] == documents[1]._replace(example=0)
    assert counts["hidden_tokens"] == sum(len(row.hidden[0]) for row in (first, second))


def test_hidden_text_that_merges_with_what_is_seen_is_counted(chat: Chat, learn: Learn) -> None:
    assert len(chat.encode("over")) == 1
    learn(lambda *_: [Segment("<s>over", False, hidden=(3, 5)), Segment("Yes.", True)])
    (row,) = encode(chat, "own", EXAMPLES[:1])
    assert (row.status, row.input_ids) == (MERGED, [])


@pytest.mark.parametrize(
    "segment",
    [
        Segment("<s>Why?", False, hidden=(3, 7)),
        Segment("<s>Why?", False, hidden=(4, 4)),
        Segment("<s>Why?", False, hidden=(-1, 4)),
        Segment("<s>Why?", 0.1, rendered=True, hidden=(3, 5)),
        Segment("<s>Why?", False, rendered=False, hidden=(3, 5)),
    ],
)
def test_text_that_cannot_be_hidden_is_refused(chat: Chat, segment: Segment, learn: Learn) -> None:
    learn(lambda *_: [segment, Segment("Yes.", True)])
    with pytest.raises(ConfigError, match=r"'own', row 0: hides characters .* leave its end"):
        encode(chat, "own", EXAMPLES[:1])


def test_hidden_text_that_would_predict_a_response_is_never_trained_on(
    chat: Chat, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "checked", lambda segment, _: segment)
    learn(
        lambda *_: [
            Segment("<s>Why?", 0.0, rendered=True, hidden=(3, 7)),
            Segment("Yes.", 1.0, rendered=False),
        ]
    )
    with pytest.raises(ModelError, match=r"row 0: hidden text .* predicts text that does"):
        encode(chat, "own", EXAMPLES[:1])
