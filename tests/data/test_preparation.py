import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from response_tuning.artifacts import (
    Audit,
    Dropped,
    Example,
    Flagged,
    Message,
    file_digest,
    read_json,
    read_jsonl,
)
from response_tuning.configs import DataConfig
from response_tuning.data import preparation, prepare
from response_tuning.errors import ConfigError, DataError
from response_tuning.miniature import examples as miniature_examples

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def numbered(count: int) -> list[dict[str, str]]:
    return [{"response": f"r{i}"} for i in range(count)]


def mixed(refusals: int, **settings: object) -> dict[str, object]:
    """A mixture with the miniature's refusals, all of them."""
    return {"source": "miniature-refusals", "selector": "all", "refusals": refusals, **settings}


def test_rows_become_examples_in_their_order(prepare_rows: Prepare) -> None:
    audit, examples, dropped = prepare_rows(
        [{"prompt": "q", "response": " r\n"}, {"prompt": "", "response": "r"}]
    )
    assert examples == [
        Example(row=0, instruction="q", response=" r\n"),
        Example(row=1, instruction=None, response="r"),
    ]
    assert dropped == []
    assert audit == Audit(rows=2, rows_kept=2, examples=2, dropped={})


def test_the_same_rows_in_any_format_give_the_same_examples(
    tmp_path: Path, prepare_source: Prepare
) -> None:
    rows = [{"instruction": f"q\n{i}", "output": f'r, "{i}"'} for i in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=2))
    cells = "".join(f'"q\n{i}","r, ""{i}"""\r\n' for i in range(3))
    (tmp_path / "a.csv").write_text(f"instruction,output\r\n{cells}")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [Example(row=i, instruction=f"q\n{i}", response=f'r, "{i}"') for i in range(3)]
    for path in tmp_path.glob("a.*"):
        assert prepare_source(path)[1] == expected


def test_a_conversation_gives_an_example_for_each_assistant_turn(prepare_rows: Prepare) -> None:
    messages = [
        message("system", "be kind"),
        message("user", "q"),
        message("assistant", "r"),
        message("user", "q2"),
        message("assistant", "r2"),
    ]
    audit, examples, _ = prepare_rows([{"messages": messages}])
    earlier = tuple(Message.model_validate(item) for item in messages)
    assert examples == [
        Example(row=0, turn=0, instruction="q", response="r", earlier=earlier[:1]),
        Example(row=0, turn=1, instruction="q2", response="r2", earlier=earlier[:3]),
    ]
    assert audit == Audit(rows=1, rows_kept=1, examples=2, dropped={})


def test_every_dropped_row_or_turn_says_where_and_why(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    half = "\ud83d"
    audit, _, dropped = prepare_rows(
        [
            {"messages": [message("user", "q"), message("assistant", "r")]},
            {"messages": [message("assistant", ""), message("assistant", "r2")]},
            {"messages": [message("user", "q"), message("assistant", "r")]},
            {"messages": [message("tool", "x")]},
            {"messages": [message("user", "x")]},
            {"messages": None},
            {"other": 1},
            {"messages": [message("user", half), message("assistant", "r")]},
        ]
    )
    path = tmp_path / "rows.jsonl"
    assert [(drop.where, drop.turn, drop.reason) for drop in dropped] == [
        (f"{path}:2", 0, "empty response"),
        (f"{path}:3", 0, "duplicate"),
        (f"{path}:4", 0, "role 'tool' is not supported"),
        (f"{path}:5", 0, "no assistant turn"),
        (f"{path}:6", 0, "empty response"),
        (f"{path}:7", 0, "no column 'messages'"),
        (f"{path}:8", 0, "half a surrogate pair, which is not text"),
    ]
    assert audit.dropped == Counter(drop.reason for drop in dropped)
    assert (audit.rows, audit.rows_kept, audit.examples) == (8, 2, 2)


def test_an_answer_after_a_tool_call_is_an_example_and_what_it_lacks_is_flagged(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]}
    messages = [message("user", "q"), call, message("tool", "3"), message("assistant", "r")]
    audit, examples, dropped = prepare_rows([{"messages": messages}])
    assert examples == [Example(row=0, turn=1, instruction="q", response="r")]
    assert [(drop.turn, drop.reason) for drop in dropped] == [
        (0, "a tool call, which is no answer")
    ]
    assert audit.flagged == {"tool turns left out of its context": 1}
    (flagged,) = read_jsonl(tmp_path / "out" / "flagged.jsonl", Flagged)
    assert (flagged.row, flagged.turn, flagged.what) == (0, 1, "tool turns left out of its context")


