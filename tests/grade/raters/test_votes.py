from pathlib import Path

from response_tuning.artifacts import Score, read_jsonl
from response_tuning.grade.raters.votes import RatedVote, write_votes


def scores(folder: Path, variant: str) -> dict[tuple[str, str], float]:
    path = folder / variant / "seed-0" / "grade" / "human-rating.jsonl"
    return {(one.item_id, one.metric): one.value for one in read_jsonl(path, Score)}


def win(value: float) -> dict[str, float]:
    return {
        "win": float(value == 1), "tie": float(value == 0.5), "lose": float(value == 0),
        "win_rate": value,
    }  # fmt: skip


def test_a_vote_between_two_is_a_win_a_tie_or_a_loss_against_the_reference(tmp_path: Path) -> None:
    pair = ("rt", "base")
    votes = [
        RatedVote("me", "i1", pair, "rt"), RatedVote("me", "i2", pair, "base"),
        RatedVote("me", "i3", pair, "tie"), RatedVote("me", "i4", pair, "both bad"),
    ]  # fmt: skip
    write_votes(votes, "base", tmp_path)
    expected = {"i1": win(1), "i2": win(0), "i3": win(0.5), "i4": win(0.5)}
    bad = {("i1", "both_bad"): 0, ("i2", "both_bad"): 0, ("i3", "both_bad"): 0}
    bad[("i4", "both_bad")] = 1
    wins = {
        (item, metric): value
        for item, shares in expected.items()
        for metric, value in shares.items()
    }
    assert scores(tmp_path, "rt") == wins | bad
    assert scores(tmp_path, "base") == bad


def test_the_best_of_three_says_nothing_of_the_other_against_the_reference(tmp_path: Path) -> None:
    three = ("it", "base", "rt")
    write_votes([RatedVote("me", "i1", three, "rt")], "base", tmp_path)
    assert scores(tmp_path, "rt")["i1", "win"] == 1
    assert scores(tmp_path, "it") == {("i1", "both_bad"): 0}
    write_votes([RatedVote("me", "i1", three, "base")], "base", tmp_path)
    assert scores(tmp_path, "rt")["i1", "lose"] == scores(tmp_path, "it")["i1", "lose"] == 1


def test_several_votes_on_an_item_are_shares(tmp_path: Path) -> None:
    pair = ("rt", "base")
    votes = [RatedVote("me", "i1", pair, choice) for choice in ("rt", "rt", "tie", "both bad")]
    write_votes(votes, "base", tmp_path)
    found = scores(tmp_path, "rt")
    assert found["i1", "win"] == 0.5
    assert found["i1", "win_rate"] == 0.75
    assert found["i1", "both_bad"] == 0.25
    path = tmp_path / "rt" / "seed-0" / "grade" / "human-rating.jsonl"
    assert {one.explanation for one in read_jsonl(path, Score)} == {"4 ratings", "4 votes"}


def test_without_the_reference_among_the_answers_nothing_is_compared(tmp_path: Path) -> None:
    write_votes([RatedVote("me", "i1", ("rt", "it"), "rt")], "base", tmp_path)
    assert scores(tmp_path, "rt") == {("i1", "both_bad"): 0}
