import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Completion, Message, Sampling, write_jsonl
from response_tuning.report.answers import read_answers
from response_tuning.report.browser import browser_json
from response_tuning.report.reading import read_scores

Grade = Callable[..., None]
Answer = Callable[..., None]

ROOM = 1_000_000


def browse(run: Path, *variants: str, room: int = ROOM) -> tuple[Any, list[str]]:
    benchmarks, _ = read_scores(run, variants)
    text, left_out = browser_json(read_answers(run, benchmarks), variants[:2], room)
    assert len(text.encode()) <= room
    return json.loads(text), left_out


def test_every_prompt_has_the_answers_of_all_variants_and_their_marks(
    run: Path, grade: Grade, answer: Answer
) -> None:
    grade("rt", {"correct": [1, 0], "strict": [0, 0], "words": [9, 9]}, groups=("sums", "names"))
    grade("it", {"correct": [1, None], "strict": [1, None], "words": [9, None]})
    answer("rt", ["four", "Bo"], prompt="Two and two?", stopped=False)
    answer("it", ["four", None], prompt="Two and two?")
    data, left_out = browse(run, "rt", "it", "urial")
    assert data["variants"] == ["rt", "it", "urial"]
    assert data["benchmarks"] == [{"name": "quiz", "metrics": ["strict", "correct"]}]
    first, second = data["items"]
    assert (first["id"], first["group"], first["prompt"]) == ("q0", "sums", "Two and two?")
    assert (first["texts"], first["which"]) == (["four"], [0, 0, -1])
    assert first["marks"] == ["l01", "s11", "---"]
    assert (second["texts"], second["marks"]) == (["Bo", "no reply"], ["l00", "e--", "---"])
    assert left_out == []
    assert data["compared"] == ["rt", "it"]


def test_a_conversation_keeps_its_turns(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1]})
    turns = (Message(role="system", content="Be brief."), Message(role="user", content="Hi"))
    said = Completion(
        item_id="q0", prompt=turns, response="Hi.", finish_reason="stop", key="k", model="m",
        template="t", sampling=Sampling(),
    )  # fmt: skip
    write_jsonl(run / "rt/seed-0/generate/quiz.jsonl", [said])
    data, _ = browse(run, "rt")
    assert data["items"][0]["prompt"] == [["system", "Be brief."], ["user", "Hi"]]


def test_answers_and_marks_are_of_the_first_seed(run: Path, grade: Grade, answer: Answer) -> None:
    for seed in (2, 10):
        grade("rt", {"correct": [seed == 10]}, seed=seed)
        answer("rt", [f"seed {seed}"], seed=seed)
    grade("base", {"correct": [0]}, seed=0)
    answer("base", ["seed 0"], seed=0)
    data, left_out = browse(run, "base", "rt")
    assert data["items"][0]["texts"] == ["seed 0", "seed 2"]
    assert data["items"][0]["marks"] == ["s0", "s0"]
    assert left_out == ["The answers of rt are of seed 2."]


def test_prompts_without_scores_are_shown_and_scores_without_answers_are_not(
    run: Path, grade: Grade, answer: Answer
) -> None:
    grade("rt", {"correct": [1]})
    grade("rt", {"correct": [1]}, benchmark="ranking")
    answer("rt", ["a", "b"])
    data, _ = browse(run, "rt")
    assert [item["id"] for item in data["items"]] == ["q0", "q1"]
    assert data["items"][1]["marks"] == ["s-"]


def test_prompts_keep_the_order_of_their_file(run: Path, grade: Grade, answer: Answer) -> None:
    grade("rt", {"correct": [1] * 12})
    answer("rt", ["a"] * 12)
    assert [item["id"] for item in browse(run, "rt")[0]["items"]] == [f"q{i}" for i in range(12)]


def test_a_page_that_would_be_too_large_holds_the_first_prompts_of_each_benchmark(
    run: Path, grade: Grade, answer: Answer
) -> None:
    for benchmark, count in (("long", 40), ("short", 2)):
        grade("rt", {"correct": [1] * count}, benchmark=benchmark)
        answer("rt", ["\u00e9" * 500] * count, benchmark=benchmark)
    data, left_out = browse(run, "rt", room=20_000)
    ids = [(item["benchmark"], item["id"]) for item in data["items"]]
    shown = len(ids) - 2
    assert 10 < shown < 20
    assert ids == [(0, f"q{place}") for place in range(shown)] + [(1, "q0"), (1, "q1")]
    assert left_out == [
        f"long: the first {shown} of 40 prompts are shown, to keep this page small."
    ]


def test_what_is_cut_of_many_benchmarks_is_one_sentence(
    run: Path, grade: Grade, answer: Answer
) -> None:
    for benchmark in "abcd":
        grade("rt", {"correct": [1, 1]}, benchmark=benchmark)
        answer("rt", ["so " * 200] * 2, benchmark=benchmark)
    assert browse(run, "rt", room=5_000)[1] == [
        "To keep this page small, only the first prompts are shown: 1 of 2 of a, 1 of 2 of b, "
        "1 of 2 of c, 1 of 2 of d."
    ]


def test_nothing_in_the_json_can_end_its_element(run: Path, grade: Grade, answer: Answer) -> None:
    hostile = "</script><!--<script>&\u2028\u2029'\"\\"
    grade("rt", {"correct": [1]}, groups=("<b>",))
    answer("rt", [hostile], prompt="</SCRIPT >")
    text, _ = browser_json(read_answers(run, read_scores(run, ["rt"])[0]), ["rt"], ROOM)
    assert not {*"<>&\u2028\u2029"} & {*text}
    item = json.loads(text)["items"][0]
    assert (item["texts"], item["group"], item["prompt"]) == ([hostile], "<b>", "</SCRIPT >")