def test_a_turn_that_is_not_to_be_learned_is_context_and_counted(prepare_rows: Prepare) -> None:
    messages = [
        message("user", "q"),
        {**message("assistant", "r"), "weight": 0},
        message("user", "q2"),
        {**message("assistant", "r2"), "weight": 1},
    ]
    audit, examples, _ = prepare_rows([{"messages": messages}])
    earlier = (Message(role="user", content="q"), Message(role="assistant", content="r"))
    assert examples == [Example(row=0, turn=1, instruction="q2", response="r2", earlier=earlier)]
    assert audit.dropped == {"marked as not to be learned (weight)": 1}


@pytest.mark.parametrize("size", [None, 2])
def test_columns_are_those_of_all_rows(
    prepare_rows: Prepare,
    tmp_path: Path,
    size: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [
        {"output": "r"},
        {"instruction": "q", "output": "r2", "notes": "a b"},
        {"instruction": "q", "input": "x", "output": "r3"},
    ]
    _, examples, _ = prepare_rows(rows, max_examples=size)
    instructions = {example.response: example.instruction for example in examples}
    assert instructions.items() <= {"r": None, "r2": "q", "r3": "q\n\nx"}.items()
    source = read_json(tmp_path / "out" / "audit.json")["source"]
    assert source["columns"] == {
        "response": "output",
        "instruction": "instruction",
        "input": "input",
    }
    assert source["columns_not_used"] == ["notes"]
    assert caplog.messages == [f"{tmp_path / 'rows.jsonl'}: columns not used: 'notes'"]


@pytest.mark.parametrize("response", ["", " ", "\n\t\u00a0\u2028", None])
def test_a_response_of_white_space_only_is_empty(prepare_rows: Prepare, response: object) -> None:
    audit, _, _ = prepare_rows([{"response": response}, {"response": "r"}])
    assert audit.dropped == {"empty response": 1}


def test_blank_lines_are_rows(tmp_path: Path, prepare_source: Prepare) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"response": "r"}\n\n{"response": "s"}\n')
    audit, examples, _ = prepare_source(path)
    assert [example.row for example in examples] == [1, 3]
    assert audit == Audit(rows=4, rows_kept=2, examples=2, dropped={"blank line": 2})


def test_the_first_of_equal_examples_is_kept(prepare_rows: Prepare) -> None:
    rows = [{"prompt": "q", "response": text} for text in ("a", "b", "a", "b", "a ")]
    _, examples, dropped = prepare_rows(rows)
    assert [example.row for example in examples] == [0, 1, 4]
    assert {(drop.row, drop.reason) for drop in dropped} == {(2, "duplicate"), (3, "duplicate")}


def test_examples_that_differ_only_in_where_their_texts_part_are_no_duplicates(
    prepare_rows: Prepare,
) -> None:
    rows = [
        {"messages": [message("user", "ab"), message("assistant", "c")]},
        {"messages": [message("user", "a"), message("assistant", "bc")]},
        {"messages": [message("system", "ab"), message("assistant", "c")]},
        {"messages": [message("system", "x"), message("user", "ab"), message("assistant", "c")]},
    ]
    assert prepare_rows(rows)[0].examples == 4


def test_duplicates_can_be_kept(prepare_rows: Prepare) -> None:
    audit, _, _ = prepare_rows([{"response": "r"}] * 3, keep_duplicates=True)
    assert audit == Audit(rows=3, rows_kept=3, examples=3, dropped={})


