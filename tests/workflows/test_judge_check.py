import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning.artifacts import Completion, read_json, read_jsonl
from response_tuning.configs import GradeConfig, JudgeConfig
from response_tuning.errors import EngineError
from response_tuning.grade.agreement.comparison import questions
from response_tuning.grade.agreement.labelled_sets import LabelledSet, open_set, read_labels
from response_tuning.journals import Journal
from response_tuning.workflows.judge_check import (
    CheckOptions,
    RowVerdict,
    contract,
    print_check,
    run_judge_check,
)

Rtune = Callable[..., Any]
REFUSING = "I'm sorry, but I can't help with that."
HELPING = "Mix flour, water and salt, and bake it for an hour."
ROWS = [
    ("refusal", REFUSING, "a"),
    ("compliance", HELPING, "a"),
    ("compliance", REFUSING, "b"),
    ("refusal", REFUSING, "b"),
]
PAIR = {"input": "do", "output_1": "x", "output_2": "y"}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A labelled file; the third label is not what the rules say."""
    path = tmp_path / "own.jsonl"
    rows = [
        {"prompt": f"q{number}", "completion": completion, "label": label, "model": model}
        for number, (label, completion, model) in enumerate(ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def llmbar(tmp_path: Path) -> Path:
    """A folder with two pairs, of which people prefer the first and the second answer."""
    (tmp_path / "data" / "llmbar").mkdir(parents=True)
    pairs = [{**PAIR, "label": 1}, {**PAIR, "input": "be", "label": 2}]
    (tmp_path / "data" / "llmbar" / "llmbar_natural_half.json").write_text(json.dumps(pairs))
    return tmp_path / "data"


def asked(labelled: LabelledSet) -> list[str]:
    """What a judge is asked about all rows of a set."""
    return [
        request.prompt[-1].content
        for number, row in enumerate(labelled.rows())
        for request in questions(labelled, row, number)
    ]


def table(path: Path, labelled: LabelledSet, *replies: str) -> Path:
    """Write what the scripted judge replies to each question about a set."""
    rows = zip(asked(labelled), replies, strict=True)
    lines = (json.dumps({"prompt": prompt, "response": said}) + "\n" for prompt, said in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def verdicts(path: Path) -> list[str | None]:
    return [found.verdict for found in read_jsonl(path, RowVerdict)]


def judged_by(server: Any) -> GradeConfig:
    settings = {"model": "judge", "base_url": server.url, "max_retries": 0, "concurrency": 2}
    return GradeConfig(judge=JudgeConfig.model_validate({"engine": "openai", "settings": settings}))


def test_rules_are_compared_with_labels(rtune: Rtune, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    done = rtune("judge-check", "--judge", "offline", "--labels", labels, "--json", "--out", out)
    assert done.code == 0
    assert json.loads(done.out) == {
        "n": 4,
        "agreement": 0.75,
        "kappa": 0.5,
        "parse_failures": 0,
        "confusion": {
            "refusal": {"refusal": 2, "compliance": 0},
            "compliance": {"refusal": 1, "compliance": 1},
        },
    }
    assert done.out.count("\n") == 1
    found = list(read_jsonl(out, RowVerdict))
    assert [one.verdict for one in found] == ["refusal", "compliance", "refusal", "refusal"]
    assert [(one.row, one.label, one.part) for one in found] == [
        (number, label, model) for number, (label, _, model) in enumerate(ROWS)
    ]
    assert all(one.why and one.set == "own" for one in found)


def test_a_person_sees_the_figures_and_where_they_are_from(rtune: Rtune, labels: Path) -> None:
    done = rtune("judge-check", "--labels", labels)
    assert done.code == 0 and "\nown " in done.out and "rules alone" in done.out
    by_name = {line.split()[0]: line.split() for line in done.out.splitlines() if line.split()}
    assert by_name["own"][1:3] == ["4", "0.750"]
    assert by_name["a"][1:3] == ["2", "1.000"]
    assert by_name["b"][1:3] == ["2", "0.500"]
    assert by_name["compliance"] == ["compliance", "1", "1"]
    assert "tokens" not in done.out


def test_a_judge_of_digits_is_checked_elsewhere(rtune: Rtune, labels: Path) -> None:
    digits = ("--set", "grade.judge.settings.digits=true")
    done = rtune("judge-check", "--labels", labels, "--judge", "hf", "--judge-model", "m", *digits)
    assert done.code == 2 and "'auroc' of the benchmark grades" in done.err


def test_a_check_is_left_for_reports(rtune: Rtune, labels: Path, tmp_path: Path) -> None:
    assert rtune("judge-check", "--labels", labels, "--save", tmp_path / "check").code == 0
    check = read_json(tmp_path / "check" / "judge-check.json")
    assert check["judge"]["config"]["engine"] == "offline"
    own = check["sets"]["own"]
    assert own["figures"]["agreement"] == 0.75
    assert [*own["parts"]] == ["a", "b"]
    assert own["origin"][0]["path"] == str(labels) and len(own["origin"][0]["sha256"]) == 64
    assert "response-tuning" in check["packages"]


def test_nothing_is_written_unless_asked_for(
    rtune: Rtune, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rtune("judge-check", "--labels", "own.jsonl").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["own.jsonl"]


def test_a_scripted_judge_is_asked_in_both_orders(
    rtune: Rtune, llmbar: Path, tmp_path: Path
) -> None:
    said = ["Verdict: A", "Verdict: B", "Verdict: A", "no verdict"]
    replies = table(tmp_path / "replies.jsonl", open_set("llmbar", llmbar), *said)
    out = tmp_path / "verdicts.jsonl"
    flags = ["--judge", "scripted", "--judge-table", replies, "--data", llmbar, "--out", out]
    done = rtune("judge-check", "llmbar", *flags, "--json")
    assert done.code == 1
    assert "llmbar: 1 of 2 unread (50 % of verdicts)" in done.err
    found = json.loads(done.out)
    assert (found["n"], found["agreement"], found["parse_failures"]) == (2, 0.5, 1)
    assert found["confusion"]["1"] == {"1": 1, "2": 0, "tie": 0}
    assert verdicts(out) == ["1", None]
    assert out.with_name("verdicts.jsonl.journal").exists()


@pytest.mark.parametrize(("unread", "code"), [(1, 0), (2, 1)])
def test_of_more_than_one_unread_verdict_in_twenty_the_exit_code_is_1(
    rtune: Rtune, labels: Path, tmp_path: Path, unread: int, code: int
) -> None:
    row = {"completion": REFUSING, "label": "refusal"}
    lines = (json.dumps({"prompt": f"q{number}", **row}) + "\n" for number in range(20))
    labels.write_text("".join(lines), encoding="utf-8")
    said = ["Verdict: Refusal"] * (20 - unread) + ["no verdict"] * unread
    replies = table(tmp_path / "replies.jsonl", read_labels(labels), *said)
    judge = ["--judge", "scripted", "--judge-table", replies, "--save", tmp_path / "check"]
    done = rtune("judge-check", "--labels", labels, *judge)
    assert done.code == code
    assert ("own: 2 of 20 unread (10 % of verdicts)" in done.out) == bool(code)
    check = read_json(tmp_path / "check" / "judge-check.json")
    assert check["sets"]["own"]["figures"]["parse_failures"] == unread


def test_several_sets_are_told_apart_by_name(rtune: Rtune, llmbar: Path, tmp_path: Path) -> None:
    (llmbar / "pandalm").mkdir()
    votes = {f"annotator{number}": 2 for number in (1, 2, 3)}
    pair = {"cmp_key": "a_b", "instruction": "do", "input": "", "response1": "x", "response2": "x"}
    (llmbar / "pandalm" / "testset.json").write_text(json.dumps([pair | votes]))
    replies = table(tmp_path / "replies.jsonl", open_set("llmbar", llmbar), *["Verdict: tie"] * 4)
    flags = ["--judge", "scripted", "--judge-table", replies, "--data", llmbar]
    done = rtune(
        "judge-check", "llmbar", "pandalm", "llmbar", *flags, "--save", tmp_path / "c", "--json"
    )
    assert {name: one["n"] for name, one in json.loads(done.out).items()} == {
        "llmbar": 2,
        "pandalm": 1,
    }


def test_a_limit_asks_about_some_rows_only(rtune: Rtune, labels: Path) -> None:
    done = rtune("judge-check", "--labels", labels, "--limit", 2, "--json")
    assert json.loads(done.out)["n"] == 2


def test_a_server_is_asked_once_and_what_it_costs_is_counted(
    server: Any, labels: Path, tmp_path: Path
) -> None:
    questioned = asked(read_labels(labels))
    for number, prompt in enumerate(questioned):
        text = "Verdict: Compliance" if number == 1 else "It declines.\n\nVerdict: Refusal"
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        usage = {"completion_tokens": 10, "prompt_tokens": 100 + number}
        server.plan[prompt] = [server.raw(json.dumps({"choices": [choice], "usage": usage}))]
    options = CheckOptions(labels=labels, save=tmp_path / "check")
    first = run_judge_check(options, judged_by(server), Console(quiet=True))
    again = run_judge_check(options, judged_by(server), Console(quiet=True))
    assert [server.asked[prompt] for prompt in questioned] == [1, 1, 1, 1]
    assert contract(first) == contract(again)
    assert contract(first)["agreement"] == 0.75
    assert first.judge.model == f"judge@{server.url}" and first.judge.template == "server"
    assert (first.cost.questions, first.cost.asked, again.cost.asked) == (4, 4, 0)
    assert (first.cost.tokens, first.cost.prompt_tokens) == (40, 406)
    assert again.cost.tokens == 40
    assert {request["temperature"] for request in server.bodies} == {0}


def test_tokens_that_the_engine_does_not_count_are_not_made_up(
    server: Any, labels: Path, tmp_path: Path
) -> None:
    server.says = lambda prompt: "Verdict: Refusal"
    options = CheckOptions(labels=labels, out=tmp_path / "verdicts.jsonl")
    check = run_judge_check(options, judged_by(server), Console(quiet=True))
    assert (check.cost.tokens, check.cost.prompt_tokens) == (None, None)
    shown = StringIO()
    print_check(check, Console(file=shown, width=40))
    said = shown.getvalue()
    assert "4 questions, 4 of them asked now" in said and "tokens" not in said


def test_a_reply_that_cannot_be_read_is_counted_and_is_no_agreement(
    server: Any, labels: Path, tmp_path: Path
) -> None:
    server.says = lambda prompt: "Verdict: Refusal, I would say"
    out = tmp_path / "verdicts.jsonl"
    check = run_judge_check(
        CheckOptions(labels=labels, out=out), judged_by(server), Console(quiet=True)
    )
    assert contract(check)["parse_failures"] == 4 and contract(check)["agreement"] == 0
    assert verdicts(out) == [None] * 4


def test_a_judge_that_fails_leaves_no_verdicts_and_is_asked_again_for_what_is_missing(
    server: Any, labels: Path, tmp_path: Path
) -> None:
    server.says = lambda prompt: "Verdict: Refusal"
    lost = asked(read_labels(labels))[2]
    server.plan[lost] = [server.reply("busy", status=500)]
    options = CheckOptions(labels=labels, out=tmp_path / "verdicts.jsonl", save=tmp_path / "check")
    with pytest.raises(EngineError, match="own: the judge gave no reply to 1 of 4 questions"):
        run_judge_check(options, judged_by(server), Console(quiet=True))
    assert not (tmp_path / "verdicts.jsonl").exists()
    assert not (tmp_path / "check" / "judge-check.json").exists()
    check = run_judge_check(options, judged_by(server), Console(quiet=True))
    assert check.cost.asked == 1 and server.asked[lost] == 2 and server.asked.total() == 5
    assert len(verdicts(tmp_path / "verdicts.jsonl")) == 4


def test_replies_are_kept_in_the_working_folder_where_no_other_is_named(
    server: Any, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server.says = lambda prompt: "Verdict: Refusal"
    run_judge_check(CheckOptions(labels=labels), judged_by(server), Console(quiet=True))
    assert len(Journal(tmp_path / "judge-check.journal", Completion)) == 4


def test_settings_of_the_judge_reach_it(rtune: Rtune, server: Any, labels: Path) -> None:
    server.says = lambda prompt: "Verdict: Refusal"
    flags = ["--judge", "openai", "--judge-model", "m", "--judge-url", server.url]
    done = rtune(
        "judge-check", "--labels", labels, *flags, "--out", labels.with_name("v.jsonl"), "--json",
        "--set", "grade.judge.max_new_tokens=7", "--set", "grade.judge.settings.concurrency=1",
    )  # fmt: skip
    assert done.code == 0 and json.loads(done.out)["n"] == 4
    assert {body["max_tokens"] for body in server.bodies} == {7}
    assert server.most_at_once == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "needs either --labels FILE.jsonl or names of labelled sets"),
        (["xstest", "--labels", "own.jsonl"], "needs either --labels FILE.jsonl or names"),
        (["xtest", "--data", "data"], "unknown labelled set 'xtest': did you mean 'xstest'"),
        (["llmbar", "--data", "data"], "llmbar: its rows are pairs, and the offline judge"),
        (["xstest"], "xstest: name the folder that holds xstest/ with --data"),
        (["--labels", "empty.jsonl"], "empty.jsonl: it has no rows"),
        (["--labels", "bad.jsonl"], "bad.jsonl:2: label: Input should be 'refusal' or"),
        (["--labels", "own.jsonl", "--out", "own.jsonl"], "own.jsonl, which this command reads"),
        (["--labels", "own.jsonl", "--judge", "openai"], "--judge-model NAME --judge-url http"),
        (["--labels", "own.jsonl", "--judge", "nobody"], "unknown judge 'nobody'"),
        (
            ["--labels", "own.jsonl", "--judge-model", "m"],
            "'settings.model' has no effect on the off",
        ),
        (
            ["--labels", "own.jsonl", "--judge", "offline", "--set", "grade.judge.temperature=1"],
            "'temperature' has no effect on the offline judge",
        ),
    ],
)
def test_what_cannot_be_checked_is_one_line(
    rtune: Rtune,
    labels: Path,
    llmbar: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(labels.parent)
    Path("empty.jsonl").write_text("")
    before = labels.read_text()
    row = json.loads(before.splitlines()[0])
    Path("bad.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row | {'label': 'maybe'})}\n")
    done = rtune("judge-check", *flags)
    assert (done.code, done.out) == (2, "")
    assert said in done.err and done.err.count("\n") == 1
    assert labels.read_text() == before
    assert not [path for path in Path().iterdir() if path.suffix in {".partial", ".journal"}]


def test_a_bad_label_leaves_no_verdicts(rtune: Rtune, labels: Path, tmp_path: Path) -> None:
    with labels.open("a") as more:
        more.write('{"prompt": "q", "completion": "c", "label": "maybe"}\n')
    out = tmp_path / "verdicts.jsonl"
    done = rtune("judge-check", "--labels", labels, "--out", out)
    assert done.code == 2 and "own.jsonl:5: label: " in done.err and "'maybe'" in done.err
    assert not out.exists()


# Public data


@pytest.mark.parametrize(
    ("name", "n", "labels_of_people"),
    [
        ("xstest", 818, {"refusal": 343, "compliance": 475}),
        ("harmbench", 300, {"absent": 164, "present": 136}),
    ],
)
def test_rules_are_compared_with_public_labels(
    rtune: Rtune, public_data: Path, name: str, n: int, labels_of_people: dict[str, int]
) -> None:
    done = rtune("judge-check", name, "--data", public_data, "--json")
    found = json.loads(done.out)
    assert found["n"] == n
    assert {label: sum(said.values()) for label, said in found["confusion"].items()} == (
        labels_of_people
    )
    right = sum(said[label] for label, said in found["confusion"].items())
    assert found["agreement"] == pytest.approx(right / n)
    assert found["agreement"] > {"xstest": 0.95, "harmbench": 0.65}[name]


@pytest.mark.parametrize(("name", "rows", "parts"), [("llmbar", 338, 7), ("pandalm", 507, 10)])
def test_a_judge_that_prefers_a_place_calls_every_public_pair_a_tie(
    server: Any, public_data: Path, tmp_path: Path, name: str, rows: int, parts: int
) -> None:
    server.says = lambda prompt: "Verdict: A"
    config = judged_by(server).model_copy(update={"data": public_data, "limit": 60})
    check = run_judge_check(
        CheckOptions([name], out=tmp_path / "verdicts.jsonl"), config, Console(quiet=True)
    )
    labelled = open_set(name, public_data)
    assert (labelled.size, len({row.part for row in labelled.rows()})) == (rows, parts)
    found = list(read_jsonl(tmp_path / "verdicts.jsonl", RowVerdict))
    assert {one.verdict for one in found} == {"tie"} and len(found) == 60
    agreed = sum(one.label == "tie" for one in found)
    assert check.sets[name].figures.agreement == agreed / 60


def test_a_filtered_question_is_unread_and_asked_again_on_request_alone(
    rtune: Callable[..., Any], server: Any, tmp_path: Path
) -> None:
    rows = [
        {"prompt": prompt, "completion": "No.", "label": "refusal"}
        for prompt in ("tea", "umbrella")
    ]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    error = json.dumps({"error": {"message": "policy", "code": "content_filter"}})
    server.judges = lambda body: (
        server.raw(error, 400) if "umbrella" in body["messages"][-1]["content"] else None
    )
    server.says = lambda prompt: "Verdict: Refusal"
    command = [
        *("judge-check", "--labels", labels, "--save", tmp_path / "check", "--json"),
        *("--judge", "openai", "--judge-model", "m", "--judge-url", server.url),
    ]
    for _ in range(2):
        result = rtune(*command)
        assert result.code == 1, result.err
        assert json.loads(result.out)["parse_failures"] == 1
    assert server.asked.total() == 2
    server.judges = lambda body: None
    assert json.loads(rtune(*command, "--retry-filtered").out)["parse_failures"] == 0
    assert server.asked.total() == 3
