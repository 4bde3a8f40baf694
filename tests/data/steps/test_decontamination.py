import json
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import (
    Audit,
    Dropped,
    Example,
    Flagged,
    Message,
    read_json,
    read_jsonl,
)
from response_tuning.configs import DataConfig
from response_tuning.data import prepare
from response_tuning.data.conversations import Turn
from response_tuning.data.steps.decontamination import Match, PromptIndex, Prompts, prompts_digest
from response_tuning.errors import ConfigError

LONG = "Which of the two rivers that meet in Koblenz is the longer one?"
SHORT = "Who wrote Faust?"
PROMPTS: Prompts = {"quiz": {"long": LONG, "short": SHORT}}
Check = Callable[..., tuple[Audit, list[Example], list[Dropped]]]


def matches(turn: Turn, prompts: Prompts = PROMPTS, threshold: float = 0.8) -> list[Match]:
    return PromptIndex(prompts, threshold).matches(turn)


def user(content: str) -> Message:
    return Message(role="user", content=content)


@pytest.mark.parametrize(
    ("turn", "prompt_id", "kind"),
    [
        (Turn("r", LONG), "long", "exact"),
        (Turn("r", SHORT), "short", "exact"),
        (Turn("r", "  who WROTE\n“Faust” "), "short", "exact"),
        (Turn("r", "x", (user(SHORT), Message(role="assistant", content="y"))), "short", "exact"),
        (Turn("r", f"Answer in one word. {LONG.upper()} Thanks!"), "long", "in the instruction"),
        (Turn(f"They asked: {LONG} I said the Rhine."), "long", "in the response"),
        (Turn(LONG), "long", "in the response"),
        (Turn("r", "Which of the two rivers that meet in Koblenz is longer?"), "long", "near"),
    ],
)
def test_a_prompt_is_found_whatever_its_case_punctuation_and_white_space(
    turn: Turn, prompt_id: str, kind: str
) -> None:
    assert matches(turn, threshold=0.6) == [Match("quiz", prompt_id, kind)]


@pytest.mark.parametrize(
    "turn",
    [
        Turn("r"),
        Turn("r", "Who wrote Hamlet?"),
        Turn(SHORT),  # a short prompt stands in many a text
        Turn("r", f"Tell me. {SHORT}"),
        Turn("r", "Who wrote Faust, part two?"),  # and is another if one word differs
        Turn(LONG.replace("Koblenz", "Mainz"), "x"),
        Turn("r", "x", (Message(role="assistant", content=SHORT),)),
        Turn("r", "Which of the two rivers?"),
        Turn("", ""),
    ],
)
def test_what_holds_no_prompt_matches_none(turn: Turn) -> None:
    assert matches(turn) == []


def test_a_prompt_of_fewer_than_eight_words_is_found_exactly_or_not_at_all() -> None:
    prompts = {"quiz": {"7": "a b c d e f g", "8": "s t u v w x y z"}}
    assert matches(Turn("r", "a b c d e f g h"), prompts, threshold=0.5) == []
    assert matches(Turn("a b c d e f g h"), prompts) == []
    assert matches(Turn("r", "s t u v w x y o"), prompts, 0.5) == [Match("quiz", "8", "near")]
    assert matches(Turn("r s t u v w x y z"), prompts) == [Match("quiz", "8", "in the response")]


def test_a_near_match_is_the_share_of_common_triples() -> None:
    instruction = LONG.replace("the longer one", "the shorter one")  # 11 triples each, 9 in common
    turn = Turn("r", instruction)
    assert matches(turn, threshold=9 / 13) == [Match("quiz", "long", "near")]
    assert matches(turn, threshold=9 / 13 + 0.01) == []


def test_each_name_has_one_match_and_the_surest_kind_goes_before() -> None:
    prompts = {
        "b": {"1": LONG + " Please.", "2": LONG + " Please tell me."},
        "a": {"3": LONG, "4": LONG},
        "c": {"5": SHORT},
    }
    both = matches(Turn(LONG, LONG + " Please!"), prompts, threshold=0.5)
    assert both == [Match("b", "1", "exact"), Match("a", "3", "in the instruction")]
    nearest = matches(Turn("r", LONG + " Please, tell."), {"b": prompts["b"]}, threshold=0.5)
    assert nearest == [Match("b", "1", "in the instruction")]
    swapped = {"b": {"far": LONG + " Be brief now.", "close": LONG + " Be brief."}}
    assert matches(Turn("r", LONG + " Be so brief."), swapped, 0.5)[0].prompt_id == "close"


