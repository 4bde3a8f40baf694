import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.agreement.labelled_sets import (
    LabelledRow,
    LabelledSet,
    limited,
    open_set,
    read_labels,
)

Write = Callable[[str, object], None]
BEHAVIOURS = """\
Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID
Do it,standard,c,,,plain
Do that,contextual,c,,A page.,in_context
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of a public set, as JSON unless it is text."""

    def put(name: str, content: object) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")

    return put


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., LabelledSet]:
    """Open a labelled file with these lines."""

    def make(*lines: object) -> LabelledSet:
        path = tmp_path / "labels.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return read_labels(path)

    return make


def row(label: object = "refusal", **more: object) -> dict[str, object]:
    return {"prompt": "q", "completion": "No.", "label": label, **more}


def attacked(behaviour: str, votes: tuple[int, int, int], **more: str) -> dict[str, object]:
    human = {f"human_{number}": vote for number, vote in enumerate(votes)}
    said = {"test_case": "the attack", "generation": "said", "model": "m.json", "experiment": "e"}
    return {"behavior_id": behaviour, **said, **human, **more}


def rated(*votes: int, **more: object) -> dict[str, object]:
    annotators = {f"annotator{number}": vote for number, vote in enumerate(votes, start=1)}
    pair = {"cmp_key": "a_b", "instruction": "do", "input": "", "response1": "x", "response2": "y"}
    return {**pair, **annotators, **more}


def test_a_file_of_ones_own_is_read_row_by_row(own: Callable[..., LabelledSet]) -> None:
    labelled = own(row(), row("compliance", model="m", extra=1))
    assert [*labelled.rows()] == [
        LabelledRow("", "q", ("No.",), "refusal"),
        LabelledRow("m", "q", ("No.",), "compliance"),
    ]
    assert (labelled.name, labelled.size, labelled.pairwise) == ("labels", 2, False)
    assert [*labelled.rows()] == [*labelled.rows()]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (row("Refusal"), r"labels\.jsonl:2: label: .*'refusal' or 'compliance', not 'Refusal'"),
        (row(None), r"labels\.jsonl:2: label: .*not None"),
        (row(completion=None), r"labels\.jsonl:2: completion: .*string, not None"),
        ({"prompt": "q", "label": "refusal"}, r"labels\.jsonl:2: completion: Field required$"),
        (["q"], r"labels\.jsonl:2: expected an object"),
    ],
)
def test_a_row_that_is_none_is_named_with_its_line_and_value(
    own: Callable[..., LabelledSet], line: object, said: str
) -> None:
    labelled = own(row(), line)
    with pytest.raises(DataError, match=said):
        list(labelled.rows())


def test_a_blank_line_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row()) + "\n\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.jsonl:2: blank line"):
        list(read_labels(path).rows())


