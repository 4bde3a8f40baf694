import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import Audit, Dropped, Example, file_digest, read_json, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.data.inspection.inspection import inspect
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.errors import DataError
from response_tuning.finetune.encoding import Encoder
from response_tuning.templates import Chat
from response_tuning.workflows.data import run_data

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]


def test_lima_as_a_plain_file_gives_every_assistant_turn(
    public_data: Path, prepare_source: Prepare
) -> None:
    audit, examples, _ = prepare_source(public_data / "lima/lima_train.jsonl", keep_duplicates=True)
    assert audit == Audit(rows=1030, rows_kept=1030, examples=1084, dropped={})
    assert len({example.row for example in examples if example.turn}) == 30


def test_lima_by_name_is_the_thousand_pairs_of_the_paper(
    public_data: Path, prepare_source: Prepare
) -> None:
    audit, examples, _ = prepare_source("lima", path=public_data / "lima/lima_train.jsonl")
    assert (audit.rows, audit.rows_kept, audit.examples) == (1030, 1000, 1000)
    assert audit.dropped == {"beyond the first 1,000 rows, which the paper uses": 30}
    assert all(example.instruction and not example.earlier for example in examples)


@pytest.mark.parametrize("by_name", [True, False])
def test_alpaca_loses_its_empty_outputs_only(
    by_name: bool, public_data: Path, prepare_source: Prepare
) -> None:
    path = public_data / "alpaca/alpaca_random_9k.json"
    audit, _, _ = prepare_source("alpaca", path=path) if by_name else prepare_source(path)
    assert audit == Audit(
        rows=8260,
        rows_kept=8257,
        examples=8257,
        dropped={"empty response": 3},
        flagged={"looks like a whole conversation in one text": 2},  # two answers are dialogues
    )


def test_dolly_loses_its_duplicates_only(public_data: Path, prepare_source: Prepare) -> None:
    audit, examples, _ = prepare_source("dolly", path=public_data / "dolly/dolly_filtered.json")
    assert audit == Audit(rows=2496, rows_kept=2494, examples=2494, dropped={"duplicate": 2})
    assert any("\n\n" in (example.instruction or "") for example in examples)


