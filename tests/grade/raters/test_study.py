import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from response_tuning.artifacts import Completion, Message, Request, write_jsonl
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.judges.levels import Level
from response_tuning.grade.raters.study import (
    Session,
    Side,
    TaskRating,
    make_study,
    raters,
    read_tasks,
)

Answers = Callable[..., Path]


@pytest.fixture
def answers(tmp_path: Path, completion: Callable[..., Completion]) -> Answers:
    """Write a file of one variant's answers to ``n`` prompts."""

    def write(variant: str, n: int = 4, **more: str | None) -> Path:
        path = tmp_path / f"{variant}.jsonl"
        asked = [
            Request(item_id=f"i{i}", prompt=(Message(role="user", content=f"Question {i}?"),))
            for i in range(n)
        ]
        write_jsonl(
            path,
            [completion(one, more.get(one.item_id, f"{variant} {one.item_id}")) for one in asked],
        )
        return path

    return write


@pytest.fixture
def study(tmp_path: Path, answers: Answers) -> Path:
    make_study(tmp_path / "study", {"it": answers("it"), "rt": answers("rt")})
    return tmp_path / "study"


def said(*levels: Level, better: Side | None = "tie", comment: str = "") -> TaskRating:
    return TaskRating(levels=levels, more_helpful=better, comment=comment)


def shown(tasks: Sequence[object]) -> list[tuple[str, tuple[str, ...]]]:
    return [(task.item.item_id, task.variants) for task in tasks]  # type: ignore[attr-defined]


def test_each_prompt_is_shown_once_with_both_answers(study: Path) -> None:
    tasks = read_tasks(study, "ann")
    assert sorted(task.item.item_id for task in tasks) == ["i0", "i1", "i2", "i3"]
    for task in tasks:
        assert sorted(task.variants) == ["it", "rt"]
        assert task.answers == tuple(f"{name} {task.item.item_id}" for name in task.variants)


def test_one_variant_is_shown_alone(tmp_path: Path, answers: Answers) -> None:
    make_study(tmp_path / "study", {"rt": answers("rt")})
    assert {task.variants for task in read_tasks(tmp_path / "study", "ann")} == {("rt",)}


def test_of_several_variants_each_is_shown_beside_the_reference(
    tmp_path: Path, answers: Answers
) -> None:
    files = {name: answers(name) for name in ("it", "rt", "base")}
    make_study(tmp_path / "study", files, reference="rt")
    pairs = Counter(tuple(sorted(t.variants)) for t in read_tasks(tmp_path / "study", "ann"))
    assert pairs == {("it", "rt"): 4, ("base", "rt"): 4}


def test_order_and_sides_depend_on_seed_and_rater_alone(tmp_path: Path, answers: Answers) -> None:
    files = {"it": answers("it", 40), "rt": answers("rt", 40)}
    make_study(tmp_path / "zero", files)
    make_study(tmp_path / "again", files)
    make_study(tmp_path / "one", files, seed=1)
    ann = shown(read_tasks(tmp_path / "zero", "ann"))
    assert ann == shown(read_tasks(tmp_path / "again", "ann"))
    for other in (read_tasks(tmp_path / "zero", "ben"), read_tasks(tmp_path / "one", "ann")):
        assert [item for item, _ in shown(other)] != [item for item, _ in ann]
        assert dict(shown(other)) != dict(ann), "sides differ too"
    left = Counter(variants[0] for _, variants in ann)
    assert 10 <= left["rt"] <= 30, "each variant is on the left about as often"


def test_a_limit_takes_the_same_prompts_for_all_raters(tmp_path: Path, answers: Answers) -> None:
    files = {"it": answers("it", 40), "rt": answers("rt", 40)}
    make_study(tmp_path / "study", files, limit=5)
    tasks = [read_tasks(tmp_path / "study", rater) for rater in ("ann", "ben")]
    ids = [sorted(task.item.item_id for task in one) for one in tasks]
    assert ids[0] == ids[1] == ["i0", "i16", "i24", "i32", "i8"]


def test_a_study_is_whole_without_the_files_it_was_made_of(tmp_path: Path, study: Path) -> None:
    (tmp_path / "it.jsonl").unlink()
    (tmp_path / "rt.jsonl").unlink()
    assert len(Session(study, "ann").tasks) == 4


