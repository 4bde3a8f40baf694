import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Score, read_jsonl
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.journals import Journal
from response_tuning.miniature import DEMO
from response_tuning.report.reading import read_scores
from response_tuning.serve.playground.records import Answer, PaneForm
from response_tuning.serve.playground.votes import Candidate, Vote
from response_tuning.workflows import playground
from response_tuning.workflows.experiment import read_experiment
from response_tuning.workflows.playground import (
    PaneSource,
    PlaygroundSettings,
    pane_sources,
    write_scores,
)


def make_run(run: Path, *tuned: str, names: tuple[str, ...] = ()) -> None:
    """What ``rtune demo`` leaves, as far as the playground looks at it."""
    experiment = read_experiment(DEMO).model_dump(mode="json")
    if names:
        variants = experiment["variants"]
        experiment["variants"] = {f"my-{name}": variants[name] for name in names}
        experiment["report"] = {}
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"schema": 1, "experiment": experiment}))
    for name in tuned:
        folder = run / name / "seed-0" / "finetune"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")


def test_without_an_argument_the_panes_are_those_of_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert pane_sources([]) == [PaneSource("base", "miniature", "roles")]
    make_run(Path("runs/demo"), "it", "rt", "rt-refusals")
    assert pane_sources([]) == [
        PaneSource("base", "miniature", "roles"),
        PaneSource("rt", "runs/demo/rt/seed-0/finetune"),
        PaneSource("it", "runs/demo/it/seed-0/finetune"),
    ]


def test_a_run_that_has_other_variants_opens_its_first_three(tmp_path: Path) -> None:
    run = tmp_path / "run"
    names = ("base", "rt", "it", "rt-refusals")
    make_run(run, "my-rt", "my-it", "my-rt-refusals", names=names)
    assert [one.name for one in pane_sources([str(run)])] == ["my-base", "my-rt", "my-it"]


def test_a_variant_that_is_not_tuned_yet_is_left_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run, "it")
    assert [one.name for one in pane_sources([str(run)])] == ["base", "it"]


def test_models_have_names_of_their_own_or_of_their_folder() -> None:
    given = ["runs/a/rt/seed-0/finetune", "b=miniature", "org/model", "x/model", "m=a=b"]
    assert pane_sources(given, "tulu") == [
        PaneSource("rt", "runs/a/rt/seed-0/finetune", "tulu"),
        PaneSource("b", "miniature", "tulu"),
        PaneSource("model", "org/model", "tulu"),
        PaneSource("model-4", "x/model", "tulu"),
        PaneSource("m", "a=b", "tulu"),
    ]


def test_a_server_s_model_has_an_address() -> None:
    given = ["llama3.2:1b@http://127.0.0.1:8000/v1", "big=org/m@https://example.org/v1?a=b"]
    assert pane_sources(given) == [
        PaneSource("llama3.2-1b", "llama3.2:1b", url="http://127.0.0.1:8000/v1"),
        PaneSource("big", "org/m", url="https://example.org/v1?a=b"),
    ]


def test_a_name_that_is_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="pane 'a': the name is taken"):
        pane_sources(["a=miniature", "a=miniature"])


def vote(choice: Any, *panes: str, item: str = "i1") -> Vote:
    candidates = tuple(
        Candidate(pane=one, answer=one, model="m", template="t", response="r") for one in panes
    )
    prompt = (Message(role="user", content="Why?"),)
    return Vote(
        rater="me", item_id=item, prompt=prompt, candidates=candidates, choice=choice, blind=True,
        at="now",
    )  # fmt: skip


def test_votes_become_the_scores_that_rate_writes(tmp_path: Path) -> None:
    votes = [vote(0, "rt", "base"), vote("both bad", "base", "rt", item="i2")]
    write_scores(votes, "base", tmp_path)
    path = tmp_path / "rt" / "seed-0" / "grade" / "human-rating.jsonl"
    found = {(one.item_id, one.metric): one.value for one in read_jsonl(path, Score)}
    assert found["i1", "win_rate"] == 1
    assert found["i2", "win_rate"] == 0.5
    assert found["i2", "both_bad"] == 1


