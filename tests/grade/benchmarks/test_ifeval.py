import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nltk
import pytest

from response_tuning.artifacts import Score, read_jsonl, write_jsonl
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade import grade, open_benchmark
from response_tuning.grade.benchmarks import ifeval

Completed = Callable[..., Any]
Scored = Callable[..., dict[str, Score]]
Rule = tuple[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _without_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where NLTK's data was never downloaded, and none is remembered."""
    monkeypatch.setattr(nltk.data, "path", [])
    forget()
    yield
    forget()


def forget() -> None:
    rules = ifeval._checkers()
    rules.instructions_registry.instructions.instructions_util._get_sentence_tokenizer.cache_clear()
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    nltk.data.clear_cache()
    ifeval._has_punkt.cache_clear()


def file_of(folder: Path, *instructions: Rule, prompt: str = "Do it.") -> Path:
    names, arguments = zip(*instructions, strict=True)
    row = {"key": 7, "prompt": prompt, "instruction_id_list": names, "kwargs": arguments}
    path = folder / "input_data.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def followed(tmp_path: Path, completion: Completed) -> Scored:
    """Score a response to a prompt with these instructions: metric -> score."""

    def run(response: str | None, *instructions: Rule) -> dict[str, Score]:
        path = file_of(tmp_path, *instructions)
        benchmark = open_benchmark("ifeval", GradeConfig(paths={"ifeval": path}))
        (item,) = benchmark.items()
        scores = list(benchmark.score(item, completion(item, response)))  # type: ignore[union-attr]
        assert len({score.metric for score in scores}) == len(scores)
        return {score.metric: score for score in scores}

    return run


NO_COMMA: Rule = ("punctuation:no_comma", {})
WORDS: Rule = ("length_constraints:number_words", {"num_words": 3, "relation": "at least"})
SENTENCES: Rule = (
    "length_constraints:number_sentences",
    {"num_sentences": 2, "relation": "at least"},
)
CAPITALS: Rule = (
    "change_case:capital_word_frequency",
    {"capital_frequency": 2, "capital_relation": "at least"},
)
LANGUAGE: Rule = ("language:response_language", {"language": "de"})


@pytest.mark.parametrize(
    ("name", "arguments", "good", "bad"),
    [
        (*NO_COMMA, "One two", "One, two"),
        (*WORDS, "one two three", "one two"),
        ("keywords:existence", {"keywords": ["apple", "pear"]}, "Pear, Apple", "apple"),
        ("keywords:forbidden_words", {"forbidden_words": ["apple"]}, "pineapples", "an apple"),
        (
            "keywords:letter_frequency",
            {"letter": "z", "let_frequency": 2, "let_relation": "at least"},
            "Zz",
            "z",
        ),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "- a\n- b", "- a"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
        ("startend:quotation", {}, '"Yes"', "Yes"),
        ("change_case:english_lowercase", {}, "this is all in lower case", "This is not"),
        (*LANGUAGE, "Das ist ein ganz gewöhnlicher deutscher Satz.", "This one is in English."),
        ("combination:two_responses", {}, "Yes\n******\nNo", "Yes"),
    ],
)
def test_a_response_is_checked_by_the_rule_of_its_instruction(
    followed: Scored, name: str, arguments: dict[str, Any], good: str, bad: str
) -> None:
    for response, expected in ((good, 1), (bad, 0), ("", 0), (None, 0)):
        scores = followed(response, (name, arguments))
        assert {metric: score.value for metric, score in scores.items()} == {
            "prompt_strict": expected,
            "prompt_strict_own": expected,
            "echo": 0,
            "prompt_loose": expected,
            "instruction_strict": expected,
            "instruction_loose": expected,
            "unchecked": 0,
        }


def test_a_prompt_needs_all_its_instructions_and_an_instruction_counts_by_itself(
    followed: Scored,
) -> None:
    scores = followed("one, two, three", NO_COMMA, WORDS)
    assert scores["prompt_strict"].value == 0
    assert scores["prompt_strict"].explanation == "not followed: punctuation:no_comma"
    assert (scores["instruction_strict"].value, scores["instruction_strict"].weight) == (0.5, 2)
    assert {score.group for score in scores.values()} == {"punctuation"}


def test_an_echo_may_keep_all_rules_and_says_nothing_of_its_own(followed: Scored) -> None:
    found = followed("Do it. Do it.", NO_COMMA)
    names = ("echo", "prompt_strict", "prompt_strict_own")
    assert [found[name].value for name in names] == [1, 1, 0]
    found = followed("I do. It is done", NO_COMMA)
    assert [found[name].value for name in names] == [0, 1, 1]


def test_the_loose_rule_forgives_a_first_line_and_emphasis(followed: Scored) -> None:
    scores = followed('Sure, here it is:\n*"No comma in it"*', NO_COMMA, ("startend:quotation", {}))
    assert scores["prompt_strict"].value == scores["instruction_strict"].value == 0
    assert scores["prompt_loose"].value == scores["instruction_loose"].value == 1


@pytest.mark.parametrize("instruction", [SENTENCES, CAPITALS])
def test_without_the_data_of_nltk_what_needs_it_is_unchecked_and_not_failed(
    followed: Scored, instruction: Rule
) -> None:
    for response in ("SOME. WORDS. HERE.", ""):
        scores = followed(response, WORDS, NO_COMMA, instruction)
        assert scores.keys() == {"instruction_strict", "instruction_loose", "unchecked", "echo"}
        assert scores["instruction_strict"].weight == 2
        assert scores["unchecked"].value == pytest.approx(1 / 3)
        assert scores["unchecked"].weight == 3
        assert "python -m nltk.downloader punkt_tab" in scores["unchecked"].explanation
    assert followed("Yes.", instruction).keys() == {"unchecked", "echo"}


def test_the_rules_that_need_the_data_of_nltk_are_known(public_data: Path) -> None:
    rules = ifeval._checkers()
    rows = map(json.loads, (public_data / ifeval.SOURCE.local).read_text("utf-8").split("\n")[:-1])
    examples = {
        name: (name, arguments)
        for row in rows
        for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True)
    }
    assert examples.keys() == rules.instructions_registry.INSTRUCTION_DICT.keys()
    needing = set()
    for name, arguments in examples.values():
        example = rules.InputExample(0, [name], "Do it.", [arguments])
        try:
            rules.test_instruction_following_strict(example, "Some words. AND MORE.")
        except LookupError:
            needing.add(name)
    assert needing == ifeval.NEED_PUNKT