def test_a_sample_is_random_and_in_the_order_of_the_file(prepare_rows: Prepare) -> None:
    audit, examples, dropped = prepare_rows(numbered(200), max_examples=50, seed=1)
    rows = [example.row for example in examples]
    assert rows == sorted(rows)
    assert rows != list(range(50))
    assert audit == Audit(rows=200, rows_kept=50, examples=50, dropped={"not sampled": 150})
    assert sorted(rows + [drop.row for drop in dropped]) == list(range(200))


def test_samples_of_one_seed_are_nested_and_seeds_differ(prepare_rows: Prepare) -> None:
    def sample(size: int, seed: int) -> set[int]:
        examples = prepare_rows(numbered(200), max_examples=size, seed=seed)[1]
        return {example.row for example in examples}

    assert sample(20, 0) < sample(100, 0) < sample(200, 0)
    assert sample(20, 0) != sample(20, 1)


def test_every_example_is_as_likely_to_be_sampled(prepare_rows: Prepare) -> None:
    drawn = Counter(
        example.row
        for seed in range(200)
        for example in prepare_rows(numbered(10), max_examples=5, seed=seed)[1]
    )
    # 100 expected of 200 draws each, with a standard deviation of 7.
    assert all(65 <= drawn[row] <= 135 for row in range(10))


def test_a_sample_is_drawn_from_the_usable_examples(prepare_rows: Prepare) -> None:
    rows = [*numbered(10), {"response": ""}, *numbered(10)]
    random.Random(0).shuffle(rows)
    audit, _, _ = prepare_rows(rows, max_examples=9)
    assert audit.dropped == {"duplicate": 10, "empty response": 1, "not sampled": 1}


def test_too_few_examples_are_an_error_that_counts_them(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"11 examples requested .* only 10 are usable"):
        prepare_rows(numbered(10), max_examples=11)
    assert not list(tmp_path.glob("out/*"))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, prepare_rows: Prepare) -> None:
    rows = [*numbered(50), {"response": 3}]
    contents = []
    for _ in range(2):
        prepare_rows(rows, max_examples=20)
        contents.append([file.read_bytes() for file in sorted((tmp_path / "out").iterdir())])
    assert contents[0] == contents[1]


def test_the_audit_on_disk_says_where_the_examples_are_from(
    tmp_path: Path, prepare_rows: Prepare
) -> None:
    audit, _, _ = prepare_rows([{"instruction": "q", "input": "x", "output": "r"}], seed=3)
    path = tmp_path / "rows.jsonl"
    content = read_json(tmp_path / "out" / "audit.json")
    assert content["source"] == {
        "name": str(path),
        "path": str(path.resolve()),
        "sha256": file_digest(path),
        "files_not_read": [],
        "columns": {"response": "output", "instruction": "instruction", "input": "input"},
    }
    assert DataConfig.model_validate(content["config"]) == DataConfig(source=str(path), seed=3)
    counts = {key: content[key] for key in Audit.model_fields}
    assert Audit.model_validate(counts) == audit


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.json", "[]"), ("a.json", " "), ("a.csv", "text\n")],
)
def test_a_file_without_rows_is_refused(
    name: str, content: str, tmp_path: Path, prepare_source: Prepare
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}: it has no rows$"):
        prepare_source(tmp_path / name)


@pytest.mark.parametrize("max_examples", [None, 1])
def test_a_source_without_a_usable_example_is_refused_with_the_counts(
    prepare_rows: Prepare, max_examples: int | None
) -> None:
    rows = [{"response": ""}, {"response": 3}, {"response": " "}]
    with pytest.raises(DataError, match="none of its 3 rows is usable") as error:
        prepare_rows(rows, max_examples=max_examples)
    assert "empty response: 2" in str(error.value)
    assert "response is a number, not text: 1" in str(error.value)