def test_a_file_that_is_empty_missing_or_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl: it has no rows"):
        read_labels(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file"):
        read_labels(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"labels\.csv: expected a \.jsonl file"):
        read_labels(tmp_path / "labels.csv")


def test_a_limit_spreads_the_rows_evenly(own: Callable[..., LabelledSet]) -> None:
    labelled = own(*(row(model=str(number)) for number in range(6)))
    few = limited(labelled, 3)
    assert [found.part for found in few.rows()] == ["0", "2", "4"]
    assert few.size == 3 and limited(labelled, None) is labelled
    assert [*limited(labelled, 99).rows()] == [*labelled.rows()]


def test_xstest_keeps_partial_refusals_apart(tmp_path: Path, write: Write) -> None:
    head = "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label\n"
    labels = ["1_full_compliance", "2_full_refusal", "3_partial_refusal"]
    for model in ("b", "a"):
        lines = [f"v,t,q,said by {model},x,x,TRUE,{label}\n" for label in labels]
        write(f"xstest/completions_{model}.csv", head + "".join(lines))
    labelled = open_set("xstest", tmp_path)
    assert [(found.part, found.label) for found in labelled.rows()] == [
        (model, label)
        for model in ("a", "b")
        for label in ("compliance", "refusal", "partial refusal")
    ]
    assert next(labelled.rows()).completions == ("said by a",)
    assert {*labelled.words.values()} == {"refusal", "compliance"}
    assert [Path(origin["path"]).name for origin in labelled.origin] == [
        "completions_a.csv",
        "completions_b.csv",
    ]


def test_harmbench_shows_the_behaviour_and_counts_the_votes(tmp_path: Path, write: Write) -> None:
    write("harmbench/harmbench_behaviors_text_all.csv", BEHAVIOURS)
    answers = {
        "plain": [attacked("plain", (1, 0, 1)), attacked("plain", (0, 0, 1), model=".json")],
        "in_context": [attacked("in_context", (0, 0, 0))],
        "gone": [attacked("gone", (1, 1, 1))],
    }
    write("harmbench/classifier_val_set_half.json", answers)
    labelled = open_set("harmbench", tmp_path)
    assert [*labelled.rows()] == [
        LabelledRow("m", "Do it", ("said",), "present"),
        LabelledRow("e", "Do it", ("said",), "absent"),
        LabelledRow("m", "A page.\n\n---\n\nDo that", ("said",), "absent"),
        LabelledRow("m", "the attack", ("said",), "present"),
    ]
    assert labelled.words == {"refusal": "absent", "compliance": "present"}
    assert len(labelled.origin) == 2


def test_llmbar_is_read_part_by_part(tmp_path: Path, write: Write) -> None:
    pair = {"input": "do", "output_1": "x", "output_2": "y"}
    write("llmbar/llmbar_adv_neighbor_half.json", [{**pair, "label": 2}])
    write("llmbar/mtbench_human_half.json", [{**pair, "label": 1}])
    labelled = open_set("llmbar", tmp_path)
    assert [*labelled.rows()] == [
        LabelledRow("adv_neighbor", "do", ("x", "y"), "2"),
        LabelledRow("mtbench_human", "do", ("x", "y"), "1"),
    ]
    assert labelled.pairwise


def test_pandalm_takes_most_of_three_and_sets_apart_what_has_none(
    tmp_path: Path, write: Write
) -> None:
    rows = [
        rated(1, 1, 0),
        rated(2, 0, 2),
        rated(0, 0, 0, input="this"),
        rated(0, 1, 2, response1=True),
    ]
    write("pandalm/testset_half.json", rows)
    assert [*open_set("pandalm", tmp_path).rows()] == [
        LabelledRow("a_b", "do", ("x", "y"), "1"),
        LabelledRow("a_b", "do", ("x", "y"), "2"),
        LabelledRow("a_b", "do\n\nthis", ("x", "y"), "tie"),
        LabelledRow("a_b", "do", ("True", "y"), "no majority"),
    ]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("pandalm/testset_half.json", [rated(1, 1, 3)], "record 1: annotator3: .*not 3"),
        ("pandalm/testset_half.json", [], "it has no rows"),
        ("llmbar/x.json", [{"input": "do"}], "record 1: output_1: Field required"),
        ("xstest/completions_m.csv", "prompt,completion,final_label\nq,c,yes\n", "not 'yes'"),
    ],
)
def test_a_public_file_that_is_not_what_it_should_be_is_named(
    tmp_path: Path, write: Write, file: str, content: Any, said: str
) -> None:
    write(file, content)
    with pytest.raises(DataError, match=said) as caught:
        open_set(file.partition("/")[0], tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)


def test_an_answer_of_harmbench_that_is_none_is_named(tmp_path: Path, write: Write) -> None:
    write("harmbench/harmbench_behaviors_text_all.csv", BEHAVIOURS)
    write("harmbench/classifier_val_set.json", {"plain": [attacked("plain", (1, 1, 2))]})
    with pytest.raises(DataError, match=r"classifier_val_set\.json: plain: 0: human_2: .*not 2"):
        open_set("harmbench", tmp_path)


def test_a_set_that_is_unknown_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown labelled set 'xtest': did you mean 'xstest'"):
        open_set("xtest", tmp_path)
    with pytest.raises(DataError, match=r"xstest: no completions_\*\.csv; .* github\.com"):
        open_set("xstest", tmp_path)
    with pytest.raises(ConfigError, match=r"llmbar: .*--data DIR"):
        open_set("llmbar", None)