def test_with_the_data_of_nltk_sentences_are_counted(
    followed: Scored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    english = tmp_path / "data" / "tokenizers" / "punkt_tab" / "english"
    english.mkdir(parents=True)
    for name in (
        "collocations.tab",
        "sent_starters.txt",
        "abbrev_types.txt",
        "ortho_context.tab",
    ):
        (english / name).touch()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "data")])
    assert followed("One is here. Two is here.", SENTENCES)["prompt_strict"].value == 1
    assert followed("Just one is here.", SENTENCES)["prompt_strict"].value == 0
    assert followed("ONE and TWO", CAPITALS)["prompt_strict"].value == 1


@pytest.mark.parametrize("letter", ["#", "!", "ab"])
def test_what_the_rule_would_check_for_a_random_letter_instead_is_unchecked(
    followed: Scored, letter: str
) -> None:
    arguments = {"letter": letter, "let_frequency": 1, "let_relation": "at least"}
    scores = followed("###!!!", ("keywords:letter_frequency", arguments))
    assert scores.keys() == {"unchecked", "echo"}
    assert "drawn at random" in scores["unchecked"].explanation


def test_an_instruction_without_a_rule_is_unchecked(followed: Scored) -> None:
    scores = followed("Yes.", ("keywords:rhyme", {}))
    assert scores["unchecked"].explanation == "keywords:rhyme: lm-eval has no such rule"


def test_a_language_is_told_the_same_way_every_time(followed: Scored) -> None:
    doubtful = "ok la dame, te amo"
    found = {followed(doubtful, LANGUAGE)["prompt_loose"].value for _ in range(8)}
    assert len(found) == 1


