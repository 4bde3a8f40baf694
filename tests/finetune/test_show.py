import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer

from response_tuning.artifacts import Dropped, Example, write_json, write_jsonl
from response_tuning.finetune import show
from response_tuning.finetune.encoding import Encoder
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.show import AuditEntry, Overview, histogram
from response_tuning.templates import Chat, install

ASSETS = Path(__file__).parents[1] / "assets"
SCRIPT = "<script src='http://evil.example/x.js'>alert(1)</script> & co"
MARKUP = "role '[/bold]' is not supported :smile:"
EXAMPLES = [
    Example(row=1, instruction="Why?", response="Because."),
    Example(row=3, turn=0, instruction="One?", response="1"),
    Example(row=3, turn=2, instruction="Three?", response=" three \n"),
    Example(row=4, instruction="Page?", response=SCRIPT),
    Example(row=5, instruction="All?", response="🙂" * 60),
    Example(row=6, instruction="Go on. " * 60, response="No."),
    Example(row=7, instruction="Colour?", response="\x1b[31mred\x07 naïve"),
]
DROPPED = [
    Dropped(row=0, reason="empty response", where="answers.jsonl:1"),
    Dropped(row=2, reason=MARKUP, where="[b]/answers.jsonl:3"),
    Dropped(row=3, turn=1, reason="duplicate", where="answers.jsonl:4"),
    Dropped(row=8, reason="blank line", where="answers.jsonl:9"),
]
STATUSES = {
    "kept": 5,
    "truncated": 1,
    "prompt fills the window": 1,
    **{drop.reason: 1 for drop in DROPPED},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "dropped.jsonl", DROPPED)
    write_json(tmp_path / "audit.json", {"rows": 9})
    return tmp_path


def entries(chat: Chat, data: Path, **how: Any) -> Iterator[AuditEntry]:
    encoder = Encoder(chat, "instruction-tuning", how.pop("window", 120), **how)
    return show.entries(encoder.rows(EXAMPLES), data)


@pytest.fixture
def view(chat: Chat, data: Path) -> Overview:
    return show.overview(entries(chat, data), data, show=100)


@pytest.fixture(params=["tests", "tokenizers/llama2", "tiny_lm_stories260k/hf"])
def any_chat(request: pytest.FixtureRequest) -> Chat:
    folder = ASSETS / "tiny_tokenizer"
    if request.param != "tests":
        folder = request.getfixturevalue("public_data") / request.param
    tokenizer = AutoTokenizer.from_pretrained(folder)
    install(tokenizer, "tulu")
    return Chat(tokenizer)