def test_making_the_same_study_again_changes_nothing(
    tmp_path: Path, study: Path, answers: Answers
) -> None:
    Session(study, "ann").rate(0, said("excellent", "sufficient"))
    before = {path: path.read_bytes() for path in study.rglob("*.json*")}
    make_study(study, {"it": answers("it"), "rt": answers("rt")})
    assert {path: path.read_bytes() for path in study.rglob("*.json*")} == before
    assert len(Session(study, "ann").verdicts) == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 2}, {"reference": "rt"}])
def test_a_folder_holds_one_study(study: Path, answers: Answers, change: dict[str, int]) -> None:
    files = {"it": answers("it"), "rt": answers("rt")}
    with pytest.raises(ConfigError, match="study of other answers; choose another folder"):
        make_study(study, files, **change)  # type: ignore[arg-type]


def test_other_answers_are_another_study(study: Path, answers: Answers) -> None:
    files = {"it": answers("it"), "rt": answers("rt", i2="Something else.")}
    with pytest.raises(ConfigError, match="study of other answers; choose another folder"):
        make_study(study, files)


def test_a_rating_is_there_after_a_restart(study: Path) -> None:
    session = Session(study, "ann")
    verdict = said("excellent", "not acceptable", better="left", comment="two\nlines, ünïcode")
    session.rate(2, verdict)
    assert Session(study, "ann").verdicts == {2: verdict} == session.verdicts
    assert Session(study, "ben").verdicts == {}
    assert raters(study) == ["ann"]