def test_an_answer_in_no_language_is_not_written_to_the_log(
    followed: Scored, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        followed("12345", LANGUAGE)
    assert not caplog.records


def test_brackets_without_end_are_no_json(followed: Scored) -> None:
    assert followed("[" * 100_000, ("detectable_format:json_format", {}))["prompt_loose"].value == 0


def test_the_rows_of_the_hub_name_the_arguments_of_all_rules(followed: Scored) -> None:
    arguments = {"num_words": 3, "relation": "at least", "keywords": None, "letter": None}
    scores = followed("one two three", (WORDS[0], arguments))
    assert scores["prompt_strict"].value == 1


def test_a_file_of_answers_is_graded(tmp_path: Path, completion: Completed) -> None:
    config = GradeConfig(paths={"ifeval": file_of(tmp_path, WORDS, NO_COMMA)})
    (item,) = open_benchmark("ifeval", config).items()
    write_jsonl(tmp_path / "answers.jsonl", [completion(item, "one two three")])
    grade("ifeval", tmp_path / "answers.jsonl", tmp_path / "scores.jsonl", config)
    found = {score.metric: score for score in read_jsonl(tmp_path / "scores.jsonl", Score)}
    assert (found["prompt_strict"].value, found["prompt_strict"].item_id) == (1, "ifeval-7")


def test_the_benchmark_says_where_it_is_from_and_who_checks(tmp_path: Path) -> None:
    path = file_of(tmp_path, WORDS)
    benchmark: Any = open_benchmark("ifeval", GradeConfig(paths={"ifeval": path}))
    assert benchmark.origin["path"] == str(path)
    assert benchmark.origin["rules"].startswith("lm-eval 0.")
    assert benchmark.origin["punkt_tab"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kwargs": []}, "1 instructions, but 0 kwargs"),
        ({"instruction_id_list": None}, "expected lists in 'instruction_id_list'"),
        ({"prompt": None}, "expected text in 'prompt'"),
    ],
)
def test_a_row_that_is_no_item_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path = file_of(tmp_path, WORDS)
    path.write_text(json.dumps(json.loads(path.read_text()) | change) + "\n")
    benchmark = open_benchmark("ifeval", GradeConfig(paths={"ifeval": path}))
    with pytest.raises(DataError, match=r"input_data\.jsonl:1: ") as caught:
        benchmark.items()
    assert said in str(caught.value)


def test_opening_reads_nothing(tmp_path: Path) -> None:
    benchmark = open_benchmark("ifeval", GradeConfig(paths={"ifeval": tmp_path / "absent.jsonl"}))
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        benchmark.items()


def test_without_lm_eval_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifeval, "find_spec", lambda name: None if name == "nltk" else name)
    with pytest.raises(ConfigError, match=r"need nltk: pip install 'response-tuning\[lm-eval\]'"):
        open_benchmark("ifeval")


def test_the_rules_are_imported_without_a_download_or_a_word() -> None:
    script = """
import os, nltk
nltk.data.path.clear()
def download(*_): raise AssertionError("a download")
nltk.download = download
from response_tuning.grade.benchmarks import ifeval
ifeval._checkers()
assert os.environ["LOCAL_RANK"] == "0"
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_published_prompts_have_ids_and_groups(public_data: Path) -> None:
    benchmark = open_benchmark("ifeval", GradeConfig(data=public_data))
    items = benchmark.items()
    assert len({item.item_id for item in items}) == len({item.prompt for item in items}) == 541
    assert len({item.group for item in items}) == 9
    some = open_benchmark("ifeval", GradeConfig(data=public_data, limit=10)).items()
    assert len(some) == 10
    assert {item.item_id for item in some} < {item.item_id for item in items}


def test_the_stored_results_of_gpt_4_are_found_again(public_data: Path) -> None:
    benchmark: Any = open_benchmark("ifeval", GradeConfig(data=public_data))
    stored = public_data / "ifeval" / "gpt4_responses_with_results_half.jsonl"
    agree: Counter[bool] = Counter()
    unchecked = 0
    for row in map(json.loads, stored.read_text(encoding="utf-8").split("\n")[:-1]):
        task = benchmark._instructed_items[f"ifeval-{row['key']}"]
        expected = zip(task.instructions, row["strict"], row["loose"], strict=True)
        for instruction, strict, loose in expected:
            found = ifeval.followed(task.item.prompt[0].content, instruction, row["response"])
            unchecked += bool(found.unchecked)
            if not found.unchecked:
                agree.update([found.strict == strict, found.loose == loose])
    assert agree == {True: 2 * 372}
    assert unchecked == 41