def printed(view: Overview, chat: Chat, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=30, force_terminal=terminal, color_system="auto")
    show.print_overview(view, chat, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("final_newline", [False, True])
@pytest.mark.parametrize("window", [41, 42, 43, 2048])
def test_stretches_join_up_to_the_text_and_to_the_tokens(
    any_chat: Chat, data: Path, window: int, final_newline: bool
) -> None:
    for entry in entries(any_chat, data, window=window, final_newline=final_newline):
        stretches = list(show.stretches(entry, any_chat))
        assert "".join(stretch.text for stretch in stretches) == any_chat.decode(entry.input_ids)
        tokens = [token for stretch in stretches for token in stretch.tokens]
        assert tokens == any_chat.tokenizer.convert_ids_to_tokens(entry.input_ids)


def test_what_carries_loss_is_the_response_to_the_last_space_and_its_stop_token(
    any_chat: Chat, data: Path
) -> None:
    end = any_chat.decode([any_chat.turn_end.stop_id])
    responses = {(example.row, example.turn): example.response for example in EXAMPLES}
    for entry in entries(any_chat, data, window=2048):
        if entry.input_ids:
            given, learned = show.stretches(entry, any_chat)
            assert (given.supervised, learned.supervised) == (False, True)
            assert given.text.endswith("<|assistant|>\n")
            assert learned.text == responses[entry.row, entry.turn] + end


def test_stretches_follow_the_labels_wherever_they_change(chat: Chat) -> None:
    ids = chat.encode("abcdef")
    assert len(ids) == 6
    labels = [ids[0], IGNORED, IGNORED, *ids[3:]]
    found = list(show.stretches(AuditEntry(0, 0, "kept", ids, labels), chat))
    assert [(stretch.text, stretch.supervised) for stretch in found] == [
        ("a", True),
        ("bc", False),
        ("def", True),
    ]


def test_there_is_one_object_for_each_row_of_the_file_in_its_order(chat: Chat, data: Path) -> None:
    lines = [json.loads(line) for line in show.as_jsonl(entries(chat, data))]
    assert [line["index"] for line in lines] == list(range(9))
    for line in lines:
        more = {"more"} if line["index"] == 3 else set()
        assert set(line) == {"index", "status", "input_ids", "labels"} | more
    assert [line["status"] for line in lines] == [
        *("empty response", "kept", MARKUP, "kept", "kept", "truncated"),
        *("prompt fills the window", "kept", "blank line"),
    ]
    assert [turn["status"] for turn in lines[3]["more"]] == ["duplicate", "kept"]
    for turn in [*lines, *lines[3]["more"]]:
        dropped = turn["status"] not in ("kept", "truncated")
        assert dropped == (turn["input_ids"] == []) == (turn["labels"] == [])
        pairs = zip(turn["input_ids"], turn["labels"], strict=True)
        assert all(label in (IGNORED, token) for token, label in pairs)
    assert chat.decode(lines[3]["more"][1]["input_ids"]).endswith(" three \n</s>")


def test_the_counts_add_up(view: Overview, chat: Chat, data: Path) -> None:
    assert dict(view.statuses) == STATUSES
    assert sum(view.statuses.values()) == len(EXAMPLES) + len(DROPPED)
    assert view.source_rows == 9
    shown = [entry for entry in view.shown if entry.input_ids]
    assert list(view.lengths) == [len(entry.input_ids) for entry in shown]
    assert view.supervised == sum(label != IGNORED for e in shown for label in e.labels)
    few = show.overview(entries(chat, data), data, show=2)
    assert few[1:] == view[1:]


def test_rows_that_are_trained_on_are_shown_before_others_and_in_their_order(
    chat: Chat, data: Path
) -> None:
    def shown(count: int) -> list[tuple[int, int]]:
        view = show.overview(entries(chat, data), data, count)
        return [(entry.row, entry.turn) for entry in view.shown]

    assert shown(1) == [(1, 0)]
    assert shown(3) == [(1, 0), (3, 0), (3, 2)]
    assert shown(7) == [(0, 0), (1, 0), (3, 0), (3, 2), (4, 0), (5, 0), (7, 0)]
    nothing_trained = show.overview(entries(chat, data, window=2), data, show=1)
    assert [entry.row for entry in nothing_trained.shown] == [0]


def test_what_is_odd_about_responses_is_counted(chat: Chat, data: Path, tmp_path: Path) -> None:
    examples = [Example(row=i, response=text) for i, text in enumerate(["1</s>", "2</s> ", "3"])]
    rows = Encoder(chat, "response-tuning", 64).rows(examples)
    view = show.overview(show.entries(rows, data), data, show=1)
    remark = "end in '</s>' as text: the model learns to write it; remove it from the data"
    assert view.remarks == {remark: 2}
    assert f"          2  {remark}" in printed(view, chat, terminal=False).splitlines()
    show.write_html(view, chat, tmp_path / "show.html", title="odd")
    assert remark in Page((tmp_path / "show.html").read_text(encoding="utf-8")).text


@pytest.mark.parametrize(
    "lengths", [[1], [1] * 5 + [2], [12, 13], [5, 700, 1024, 1024], list(range(1, 99)), []]
)
def test_the_histogram_counts_every_length_once_in_equal_bins(lengths: list[int]) -> None:
    bars = histogram(lengths)
    assert [bar.rows for bar in bars] == [
        sum(bar.low <= length <= bar.high for length in lengths) for bar in bars
    ]
    assert sum(bar.rows for bar in bars) == len(lengths)
    assert len(bars) <= 12
    assert len({bar.high - bar.low for bar in bars}) <= 1
    assert max((bar.share for bar in bars), default=1.0) == 1.0


def test_plain_text_says_all_of_it_without_escape_codes(view: Overview, chat: Chat) -> None:
    text = printed(view, chat, terminal=False)
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "row 0: empty response, 0 tokens, 0 carry loss (answers.jsonl:1)"
    assert f"row 2: {MARKUP}, 0 tokens, 0 carry loss ([b]/answers.jsonl:3)" in lines
    assert "  no loss '<s><|user|>\\nWhy?\\n<|assistant|>\\n'" in lines
    assert "  loss    'Because.</s>'" in lines
    assert any(line.startswith("row 3 turn 2: kept, ") for line in lines)
    assert "9 rows, 11 rows or turns accounted for:" in lines
    for status, count in STATUSES.items():
        assert f"{count:>11,}  {status}" in lines
    tokens = sum(view.lengths)
    share = f"{view.supervised / tokens:.1%}"
    assert f"{tokens:,} tokens, {view.supervised:,} carry loss ({share})" in lines
    bars = [line.split() for line in lines if re.match(r" +\d+-\d+ ", line)]
    assert sum(int(bar[1]) for bar in bars) == len(view.lengths)
    assert max(len(bar[2]) for bar in bars if len(bar) > 2) == 40


def test_a_terminal_gets_colours_where_there_is_loss(view: Overview, chat: Chat) -> None:
    text = printed(view, chat, terminal=True)
    assert "  loss    \x1b[32mBecause.</s>\x1b[0m" in text
    assert "  no loss \x1b[2m<s><|user|>" in text
    assert MARKUP in text


def test_a_terminal_does_not_obey_the_data(view: Overview, chat: Chat) -> None:
    text = printed(view, chat, terminal=True)
    assert r"\x1b[31mred\x07 naïve</s>" in text
    assert "\x07" not in text
    assert "\x1b[31m" not in text


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.learned = ""
        self._is_learned = False
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_learned = dict(attrs).get("class") == "loss"

    def handle_endtag(self, tag: str) -> None:
        self._is_learned = False
        self.text += " " if tag == "td" else ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._is_learned:
            self.learned += data


@pytest.fixture
def page(view: Overview, chat: Chat, tmp_path: Path) -> Page:
    show.write_html(view, chat, tmp_path / "new" / "show.html", title="a <b> title")
    return Page((tmp_path / "new" / "show.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_from_elsewhere(page: Page) -> None:
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1  # its own
    assert not {*names} & {"link", "img", "iframe", "object", "embed", "base", "a"}
    assert not {name for _, attributes in page.tags for name in attributes} & {"src", "href"}
    style = page.text.partition("body {")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import", style)


def test_the_page_shows_the_data_as_text(page: Page, chat: Chat) -> None:
    assert page.text.count("a <b> title") == 2  # of the window and of the page
    for example in EXAMPLES[:4]:
        assert f"{example.response}</s>" in page.learned
    assert "<|user|>\nWhy?\n<|assistant|>\n" in page.text
    assert "Why?" not in page.learned


def test_the_page_counts_what_became_of_every_row(page: Page, view: Overview) -> None:
    words = " ".join(page.text.split())
    assert "What became of the 9 rows" in words
    for status, count in STATUSES.items():
        assert f"{count} {status}" in words
    assert f"{sum(view.lengths):,} tokens, {view.supervised:,} carry loss" in words
    assert "Row 2: " + MARKUP + ", 0 tokens ([b]/answers.jsonl:3)" in words
    assert "Row 3, turn 2: kept" in words
    for bar in histogram(view.lengths):
        assert f"{bar.low}\N{EN DASH}{bar.high} {bar.rows}" in words
    assert len([a for _, a in page.tags if a.get("class") == "bar"]) == len(histogram(view.lengths))


def test_rows_come_before_counts_and_long_ones_can_be_folded(page: Page) -> None:
    places = [page.text.index(text) for text in ("The first rows", "What became", "Lengths")]
    assert places == sorted(places)
    folded = [attributes for tag, attributes in page.tags if attributes.get("class") == "long"]
    assert folded == []
    assert "personal data" not in page.text


def test_a_long_row_is_open_until_a_phone_folds_it(chat: Chat, data: Path, tmp_path: Path) -> None:
    long = [Example(row=1, instruction="Why?", response="Because. " * 200)]
    rows = Encoder(chat, "instruction-tuning", 5000).rows(long)
    view = show.overview(show.entries(rows, data), data, show=9)
    show.write_html(view, chat, tmp_path / "show.html", title="long")
    tags = Page((tmp_path / "show.html").read_text(encoding="utf-8")).tags
    assert ("details", {"class": "long", "open": None}) in tags


def test_a_warning_stands_above_personal_data(view: Overview, chat: Chat, tmp_path: Path) -> None:
    def personal(text: str) -> list[str]:
        return ["e-mail"] if "Because" in text else []

    show.write_html(view, chat, tmp_path / "show.html", title="t", personal=personal)
    text = " ".join(Page((tmp_path / "show.html").read_text(encoding="utf-8")).text.split())
    places = [
        text.index("Do not pass this page on: 1 of the rows"),
        text.index("The first rows"),
        text.index("Holds personal data: e-mail."),
        text.index("Because."),
    ]
    assert places == sorted(places)


def test_a_page_of_nothing_but_dropped_rows_can_be_written(
    chat: Chat, data: Path, tmp_path: Path
) -> None:
    nothing = show.overview(show.entries([], data), data, show=5)
    show.write_html(nothing, chat, tmp_path / "show.html", title="nothing")
    assert "0 tokens" in Page((tmp_path / "show.html").read_text()).text
    assert "0 tokens, 0 carry loss (0.0%)" in printed(nothing, chat, terminal=False)


def test_weights_are_shown_where_they_are_not_1(chat: Chat, data: Path, tmp_path: Path) -> None:
    encoder = Encoder(chat, "weighted-instruction-tuning", 120, settings={"prompt_weight": 0.25})
    found = list(show.entries(encoder.rows(EXAMPLES[:1]), data))
    view = show.overview(found, data, show=9)
    lines = printed(view, chat, terminal=False).splitlines()
    place = lines.index("  no loss '<s>'")
    assert lines[place + 1 : place + 3] == [
        "  loss x0.25 '<|user|>\\nWhy?\\n<|assistant|>\\n'",
        "  loss    'Because.</s>'",
    ]
    row = next(json.loads(line) for line in show.as_jsonl(found) if '"weights"' in line)
    count = row["weights"].count(0.25)
    assert row["weights"] == [0.0] + [0.25] * count + [1.0] * (len(row["labels"]) - 1 - count)
    show.write_html(view, chat, tmp_path / "show.html", title="weighted")
    page = (tmp_path / "show.html").read_text(encoding="utf-8")
    assert 'class="part" title="loss x0.25">&lt;|user|&gt;' in page
    assert "at another weight than 1" in page


def test_hidden_text_is_a_third_state(chat: Chat, data: Path, tmp_path: Path) -> None:
    rows = list(Encoder(chat, "decoupled", 120).rows(EXAMPLES[:1]))
    (row,) = (entry for entry in show.entries(rows, data) if entry.trained)
    found = [(stretch.text, stretch.label.strip()) for stretch in show.stretches(row, chat)]
    assert found == [
        ("<s>", "no loss"),
        ("<|user|>\nWhy?\n", "hidden"),
        ("<|assistant|>\n", "no loss"),
        ("Because.</s>", "loss"),
    ]
    view = show.overview(show.entries(rows, data), data, show=9)
    hidden = len(rows[0].hidden[0])
    assert (view.hidden, view.tokens) == (hidden, len(rows[0].input_ids) - hidden)
    text = printed(view, chat, terminal=False)
    assert "  hidden  '<|user|>\\nWhy?\\n'" in text.splitlines()
    assert f"); {hidden} more are hidden from attention" in text
    show.write_html(view, chat, tmp_path / "show.html", title="hidden")
    page = (tmp_path / "show.html").read_text(encoding="utf-8")
    assert '<span class="hidden">&lt;|user|&gt;' in page
    assert f"Struck-through text ({hidden} more tokens) is hidden" in page
    (line,) = (
        line
        for line in map(json.loads, show.as_jsonl(show.entries(rows, data)))
        if line["input_ids"]
    )
    assert line["hidden"] == [[row.hidden[0].start, row.hidden[0].stop]]


def test_a_page_without_hidden_text_does_not_mention_it(
    view: Overview, chat: Chat, tmp_path: Path
) -> None:
    show.write_html(view, chat, tmp_path / "show.html", title="plain")
    assert "Struck-through" not in (tmp_path / "show.html").read_text(encoding="utf-8")
    assert "hidden" not in printed(view, chat, terminal=False)
