import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from response_tuning import templates
from response_tuning.artifacts import Score, write_jsonl
from response_tuning.errors import DataError
from response_tuning.probe.template_fit import TemplateFit

SCRIPT = Path(__file__).parents[2] / "benchmarks/template_rule.py"
RULE = runpy.run_path(str(SCRIPT))
BENCHMARK = "miniature-seen-validation"
FITS = {"good": (-0.2, -1.2), "fair": (-0.5, -1.3), "far": (-2.0, -1.2), "shut": (-0.3, -9.0)}
REACHED = {"good": 0.9, "fair": 0.7, "far": 0.1, "shut": 0.8}


def probes(folder: Path) -> Path:
    """A ranking, as ``rtune probe --templates`` writes it."""
    rated = [
        {
            "template": name,
            "digest": f"digest of {name}",
            "log_p_per_token": given,
            "log_p_per_token_alone": alone,
        }
        for name, (given, alone) in FITS.items()
    ]
    path = folder / "probe" / "probe.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"best": "good", "templates": {"rated": rated}}))
    return path.parent


def run(folder: Path) -> Path:
    for name, reached in REACHED.items():
        for arm, objective, bonus in (
            ("rt", "response-tuning", 0.0),
            ("it", "instruction-tuning", 0.05),
        ):
            for seed in (0, 1):
                cell = folder / "run" / f"{arm}-{name}" / f"seed-{seed}"
                manifest = {
                    "template": f"digest of {name}",
                    "settings": {"objective": objective},
                }
                (cell / "finetune").mkdir(parents=True)
                (cell / "finetune/manifest.json").write_text(json.dumps(manifest))
                value = reached + bonus + (0.02 if seed else -0.02)
                scores = [
                    Score(item_id="a", metric="strict", value=value),
                    Score(item_id="a", metric="stopped", value=0.0),
                ]
                write_jsonl(cell / "grade" / f"{BENCHMARK}.jsonl", scores)
    return folder / "run"


def check(folder: Path, *more: str) -> list[str]:
    command = [sys.executable, str(SCRIPT), "check", str(probes(folder))]
    ran = subprocess.run(
        [*command, "--run", str(run(folder)), *more], capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


def test_each_template_has_its_gaps_and_the_mean_of_its_seeds(tmp_path: Path) -> None:
    head, *lines = check(tmp_path)
    assert head.split() == ["template", "kind", "verdict", "gap", "alone", "RT", "seeds", "IT"]
    rows = [line.split() for line in lines[:4]]
    assert rows[0] == ["good", "conversation", "strong", "0.00", "0.00", "90.0", "2", "95.0"]
    assert rows[1][:3] + rows[1][5:6] == ["shut", "no-opening", "weak", "80.0"]
    assert [row[0] for row in rows] == ["good", "shut", "fair", "far"]


def test_the_outcomes_of_each_kind_are_printed_as_the_package_holds_them(tmp_path: Path) -> None:
    lines = check(tmp_path)
    at = lines.index("OUTCOMES")
    assert [line.split(maxsplit=1) for line in lines[at + 1 : at + 5]] == [
        ["conversation", "Outcome(2, 0.70, 0.80, 0.90)"],
        ["no-opening", "Outcome(1, 0.80, 0.80, 0.80)"],
        ["no-answer", "Outcome(1, 0.10, 0.10, 0.10)"],
        ["neither", "no template"],
    ]


def test_what_the_rule_gets_wrong_is_listed(tmp_path: Path) -> None:
    text = "\n".join(check(tmp_path))
    assert "RT reaches 60 % or more in 3 of 4 templates" in text
    assert "right by the limits (0.6, 0.5): 3 of 4 templates" in text
    assert text.endswith("exceptions: shut (no-opening, 80 %)")


def test_fitted_limits_lie_between_the_templates_that_they_part() -> None:
    def tuned(gap: float, score: float) -> Any:
        rated = RULE["rate_templates"]([TemplateFit("x", -gap, 0.0), TemplateFit("best", 0.0, 0.0)])
        return RULE["Tuned"](next(r for r in rated if r.fit.template == "x"), (score,), None)

    apart = [tuned(gap, score) for gap, score in ((0.1, 0.9), (0.3, 0.9), (0.7, 0.1), (0.9, 0.2))]
    assert RULE["fitted"](apart, 0.6)[0] == pytest.approx(0.5)


def test_probes_of_single_templates_are_read_by_their_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        results = [
            {"model": "m", "metric": metric, "value": -1.0}
            for metric in ("log_p_per_token", "log_p_per_token_alone")
        ]
        single = {"models": {"m": {"template": f"digest of {name}"}}, "results": results}
        (tmp_path / name).mkdir()
        (tmp_path / name / "probe.json").write_text(json.dumps(single))
    digests, fits = RULE["read_probes"]([tmp_path])
    assert digests == {"one": "digest of one", "two": "digest of two"}
    assert fits == [TemplateFit("one", -1.0, -1.0), TemplateFit("two", -1.0, -1.0)]


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in {
        (str(tmp_path / "empty"), "--run", str(tmp_path)): "no probe.json here",
        (str(probes(tmp_path)), "--run", str(tmp_path / "none")): "no tuned model here",
        (str(tmp_path / "probe"), "--run", str(run(tmp_path)), "--metric", "x"): "no score by 'x'",
    }.items():
        ran = subprocess.run(
            [sys.executable, str(SCRIPT), "check", *arguments], capture_output=True, text=True
        )
        assert ran.returncode != 0
        assert ran.stderr.startswith("template_rule: ")
        assert said in ran.stderr
    with pytest.raises(DataError, match="0 probed templates were tuned with"):
        RULE["joined"]({"a": "digest"}, [TemplateFit("a", -1.0, -1.0)], {})


def test_templates_and_a_recipe_are_written_for_every_format(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(SCRIPT), "write", str(tmp_path)], check=True)
    formats = yaml.safe_load((SCRIPT.with_suffix(".yaml")).read_text(encoding="utf-8"))
    recipe = yaml.safe_load((tmp_path / "run.yaml").read_text(encoding="utf-8"))
    for variant in recipe["variants"].values():
        assert [Path(path).stem for path in variant["templates"]] == [*formats]
    assert len(formats) == 28
    assert templates.jinja(str(tmp_path / "tulu.jinja")).count("<|user|>") == 1
