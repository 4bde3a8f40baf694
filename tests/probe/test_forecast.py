import math
from pathlib import Path

import pytest

from response_tuning.errors import DataError
from response_tuning.probe import forecast
from response_tuning.probe.forecast import Row

TEMPLATES = ("a", "b", "c")


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def row(base: str, template: str, skill: float, score: float, **more: float) -> Row:
    measured = {"willingness": skill, "perplexity": 1.0, "stop_strict": 0.0, **more}
    return Row("test", base, template, measured, {"rt": score})


def study(bases: int = 5) -> list[Row]:
    """Bases whose score is a logistic function of one predictor; another is noise."""
    return [
        row(f"base{n}", template, skill, sigmoid(2 * skill), ifd=((7 * n + 3 * t) % 5) / 5)
        for n in range(bases)
        for t, template in enumerate(TEMPLATES)
        for skill in [(n - bases / 2) / 2 + t / 10]
    ]


def test_a_predictor_that_decides_the_score_has_no_error_on_unseen_bases() -> None:
    rows = study()
    assert forecast.left_out_error(rows, ["willingness"], "rt") < 0.01
    mean_error = forecast.left_out_error(rows, [], "rt")
    assert mean_error > 0.2
    # A predictor that never varies is worth as much as no predictor.
    assert forecast.left_out_error(rows, ["perplexity"], "rt") == pytest.approx(mean_error)


def test_a_left_out_base_is_left_out_under_all_its_templates() -> None:
    """One base with its own level under every template cannot be learnt from the others."""
    rows = [row(f"b{n}", t, 0.0, float(n == 0)) for n in range(4) for t in TEMPLATES]
    assert forecast.left_out_error(rows, ["willingness"], "rt") == pytest.approx((1 + 3 / 3) / 4)


def test_a_prediction_has_an_interval_that_holds_the_truth_and_stays_a_share() -> None:
    new = row("new", "a", 0.3, math.nan)
    found = forecast.interval(study(), ["willingness"], "rt", new)
    assert found.low <= sigmoid(0.6) <= found.high
    assert found.high - found.low < 0.1
    vague = forecast.interval(study(), ["ifd"], "rt", row("new", "a", 0.0, 0.0, ifd=0.4))
    assert 0 <= vague.low <= vague.value <= vague.high <= 1
    assert vague.high - vague.low > 0.5


def test_ranks_tell_signal_from_noise_with_intervals_over_bases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast, "RESAMPLES", 100)
    found = forecast.ranks(study(), "rt")
    assert found["willingness"].spearman == pytest.approx(1)
    assert found["willingness"].low == pytest.approx(1)
    assert found["ifd"].low < 0 < found["ifd"].high
    assert math.isnan(found["perplexity"].spearman), "it is the same for every base"


def test_the_partial_correlation_takes_out_what_the_base_scores_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast, "RESAMPLES", 2)
    rows = [row(f"b{n}", "a", float(n), n / 10, stop_strict=n / 10) for n in range(6)]
    assert math.isnan(forecast.ranks(rows, "rt")["willingness"].partial), "nothing is left"


def test_choosing_among_predictors_costs_what_it_costs_on_unseen_bases() -> None:
    rows = study()
    candidates = [["willingness"], ["ifd"]]
    best = min(forecast.left_out_error(rows, one, "rt") for one in candidates)
    assert forecast.nested_error(rows, candidates, "rt") >= best - 1e-12


def test_a_predictor_that_some_base_lacks_is_not_used() -> None:
    rows = study()
    rows[3] = rows[3]._replace(measured={"willingness": 0.0})
    assert forecast.usable(rows, ["willingness", "ifd"]) == ["willingness"]


def test_a_file_that_is_no_study_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    path.write_text("benchmark,base,template,willingness,rt\nm,b,t,0.5,0.6\nm,b,t,high,0.6\n")
    with pytest.raises(DataError, match=r"study\.csv:3: no line of a study: .*'high'"):
        forecast.read_study(path)
    path.write_text("base,rt\nb,0.5\n")
    with pytest.raises(DataError, match=r"study\.csv:2: no line of a study: 'benchmark'"):
        forecast.read_study(path)


def test_a_line_of_a_study_has_what_was_measured_and_what_was_reached(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    path.write_text("benchmark,base,template,willingness,ifd,rt,it\nm,b,t,0.5,,0.6,\n")
    assert forecast.read_study(path) == [Row("m", "b", "t", {"willingness": 0.5}, {"rt": 0.6})]