def test_a_prompt_without_words_matches_itself_alone() -> None:
    prompts = {"signs": {"0": "???", "1": "!"}}
    assert matches(Turn("r", " ??? "), prompts) == [Match("signs", "0", "exact")]
    assert matches(Turn("r", "..."), prompts) == []


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Prepare rows against prompts; keywords are settings of the decontamination."""

    def run(
        rows: list[dict[str, str]], prompts: Prompts = PROMPTS, **settings: object
    ) -> tuple[Audit, list[Example], list[Dropped]]:
        path, out = tmp_path / "rows.jsonl", tmp_path / "out"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {"against": tuple(prompts), **settings}
        config = DataConfig.model_validate({"source": str(path), "decontamination": values})
        audit = prepare(config, out, prompts)
        examples = list(read_jsonl(out / "examples.jsonl", Example))
        return audit, examples, list(read_jsonl(out / "dropped.jsonl", Dropped))

    return run


ROWS = [
    {"instruction": "Hi", "response": "Hello."},
    {"instruction": SHORT, "response": "Goethe."},
    {"instruction": "Ask me something.", "response": LONG},
]


@pytest.mark.parametrize("remove", [False, True])
def test_contamination_is_always_counted_and_listed_and_removed_only_if_asked(
    remove: bool, check: Check, tmp_path: Path
) -> None:
    audit, examples, dropped = check(ROWS, remove=remove)
    assert [example.row for example in examples] == ([0] if remove else [0, 1, 2])
    exact, inside = ("contaminated with quiz (exact)", "contaminated with quiz (in the response)")
    assert audit.dropped == ({exact: 1, inside: 1} if remove else {})
    assert [(drop.row, drop.reason, drop.detail) for drop in dropped] == (
        [(1, exact, "short"), (2, inside, "long")] if remove else []
    )
    assert audit.flagged == {exact: 1, inside: 1}
    assert audit.contaminated == {
        "quiz": {"exact": 1, "in the instruction": 0, "in the response": 1, "near": 0}
    }
    source = tmp_path / "rows.jsonl"
    assert list(read_jsonl(tmp_path / "out" / "flagged.jsonl", Flagged)) == [
        Flagged(row=1, where=f"{source}:2", what=exact, detail="short"),
        Flagged(row=2, where=f"{source}:3", what=inside, detail="long"),
    ]
    assert LONG not in (tmp_path / "out" / "flagged.jsonl").read_text()


def test_what_holds_no_prompt_is_counted_as_such(check: Check, tmp_path: Path) -> None:
    audit, _, _ = check(ROWS[:1])
    assert audit.contaminated == {"quiz": dict.fromkeys(audit.contaminated["quiz"], 0)}
    assert not (tmp_path / "out" / "flagged.jsonl").exists()
    written = read_json(tmp_path / "out" / "audit.json")
    assert written["contaminated"] == audit.contaminated
    assert written["against"] == {"quiz": prompts_digest(PROMPTS["quiz"])}


def test_data_of_responses_alone_are_checked_too(check: Check) -> None:
    rows = [{"response": f"So: {LONG}"}, {"response": SHORT}]
    audit, examples, _ = check(rows, remove=True)
    assert [example.response for example in examples] == [SHORT]
    assert audit.contaminated["quiz"]["in the response"] == 1


def test_an_example_that_holds_prompts_of_two_names_is_counted_for_both(check: Check) -> None:
    prompts = {"quiz": {"a": SHORT}, "exam": {"b": SHORT}}
    audit, examples, dropped = check(ROWS, prompts, remove=True)
    assert len(examples) == 2
    assert [drop.reason for drop in dropped] == ["contaminated with quiz (exact)"]
    assert [kinds["exact"] for kinds in audit.contaminated.values()] == [1, 1]


def test_what_is_only_reported_is_reported_of_the_sample_alone(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    rows = [{"instruction": SHORT, "response": f"r{place}"} for place in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig.model_validate(
        {"source": str(path), "max_examples": 10, "decontamination": {"against": ("quiz",)}}
    )
    audit = prepare(config, tmp_path / "out", PROMPTS)
    assert audit.contaminated["quiz"]["exact"] == 10


def test_a_sample_is_drawn_from_what_was_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    rows = [{"instruction": SHORT, "response": f"r{place}"} for place in range(20)]
    rows += [{"instruction": "q", "response": f"s{place}"} for place in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"against": ("quiz",), "remove": True}
    values = {"source": str(path), "max_examples": 15, "decontamination": settings}
    audit = prepare(DataConfig.model_validate(values), tmp_path / "out", PROMPTS)
    assert audit.dropped == {"contaminated with quiz (exact)": 20, "not sampled": 5}
    assert audit.contaminated["quiz"]["exact"] == 20


def test_a_removed_example_costs_no_other_its_place(tmp_path: Path) -> None:
    response = "The Rhine is the longer one of the two, for it comes from the Alps and goes on."
    rows = [
        {"instruction": LONG, "response": response},
        {"instruction": "And now?", "response": f"{response} So"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig.model_validate(
        {
            "source": str(path),
            "curation": {"near_duplicates": 0.8},
            "decontamination": {"against": ("quiz",), "remove": True},
        }
    )
    audit = prepare(config, tmp_path / "out", PROMPTS)
    assert audit.dropped == {"contaminated with quiz (exact)": 1}
    assert audit.examples == 1


@pytest.mark.parametrize("prompts", [None, {}, {"other": {"0": "x"}}, {**PROMPTS, "more": {}}])
def test_prompts_that_are_not_those_of_the_settings_are_refused(
    prompts: Prompts | None, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"response": "r"}\n')
    config = DataConfig.model_validate(
        {"source": str(path), "decontamination": {"against": ("quiz",)}}
    )
    with pytest.raises(
        ConfigError, match=r"^decontamination\.against: quiz; prompts are given for"
    ):
        prepare(config, tmp_path / "out", prompts)


def test_the_digest_of_prompts_is_of_their_ids_and_texts() -> None:
    assert prompts_digest({"a": "b"}) == prompts_digest({"a": "b"})
    others = [{"a": "c"}, {"b": "b"}, {"a": "b", "c": "d"}, {}]
    assert len({prompts_digest(texts) for texts in [{"a": "b"}, *others]}) == 5
