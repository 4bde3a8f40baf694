"""A benchmark registered from outside is one class, and all that it states is used."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Message, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.grade import (
    BENCHMARKS,
    Average,
    Item,
    LmEvalBenchmark,
    averages,
    displays,
    facts,
    open_benchmark,
    open_lm_eval,
    suites,
)
from response_tuning.metrics import Display

POETRY = Average("poetry-average", ("haiku", "limerick"), ("lines",), ("lines",))


class Haiku:
    """Two prompts; an answer gets points for its lines and none for its beauty."""

    suite = "poetry"
    metrics = ("beauty", "lines", "zeal")
    headline = ("zeal", "lines")
    scales: Mapping[str, tuple[float, float]] = {"zeal": (1, 3)}
    averages = (POETRY,)
    reads_files = False

    def __init__(self, config: GradeConfig) -> None:
        self._limit = config.limit

    def items(self) -> Sequence[Item]:
        texts = ("Write about rain.", "Write about tea.")[: self._limit]
        return [
            Item(item_id=text.split()[-1], prompt=(Message(role="user", content=text),))
            for text in texts
        ]

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        lines = float((completion.response or "").count("\n") == 2)
        for metric, value in (("beauty", 0), ("lines", lines), ("zeal", 1)):
            yield Score(item_id=item.item_id, metric=metric, value=value)

    def export(self, completions: Sequence[Completion], generator: str) -> Mapping[str, object]:
        return {"poems.json": [[generator, one.response] for one in completions]}


class Limerick(Haiku):
    """The same for poems of five lines."""


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    BENCHMARKS.names()  # so that the package's own are not registered a second time
    monkeypatch.setattr(BENCHMARKS, "_entries", dict(BENCHMARKS._entries))
    BENCHMARKS.register("haiku")(Haiku)
    BENCHMARKS.register("limerick")(Limerick)


@pytest.fixture
def evaluated(
    registered: None, rtune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "table.jsonl"
    poems = {"Write about rain.": "a\nb\nc", "Write about tea.": "tea"}
    rows = [json.dumps({"prompt": prompt, "response": poem}) for prompt, poem in poems.items()]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = rtune(
        *("eval", "poet", "--engine", "scripted", "--table", table, "--suite", "poetry"),
        *("--out", "run"),
    )
    assert result.code == 0, result.err
    return result


def test_its_suite_can_be_named_and_its_export_lies_beside_the_completions(evaluated: Any) -> None:
    assert suites()["poetry"] == ("haiku", "limerick")
    for name in ("haiku", "limerick"):
        text = Path(f"run/model/seed-0/generate/{name}.poems.json").read_text(encoding="utf-8")
        assert json.loads(text) == [["model", "a\nb\nc"], ["model", "tea"]]


def test_its_headline_and_scale_are_those_of_the_tables(evaluated: Any) -> None:
    with Path("run/report/results.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["benchmark"] == "haiku"]
    assert [row["metric"] for row in rows][:3] == ["zeal", "lines", "beauty"]
    markdown = Path("run/report/report.md").read_text(encoding="utf-8")
    assert "| model | haiku | zeal | 1.000 |" in markdown, "the lowest of a scale is not 100 %"
    assert "| model | haiku | lines | 50.0 |" in markdown
    assert "| haiku | beauty |" not in markdown
    assert "zeal" in evaluated.out
    assert "beauty" not in evaluated.out


def test_its_average_is_one_more_benchmark_of_the_report(evaluated: Any) -> None:
    markdown = Path("run/report/report.md").read_text(encoding="utf-8")
    assert "| model | poetry-average | lines | 50.0 |" in markdown
    assert averages(["haiku"], GradeConfig()) == []


def test_what_it_does_not_state_has_a_default(registered: None) -> None:
    haiku, ifeval = facts("haiku"), facts("advbench")
    assert (haiku.reads_files, ifeval.reads_files) == (False, True)
    assert (haiku.has_reference, facts("alpaca-eval").has_reference) == (False, True)
    assert (haiku.is_judged, ifeval.is_judged) == (False, True)
    shown = displays(["limerick", "haiku"], GradeConfig())
    assert [*shown] == ["limerick", "haiku", "poetry-average"]
    assert shown["haiku"] == Display(("zeal", "lines"), {"zeal": (1, 3)})


def test_a_benchmark_of_lm_eval_is_registered_in_the_same_way(registered: None) -> None:
    quiz = LmEvalBenchmark("quiz", "poetry", "quiz", sources={}, columns=())
    BENCHMARKS.register("quiz")(quiz)
    assert suites()["poetry"] == ("haiku", "limerick", "quiz")
    assert open_lm_eval("quiz") is quiz
    assert open_lm_eval("haiku") is None
    assert displays(["quiz"], GradeConfig()) == {"quiz": Display(("acc", "acc_norm"))}
    with pytest.raises(ConfigError, match="quiz: lm-eval measures it on the model itself"):
        open_benchmark("quiz")


def test_the_suites_of_the_paper() -> None:
    assert suites() == {
        "core": (
            *("core-arc", "core-gsm8k", "core-hellaswag", "core-mmlu", "core-openbookqa"),
            "core-piqa",
        ),
        "helpfulness": ("acceptability", "alpaca-eval", "just-eval"),
        "instructions": ("ifeval", "infobench"),
        "refusal": ("advbench", "harmbench", "malicious-instruct", "xstest"),
    }


@pytest.mark.parametrize("name", BENCHMARKS.names())
def test_every_benchmark_declares_its_metrics_and_which_of_them_tables_show(name: str) -> None:
    found = facts(name)
    assert found.headline
    totals_and_measures = {"length_controlled_win_rate", "stopped"}
    assert {*found.headline} - totals_and_measures <= {*found.metrics}
    assert found.scales.keys() <= {*found.metrics}