def test_an_error_leaves_nothing_half_written_and_an_older_run_whole(
    tmp_path: Path, prepare_source: Prepare
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"response": "r"}\n')
    prepare_source(path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert sorted(before) == ["audit.json", "dropped.jsonl", "examples.jsonl"]
    path.write_text('{"response": "s"}\n{"response": oops}\n')
    with pytest.raises(DataError, match=":2: not JSON"):
        prepare_source(path)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_new_examples_never_stand_beside_an_old_audit(
    prepare_rows: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    prepare_rows([{"response": "old"}])
    monkeypatch.setattr(preparation, "write_json", crash)
    with pytest.raises(KeyboardInterrupt):
        prepare_rows([{"response": "new"}])
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "dropped.jsonl",
        "examples.jsonl",
    ]


def test_a_run_inside_its_own_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("r")
    with pytest.raises(ConfigError, match="lies in the source"):
        prepare(DataConfig(source=str(tmp_path)), tmp_path / "run" / "data")


def refusals(examples: list[Example]) -> set[tuple[str | None, str]]:
    """What of the examples declines: every row of the refusals does, and no other row here."""
    return {(e.instruction, e.response) for e in examples if e.response != f"r{e.row}"}


def test_refusals_are_numbered_on_after_the_rows_and_are_counted(prepare_rows: Prepare) -> None:
    audit, examples, dropped = prepare_rows(numbered(10), mixture=mixed(20))
    assert audit == Audit(rows=410, rows_kept=30, examples=30, dropped={"not sampled": 380})
    rows = [example.row for example in examples]
    assert rows[:10] == list(range(10))
    assert 10 <= min(rows[10:]) < max(rows[10:]) < 410
    assert sorted(rows + [drop.row for drop in dropped]) == list(range(410))
    declined = list(miniature_examples.refusal_rows())
    for example in examples[10:]:
        row = declined[example.row - 10]
        assert row == {"instruction": example.instruction, "response": example.response}


def test_refusals_of_one_seed_are_nested_and_seeds_differ(prepare_rows: Prepare) -> None:
    def drawn(count: int, seed: int) -> set[tuple[str | None, str]]:
        return refusals(prepare_rows(numbered(5), mixture=mixed(count), seed=seed)[1])

    assert len(drawn(20, 0)) == 20
    assert drawn(20, 0) < drawn(50, 0) < drawn(400, 0)
    assert drawn(20, 0) != drawn(20, 1)


def test_the_refusals_do_not_depend_on_what_they_are_mixed_into(prepare_rows: Prepare) -> None:
    alone = refusals(prepare_rows(numbered(5), mixture=mixed(20))[1])
    others = refusals(prepare_rows(numbered(50), mixture=mixed(20), max_examples=7)[1])
    assert alone == others


def test_the_examples_do_not_depend_on_the_refusals(prepare_rows: Prepare, tmp_path: Path) -> None:
    def files(**settings: object) -> list[bytes]:
        prepare_rows(numbered(50), max_examples=20, **settings)
        return [
            (tmp_path / "out" / f"{name}.jsonl").read_bytes() for name in ("examples", "dropped")
        ]

    without, none, some = files(), files(mixture=mixed(0)), files(mixture=mixed(9))
    assert none == without
    assert all(mixed.startswith(plain) for mixed, plain in zip(some, without, strict=True))
    assert some[0].count(b"\n") == 29


def test_too_few_refusals_are_an_error_that_counts_them(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        prepare_rows(numbered(10), mixture=mixed(401))
    assert str(error.value) == (
        "miniature-refusals: 401 examples requested (data.mixture.refusals), but only 400 are "
        "usable"
    )
    assert not list(tmp_path.glob("out/*"))


def test_refusals_may_come_from_a_file_of_ones_own(prepare_rows: Prepare, tmp_path: Path) -> None:
    own = tmp_path / "no.jsonl"
    own.write_text("".join(json.dumps({"answer": f"No, {i}."}) + "\n" for i in range(9)))
    audit, examples, _ = prepare_rows(numbered(3), mixture=mixed(4, source=str(own)))
    assert audit.examples == 7
    assert all(example.response.startswith("No, ") for example in examples[3:])
    content = read_json(tmp_path / "out" / "audit.json")
    assert content["refusals"]["sha256"] == file_digest(own)
    assert content["refusals"]["columns"]["response"] == "answer"
    assert content["source"]["name"] == str(tmp_path / "rows.jsonl")


def test_refusals_alone_are_no_data(prepare_rows: Prepare) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl: none of its 2 rows is usable"):
        prepare_rows([{"response": ""}, {"response": " "}], mixture=mixed(5))


def test_rows_that_the_selector_rejects_are_counted_under_its_name(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    own = tmp_path / "no.jsonl"
    responses = ["I can't help with that.", "Sorry for the delay.", "AI is great.", "Goethe."]
    own.write_text("".join(json.dumps({"answer": text}) + "\n" for text in responses))
    kept = {"phrases": responses[:1], "paper-regex": responses[1:3], "all": responses}
    for selector, texts in kept.items():
        mixture = mixed(len(texts), source=str(own), selector=selector)
        audit, examples, dropped = prepare_rows(numbered(3), mixture=mixture)
        assert [example.response for example in examples[3:]] == texts
        reason = f"not a refusal ({selector})"
        assert audit.dropped == ({reason: 4 - len(texts)} if len(texts) < 4 else {})
        assert {drop.where.rpartition(":")[0] for drop in dropped} <= {str(own)}


def test_more_refusals_than_the_selector_leaves_is_an_error_with_the_counts(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    own = tmp_path / "no.jsonl"
    own.write_text('{"answer": "I can\'t help with that."}\n{"answer": "Goethe."}\n')
    settings = {"source": str(own), "selector": "phrases"}
    assert prepare_rows(numbered(3), mixture=mixed(1, **settings))[0].examples == 4
    with pytest.raises(DataError) as error:
        prepare_rows(numbered(3), mixture=mixed(2, **settings))
    assert str(error.value) == (
        f"{own}: 2 examples requested (data.mixture.refusals), but only 1 are usable "
        "(not a refusal (phrases): 1)"
    )


def test_refusals_of_which_none_is_one_are_an_error(prepare_rows: Prepare, tmp_path: Path) -> None:
    own = tmp_path / "no.jsonl"
    own.write_text('{"answer": "Goethe."}\n{"answer": "Schiller."}\n')
    with pytest.raises(DataError) as error:
        prepare_rows(numbered(3), mixture=mixed(1, source=str(own), selector="phrases"))
    assert str(error.value) == (f"{own}: none of its 2 rows is usable (not a refusal (phrases): 2)")
    assert not list(tmp_path.glob("out/*"))


def test_duplicates_are_found_across_examples_and_refusals(prepare_rows: Prepare) -> None:
    declined = list(miniature_examples.refusal_rows())[:3]
    rows = [*({"instruction": "q", **row} for row in numbered(5)), *declined]
    audit, _, dropped = prepare_rows(rows, mixture=mixed(397))
    assert audit.dropped == {"duplicate": 3}
    assert [drop.row for drop in dropped] == [8, 9, 10]
    assert audit.examples == 405
    kept, _, _ = prepare_rows(rows, mixture=mixed(400), keep_duplicates=True)
    assert kept.examples == 408


def test_which_refusals_are_drawn_does_not_depend_on_the_size_of_the_sample(
    prepare_rows: Prepare,
) -> None:
    declined = list(miniature_examples.refusal_rows())[:30]
    rows = [*({"instruction": "q", **row} for row in numbered(50)), *declined]

    def drawn(size: int | None) -> list[Example]:
        _, examples, _ = prepare_rows(rows, mixture=mixed(40), max_examples=size)
        return [example for example in examples if example.row >= 80]

    assert drawn(None) == drawn(10) == drawn(79)


def test_refusals_alone_are_read_with_columns_of_their_own(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    own = tmp_path / "no.jsonl"
    own.write_text('{"asked": "How?", "said": "No."}\n')
    columns = {"response_column": "said", "instruction_column": "asked"}
    rows = [{"reply": "r"}]
    mixture = mixed(1, source=str(own), **columns)
    _, examples, _ = prepare_rows(rows, response_column="reply", mixture=mixture)
    assert examples == [
        Example(row=0, response="r"),
        Example(row=1, instruction="How?", response="No."),
    ]


def test_refusals_may_be_a_named_dataset_of_which_a_copy_is_named(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    own = tmp_path / "safety.json"
    own.write_text(json.dumps([{"instruction": "q", "input": "", "output": "I'm sorry, no."}]))
    mixture: dict[str, object] = {"refusals": 1, "path": str(own), "selector": "paper-regex"}
    _, examples, _ = prepare_rows(numbered(1), mixture=mixture)
    assert examples[1] == Example(row=1, instruction="q", response="I'm sorry, no.")
    origin = read_json(tmp_path / "out" / "audit.json")["refusals"]
    assert origin["name"] == "safety-tuned-llamas"
    assert origin["path"] == str(own)
    with pytest.raises(ConfigError, match=r"is published as a file: download https://.*\.path\)"):
        prepare_rows(numbered(1), mixture={"refusals": 1})
    assert prepare_rows(numbered(1), mixture={"refusals": 0})[0].examples == 1


def test_an_audit_without_refusals_names_no_source_of_them(
    prepare_rows: Prepare, tmp_path: Path
) -> None:
    prepare_rows(numbered(3))
    assert "refusals" not in read_json(tmp_path / "out" / "audit.json")


roles = st.sampled_from(["user", "assistant", "assistant", "system", "tool"])
texts = st.sampled_from(["", " ", "a", "b", "\ud800"])
conversations = st.lists(st.builds(message, roles, texts), max_size=5)
anything = st.one_of(conversations, st.none(), st.integers(), texts, st.lists(texts, max_size=3))
rows_of_any_kind = st.lists(
    st.one_of(st.none(), st.just({}), st.fixed_dictionaries({"messages": anything})), max_size=12
)


def assistant_turns(row: dict[str, Any]) -> int:
    """Count what could have been an example; a row without is dropped whole and counts once."""
    value = row.get("messages", 0)
    if not isinstance(value, list):
        return 1
    if all(isinstance(item, str) for item in value):
        return max(1, len(value) // 2)
    return max(1, [item["role"] for item in value].count("assistant"))


@settings(deadline=None, max_examples=150, database=None)
@given(rows=rows_of_any_kind, keep=st.booleans(), size=st.one_of(st.none(), st.just(2)))
def test_the_counts_of_every_audit_add_up(
    rows: list[dict[str, Any] | None], keep: bool, size: int | None
) -> None:
    rows = [*rows, *({"messages": ["q", f"always usable {i}"]} for i in range(2))]
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "a.jsonl"), Path(folder, "out")
        # The first row has the column, so that the columns are found; null stands for a blank line.
        lines = [json.dumps(row) if row is not None else "" for row in [rows[-1], *rows]]
        path.write_text("".join(f"{line}\n" for line in lines))
        audit = prepare(DataConfig(source=str(path), keep_duplicates=keep, max_examples=size), out)
        examples = list(read_jsonl(out / "examples.jsonl", Example))
        dropped = list(read_jsonl(out / "dropped.jsonl", Dropped))
    possible = sum(1 if row is None else assistant_turns(row) for row in [rows[-1], *rows])
    outcomes = [(example.row, example.turn) for example in examples]
    outcomes += [(drop.row, drop.turn) for drop in dropped]
    assert len(outcomes) == possible
    assert len(set(outcomes)) == len(outcomes)
    assert {row for row, _ in outcomes} == set(range(len(lines)))
    assert audit == Audit(
        rows=len(lines),
        rows_kept=len({example.row for example in examples}),
        examples=len(examples),
        dropped=Counter(drop.reason for drop in dropped),
        flagged=audit.flagged,
    )
    assert size is None or audit.examples == size
    assert [example.row for example in examples] == sorted(example.row for example in examples)
    assert [drop.row for drop in dropped] == sorted(drop.row for drop in dropped)


def test_the_examples_of_one_preparation_are_a_source_of_the_next(
    tmp_path: Path, prepare_rows: Prepare
) -> None:
    messages = [
        message("system", "be kind"),
        message("user", "q"),
        message("assistant", "r"),
        message("user", "q2"),
        message("assistant", "r2"),
    ]
    _, first, _ = prepare_rows([{"messages": messages}, {"prompt": "", "messages": messages[1:3]}])
    _, again, _ = prepare_rows([example.model_dump(mode="json") for example in first])
    assert [(e.response, e.instruction, e.earlier) for e in again] == [
        (e.response, e.instruction, e.earlier) for e in first
    ]
    assert any(example.earlier for example in again)