def test_scores_of_votes_are_read_as_those_of_a_run(tmp_path: Path) -> None:
    write_scores([vote(0, "rt", "base"), vote(1, "rt", "base", item="i2")], "base", tmp_path)
    (found,), missing = read_scores(tmp_path, ["base", "rt"])
    assert (found.name, found.items, missing) == ("human-rating", ("i1", "i2"), [])
    assert found.of("win_rate", "rt").tolist() == [[1, 0]]
    assert found.of("both_bad", "base").tolist() == [[0, 0]]


def test_presets_are_the_prompts_of_the_benchmarks() -> None:
    presets = playground._presets(GradeConfig(limit=3))
    assert {"miniature-unseen", "xstest", "alpaca-eval"} <= presets.keys()
    assert not any(name.startswith("core-") for name in presets)
    prompts = presets["miniature-unseen"]()
    assert len(prompts) == 3
    assert all(prompt[-1].role == "user" and prompt[-1].content for prompt in prompts)


def test_the_form_sends_a_key_only_if_it_says_so(
    monkeypatch: pytest.MonkeyPatch, server: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    settings = PlaygroundSettings()

    def key(**fields: Any) -> str:
        form = PaneForm.model_validate({"model": "m", "name": "a"} | fields)
        pane: Any = playground._open(form, settings, None)  # type: ignore[arg-type]
        return str(pane._server._access.api_key)

    assert key(url=server.url) == "none"
    assert key(url=server.url, send_key=True) == "sk-0123456789"
    assert key(url="https://example.org/v1", send_key=True) == "sk-0123456789"
    with pytest.raises(ConfigError, match="tick the box that sends it the one in OPENAI_API_KEY"):
        key(url="https://example.org/v1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere"], "/nowhere: no such folder"),
        (["miniature", "--template", "tuluu"], "did you mean 'tulu'"),
        (["a=miniature", "a=miniature"], "pane 'a': the name is taken"),
        (["m@http://127.0.0.1:1/v1?key=sk-0123456789ab"], "base_url"),
        (["--limit", "0"], "limit"),
    ],
)
def test_a_bad_command_line_is_one_line(
    rtune: Callable[..., Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = rtune("playground", *arguments, "--out", tmp_path / "out")
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert "sk-0123456789ab" not in result.err
    assert not (tmp_path / "out").exists()


def test_the_command_serves_a_page_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "response_tuning", "playground", "miniature", "--template"]
    environment = os.environ | {"COLUMNS": "300"}
    with subprocess.Popen(
        [*command, "roles", "--out", "out"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "loading miniature: miniature ...\n"
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/) \(answers and votes go to out;", line)
        assert found, line
        with urllib.request.urlopen(f"{found[1]}state", timeout=60) as reply:
            (pane,) = json.load(reply)["panes"]
        assert (pane["name"], pane["template"]) == ("miniature", "roles")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert not (tmp_path / "out").exists(), "nothing was answered, so nothing is left"


def test_an_interrupt_ends_an_answer_and_keeps_it(
    tmp_path: Path, save_model: Callable[..., Path]
) -> None:
    endless = save_model("llama", context=8192, eos=[])
    command = [sys.executable, "-m", "response_tuning", "playground", f"one={endless}"]
    with subprocess.Popen(
        [*command, "--out", "out"], cwd=tmp_path, env=os.environ | {"COLUMNS": "300"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        address = next(line for line in process.stdout if line.startswith("http")).split()[0]
        asked = {
            "pane": "one", "messages": [{"role": "user", "content": "Hi."}],
            "sampling": {"max_new_tokens": 8000},
        }  # fmt: skip
        headers = {"Origin": address.rstrip("/"), "Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}ask", json.dumps(asked).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            for _ in range(5):
                reply.readline()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    (kept,) = Journal(tmp_path / "out" / "answers.jsonl", Answer)
    assert kept.detail == "stopped by the user"
    assert 0 < len(kept.ids) < 8000