@pytest.mark.parametrize(
    ("name", "file", "digest"),
    [
        (
            "lima",
            "lima/lima_train.jsonl",
            "865f8938f371338202bdda01d941a3401da87a7a018d40d723c7bd8d40f4c239",
        ),
        (
            "alpaca",
            "alpaca/alpaca_random_9k.json",
            "63a9b7a2e384a808380ce29e02c1bf6d22898ac9bda5ab4d512c2eccbbacbb63",
        ),
        (
            "dolly",
            "dolly/dolly_filtered.json",
            "5fafa35d7153c5976a019b208f8982d0f96384cd4d2b52e525a16bac2755ae6e",
        ),
        (
            "safety-tuned-llamas",
            "safety_tuned_llamas/safety_only_half.json",
            "f4501fc097a14179183046eb0bb15b1e4095f2b9dea46ae335e0250032c43c68",
        ),
    ],
)
def test_the_papers_datasets_become_the_same_bytes(
    name: str,
    file: str,
    digest: str,
    public_data: Path,
    tmp_path: Path,
    prepare_source: Prepare,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare_source(name, path=public_data / file)
    assert file_digest(tmp_path / "out" / "examples.jsonl") == digest
    assert caplog.messages == []  # no column of theirs is missed


def test_safety_data_is_used_whole(public_data: Path, prepare_source: Prepare) -> None:
    audit, _, _ = prepare_source(public_data / "safety_tuned_llamas/safety_only_half.json")
    assert audit == Audit(rows=1241, rows_kept=1241, examples=1241, dropped={})


def test_plain_text_has_no_instructions(public_data: Path, prepare_source: Prepare) -> None:
    audit, examples, _ = prepare_source(public_data / "general_text/c4_demo.jsonl")
    assert audit == Audit(rows=300, rows_kept=300, examples=300, dropped={})
    assert {example.instruction for example in examples} == {None}


# What can be seen in a response, and in a file of them


def _labelled(path: Path) -> list[tuple[bool, str]]:
    """XSTest's completions that people call a full refusal (True) or a full compliance (False)."""
    with path.open(encoding="utf-8", newline="") as content:
        rows = [(row["final_label"], row["completion"]) for row in csv.DictReader(content)]
    return [(label == "2_full_refusal", text) for label, text in rows if "partial" not in label]


@pytest.mark.parametrize(
    ("model", "count", "phrases", "paper"),
    [("llama2orig", 395, 378, 124), ("mistralinstruct", 423, 382, 374)],
)
def test_phrases_agree_with_people_more_often_than_the_papers_regex(
    model: str, count: int, phrases: int, paper: int, public_data: Path
) -> None:
    labelled = _labelled(public_data / f"xstest/completions_{model}.csv")
    agreed = {
        selector: sum(is_refusal(text, selector) == refuses for refuses, text in labelled)
        for selector in ("phrases", "paper-regex")
    }
    assert len(labelled) == count
    assert agreed == {"phrases": phrases, "paper-regex": paper}


@pytest.mark.parametrize(
    ("name", "turns", "refusals", "restatements", "with_personal_data", "not_english"),
    [
        ("safety_tuned_llamas/safety_only_half.json", 1241, (804, 913, 782), 18, 0, 0),
        ("lima/lima_train.jsonl", 1084, (7, 36, 5), 77, 4, 23),
        ("dolly/dolly_filtered.json", 2496, (0, 10, 0), 43, 2, 620),
    ],
)
def test_what_is_in_the_public_files(
    name: str,
    turns: int,
    refusals: tuple[int, int, int],
    restatements: int,
    with_personal_data: int,
    not_english: int,
    public_data: Path,
) -> None:
    inspection = inspect(DataConfig(source=str(public_data / name)))
    assert inspection.turns == turns
    assert tuple(inspection.refusals.values()) == refusals
    assert inspection.restatements == restatements
    assert inspection.with_personal_data == with_personal_data
    assert inspection.turns - inspection.languages["en"] == not_english
    assert inspection.lengths["words"].mean > inspection.lengths["words"].median


# Mixtures of refusals, near-duplicates, and prompts of evaluations


@pytest.fixture
def mix(public_data: Path, tmp_path: Path) -> Callable[..., list[Example]]:
    """LIMA's thousand pairs with refusals of the safety data, by the paper's rule of thumb."""

    def run(refusals: int, selector: str = "paper-regex", seed: int = 0) -> list[Example]:
        mixture = {
            "refusals": refusals,
            "path": public_data / "safety_tuned_llamas/safety_only_half.json",
            "selector": selector,
        }
        lima = {"source": "lima", "path": public_data / "lima/lima_train.jsonl"}
        out = tmp_path / f"{selector}-{refusals}-{seed}"
        run_data(DataConfig.model_validate({**lima, "mixture": mixture, "seed": seed}), out)
        return list(read_jsonl(out / "examples.jsonl", Example))

    return run


@pytest.mark.parametrize(("selector", "usable"), [("paper-regex", 913), ("phrases", 804)])
def test_the_papers_doses_are_nested_and_hold_what_the_selector_takes_for_refusals(
    selector: str, usable: int, mix: Callable[..., list[Example]]
) -> None:
    doses = [mix(dose, selector) for dose in (0, 100, 200, 500, usable)]
    assert [len(examples) for examples in doses] == [1000, 1100, 1200, 1500, 1000 + usable]
    for fewer, more in itertools.pairwise(doses):
        assert fewer[:1000] == more[:1000]
        assert {e.model_dump_json() for e in fewer} < {e.model_dump_json() for e in more}
    refusals = doses[-1][1000:]
    assert all(example.instruction and example.row >= 1030 for example in refusals)
    assert all(is_refusal(example.response, selector) for example in refusals)
    assert {e.row for e in mix(100, selector, seed=1)} != {e.row for e in doses[1]}
    with pytest.raises(DataError, match=rf"only {usable} are usable \(not a refusal \({selector}"):
        mix(usable + 1, selector)


def test_the_arms_of_a_mixture_learn_the_same_responses_with_and_without_their_requests(
    mix: Callable[..., list[Example]], chat: Chat
) -> None:
    examples = mix(200)[-220:]
    objectives = ("response-tuning", "instruction-tuning")
    arms = [list(Encoder(chat, name, 4096, twins=objectives).rows(examples)) for name in objectives]
    for example, alone, paired in zip(examples, *arms, strict=True):
        assert example.instruction is not None
        learnt = [[label for label in row.labels if label >= 0] for row in (alone, paired)]
        assert learnt[0] == learnt[1]
        assert len(paired.input_ids) > len(alone.input_ids)


@pytest.mark.parametrize(
    ("name", "file", "near"),
    [
        ("lima", "lima/lima_train.jsonl", 0),
        ("dolly", "dolly/dolly_filtered.json", 2),
        ("alpaca", "alpaca/alpaca_random_9k.json", 129),
    ],
)
def test_near_duplicates_are_rare_but_for_the_short_answers_of_alpaca(
    name: str, file: str, near: int, public_data: Path, prepare_source: Prepare
) -> None:
    curation = {"near_duplicates": 0.8}
    audit, _, dropped = prepare_source(name, path=public_data / file, curation=curation)
    assert audit.dropped.get("near-duplicate", 0) == near
    assert all(drop.detail for drop in dropped if drop.reason == "near-duplicate")


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("lima", "lima/lima_train.jsonl", (1, 0)),
        ("dolly", "dolly/dolly_filtered.json", (0, 0)),
        ("alpaca", "alpaca/alpaca_random_9k.json", (0, 0)),
    ],
)
def test_the_public_training_data_against_the_public_prompts(
    name: str, file: str, count: tuple[int, int], public_data: Path, tmp_path: Path
) -> None:
    """One of LIMA's 300 test prompts is an instruction of its training data, word for word."""
    prompts = ("lima/lima_test_prompts.jsonl", "alpaca_eval/reference_text_davinci_003.json")
    against = [str(public_data / prompt) for prompt in prompts]
    config = {"source": name, "path": public_data / file, "decontamination": {"against": against}}
    run_data(DataConfig.model_validate(config), tmp_path)
    kinds = read_json(tmp_path / "audit.json")["contaminated"]
    assert tuple(sum(kinds[name].values()) for name in against) == count
    assert tuple(kinds[name]["exact"] for name in against) == count