def test_a_later_rating_of_a_task_supersedes_an_earlier_one(study: Path) -> None:
    session = Session(study, "ann")
    session.rate(0, said("excellent", "excellent"))
    session.rate(1, said("excellent", "excellent"))
    session.rate(0, said("sufficient", "excellent", better="right"))
    again = Session(study, "ann")
    assert again.verdicts[0] == said("sufficient", "excellent", better="right")
    assert again.verdicts[1] == said("excellent", "excellent")
    lines = (study / "ratings" / "ann.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 3, "no rating is lost"


def test_a_line_that_a_crash_cut_short_costs_that_rating_alone(study: Path) -> None:
    session = Session(study, "ann")
    session.rate(0, said("excellent", "excellent"))
    journal = study / "ratings" / "ann.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[-40:-1])
    again = Session(study, "ann")
    assert [*again.verdicts] == [0]
    again.rate(0, said("excellent", "excellent"))
    assert journal.read_bytes() == whole + whole.splitlines(keepends=True)[1]


def test_a_torn_line_of_this_session_does_not_spoil_the_next_rating(study: Path) -> None:
    session = Session(study, "ann")
    session.rate(0, said("excellent", "excellent"))
    with (study / "ratings" / "ann.jsonl").open("ab") as journal:
        journal.write(b'{"rater":"an')
    session.rate(1, said("sufficient", "sufficient"))
    assert sorted(Session(study, "ann").verdicts) == [0, 1]


def test_a_full_disk_is_heard_and_the_rating_is_not_taken_as_kept(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    session = Session(study, "ann")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        session.rate(0, said("excellent", "excellent"))
    assert session.verdicts == {}


def test_the_next_task_is_the_first_unrated_one_after_this_and_then_from_the_start(
    study: Path,
) -> None:
    session = Session(study, "ann")
    assert session.unrated() == 0
    session.rate(0, said("excellent", "excellent"))
    session.rate(2, said("excellent", "excellent"))
    assert session.unrated() == 1
    assert session.unrated(after=1) == 3
    session.rate(3, said("excellent", "excellent"))
    assert session.unrated(after=3) == 1
    session.rate(1, said("excellent", "excellent"))
    assert session.unrated(after=1) is None


@pytest.mark.parametrize(
    ("levels", "better"),
    [([], None), (["excellent"], "tie"), (["excellent"] * 2, None), (["excellent"] * 3, "tie")],
)
def test_half_a_verdict_is_none(levels: list[Level], better: Side | None) -> None:
    with pytest.raises(ValueError, match="a level for each answer"):
        TaskRating(levels=tuple(levels), more_helpful=better)


def test_a_verdict_on_one_answer_is_none_on_a_pair(study: Path) -> None:
    with pytest.raises(ValueError, match="1 levels for 2 answers"):
        Session(study, "ann").rate(0, said("excellent", better=None))
    assert not (study / "ratings").exists()


@pytest.mark.parametrize("name", ["", "../ann", "a/b", ".hidden", "a b", "x" * 62, "a\n", "-f"])
def test_a_name_that_could_be_another_file_is_refused(study: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a name is letters"):
        Session(study, name)


def test_a_journal_of_somebody_else_is_refused(study: Path) -> None:
    Session(study, "ann").rate(0, said("excellent", "excellent"))
    journal = study / "ratings" / "ann.jsonl"
    journal.rename(journal.with_name("ben.jsonl"))
    with pytest.raises(DataError, match=r"ben\.jsonl: the rating of item i\d by ann is none"):
        Session(study, "ben")


def test_a_journal_of_another_study_is_refused(
    tmp_path: Path, study: Path, answers: Answers
) -> None:
    Session(study, "ann").rate(0, said("excellent", "excellent"))
    make_study(tmp_path / "other", {"rt": answers("rt")})
    (tmp_path / "other" / "ratings").mkdir()
    line = (study / "ratings" / "ann.jsonl").read_text()
    (tmp_path / "other" / "ratings" / "ann.jsonl").write_text(line)
    with pytest.raises(DataError, match="is none of ann's in this study"):
        Session(tmp_path / "other", "ann")


def test_a_damaged_journal_is_named_with_its_line(study: Path) -> None:
    Session(study, "ann").rate(0, said("excellent", "excellent"))
    with (study / "ratings" / "ann.jsonl").open("a") as journal:
        journal.write("{}\n")
    with pytest.raises(DataError, match=r"ann\.jsonl:3: is no longer what was written"):
        Session(study, "ann")


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"study\.json: cannot be read"):
        Session(tmp_path, "ann")
    (tmp_path / "study.json").write_text(json.dumps({"seed": 0}))
    with pytest.raises(DataError, match=r"study\.json: not a study: answers: Field required"):
        Session(tmp_path, "ann")


def test_answers_may_be_a_file_of_the_alpaca_eval_package(tmp_path: Path, answers: Answers) -> None:
    outputs = [{"instruction": f"Question {i}?", "output": f"published {i}"} for i in range(4)]
    (tmp_path / "model_outputs.json").write_text(json.dumps(outputs))
    files = {"rt": answers("rt"), "published": tmp_path / "model_outputs.json"}
    make_study(tmp_path / "study", files)
    shown_answers = {answer for t in read_tasks(tmp_path / "study", "ann") for answer in t.answers}
    assert shown_answers == {f"rt i{i}" for i in range(4)} | {f"published {i}" for i in range(4)}


def test_an_answer_that_is_missing_or_failed_is_named(tmp_path: Path, answers: Answers) -> None:
    for files in (
        {"it": answers("it"), "rt": answers("rt", 3)},
        {"it": answers("it"), "rt": answers("rt", i3=None)},
    ):
        with pytest.raises(DataError, match=r"rt\.jsonl: no answer to item i3"):
            make_study(tmp_path / "study", files)
    assert not (tmp_path / "study").exists()


def test_a_file_without_answers_is_refused(tmp_path: Path, answers: Answers) -> None:
    with pytest.raises(DataError, match=r"it\.jsonl: the file has no answers"):
        make_study(tmp_path / "study", {"it": answers("it", 0)})


def test_a_reference_that_is_no_variant_is_refused(tmp_path: Path, answers: Answers) -> None:
    with pytest.raises(ConfigError, match="unknown reference 'rtt': did you mean 'rt'"):
        make_study(tmp_path / "study", {"rt": answers("rt")}, reference="rtt")


def test_a_variant_must_be_able_to_name_a_folder(tmp_path: Path, answers: Answers) -> None:
    with pytest.raises(ConfigError, match="variant 'a/b'"):
        make_study(tmp_path / "study", {"a/b": answers("rt")})


def test_the_digest_of_a_task_tells_tasks_apart_and_nothing_of_variants(study: Path) -> None:
    ann, ben = read_tasks(study, "ann"), read_tasks(study, "ben")
    assert len({task.digest for task in ann}) == 4
    same = {task.digest for task in ann} & {task.digest for task in ben}
    assert same == {task.digest for task in ann if (task.item.item_id, task.variants) in shown(ben)}
