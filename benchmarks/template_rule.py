"""Does the probe's verdict on a template foretell what response tuning reaches under it?

    python benchmarks/template_rule.py write FOLDER
    python benchmarks/template_rule.py check FOLDER/probe --run FOLDER/run

``write`` leaves 28 chat templates in FOLDER and a recipe that tunes the miniature under each of
them, with response and with instruction tuning; it prints the two commands that probe and tune.
``check`` compares what was probed with what was reached: a line for each template, the outcomes of
each kind (``OUTCOMES`` in ``probe/template_fit.py``), how well the limits in the package and limits
fitted without the template itself classify, and the exceptions. Probes may be a ranking by
``rtune probe --templates``, or folders of single probes; a run is what ``rtune run`` left, of any
base. Templates are matched by their text.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import yaml

from response_tuning.artifacts import Score, read_jsonl
from response_tuning.errors import DataError, ResponseTuningError
from response_tuning.probe.template_fit import (
    ALONE_LIMIT,
    GIVEN_LIMIT,
    KIND_VERDICTS,
    RatedTemplate,
    TemplateFit,
    rate_templates,
)

FORMATS = Path(__file__).with_name("template_rule.yaml")
BAR = 0.6
"""Response tuning works from this share on: the bar that the demo's template had to pass."""
SETTINGS = {
    "base_model": "miniature",
    "device": "cpu",
    "method": "full",
    "learning_rate": "4e-4",
    "scheduler": "linear",
    "warmup_steps": 4,
    "epochs": 1,
    "examples_per_step": 32,
    "window": 192,
    "tokens_per_micro_batch": 2048,
    "save_steps": 1000,
}
"""The demo's, with a wider window: some of the templates are long."""
Limits = tuple[float, float]
Reached = dict[str, dict[str, list[float]]]
"""Digest of a template -> objective -> the scores of its seeds."""


class Tuned(NamedTuple):
    """A template with what was measured before and after tuning."""

    rated: RatedTemplate
    scores: tuple[float, ...]
    """Of response tuning, one for each seed."""
    ceiling: float | None
    """Mean over the seeds of instruction tuning, if it was run."""

    @property
    def score(self) -> float:
        """Mean over the seeds."""
        return mean(self.scores)

    def passes(self, limits: Limits) -> bool:
        """Whether both gaps are within ``limits``."""
        return self.rated.given_gap <= limits[0] and self.rated.alone_gap <= limits[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description="Fit and check the probe's verdict on templates.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="write templates and a recipe").add_argument(
        "folder", type=Path
    )
    check = commands.add_parser("check", help="compare probes with runs")
    check.add_argument("probes", type=Path, nargs="+", help="probe.json, or a folder of such")
    check.add_argument(
        "--run", type=Path, action="append", required=True, help="repeat for several"
    )
    check.add_argument("--benchmark", default="miniature-seen-validation")
    check.add_argument("--metric", default="strict")
    check.add_argument("--bar", type=float, default=BAR, help="share from which tuning works")
    given = parser.parse_args(arguments)
    try:
        if given.command == "write":
            write(given.folder)
            return
        digests, fits = read_probes(given.probes)
        scores = read_runs(given.run, given.benchmark, given.metric)
        print("\n".join(findings(joined(digests, fits, scores), given.bar)))
    except ResponseTuningError as error:
        raise SystemExit(f"template_rule: {error}") from error


def write(folder: Path) -> None:
    """Write the templates of ``FORMATS`` and the recipe that tunes under each of them."""
    formats: dict[str, list[str]] = yaml.safe_load(FORMATS.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [(folder / f"{name}.jinja").resolve() for name in formats]
    for path, (before, between, answer) in zip(paths, formats.values(), strict=True):
        path.write_text(_jinja(before, between, answer), encoding="utf-8")
    objectives = {"rt": "response-tuning", "it": "instruction-tuning"}
    recipe = {
        "seeds": [0, 1, 2],
        "threads": 1,
        "data": {"source": "miniature", "max_examples": 1000},
        "finetune": SETTINGS,
        "generate": {"max_new_tokens": 48},
        "benchmarks": ["miniature-seen-validation", "miniature-unseen-validation"],
        "variants": {
            name: {"finetune": {"objective": objective}, "templates": [str(path) for path in paths]}
            for name, objective in objectives.items()
        },
    }
    target = folder / "run.yaml"
    target.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    listed = " ".join(f"--templates {path}" for path in paths)
    print(f"rtune probe miniature miniature {listed} --out {folder / 'probe'}")
    print(f"rtune run {target} --out {folder / 'run'}")


def read_probes(paths: Sequence[Path]) -> tuple[dict[str, str], list[TemplateFit]]:
    """Return the digest and the fit of every probed template, by its name."""
    digests: dict[str, str] = {}
    fits = []
    for path in [file for given in paths for file in _files(given)]:
        for name, digest, given, alone in _probed(path):
            if name in digests:
                raise DataError(f"{path}: template '{name}' was probed twice; give one probe of it")
            digests[name] = digest
            fits.append(TemplateFit(name, given, alone))
    return digests, fits


def read_runs(runs: Sequence[Path], benchmark: str, metric: str) -> Reached:
    """Return the scores of the tuned models of all runs."""
    scores: Reached = defaultdict(lambda: defaultdict(list))
    for run in runs:
        tuned = sorted(run.glob("*/seed-*/finetune/manifest.json"))
        if not tuned:
            raise DataError(f"{run}: no tuned model here; give a folder of 'rtune run'")
        for path in tuned:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            graded = path.parents[1] / "grade" / f"{benchmark}.jsonl"
            if not graded.exists():
                raise DataError(f"{graded}: no such file; give --benchmark as the run has it")
            values = [s.value for s in read_jsonl(graded, Score) if s.metric == metric]
            if not values:
                raise DataError(f"{graded}: no score by '{metric}'; give another --metric")
            scores[manifest["template"]][manifest["settings"]["objective"]].append(mean(values))
    return scores


def joined(
    digests: dict[str, str],
    fits: Sequence[TemplateFit],
    scores: Reached,
) -> list[Tuned]:
    """Join probes and runs; gaps are to the best probed template, tuned or not."""
    tuned = []
    for rated in rate_templates(fits):
        reached = scores.get(digests[rated.fit.template], {})
        it = reached.get("instruction-tuning")
        if reached.get("response-tuning"):
            rt = tuple(reached["response-tuning"])
            tuned.append(Tuned(rated, rt, mean(it) if it else None))
    if len(tuned) < 3:
        raise DataError(
            f"{len(tuned)} probed templates were tuned with; check that probes and runs are of the "
            "same templates"
        )
    return tuned


def findings(tuned: Sequence[Tuned], bar: float) -> Iterator[str]:
    """Yield the table, each kind's outcomes, and how well the rule classifies."""
    yield f"{'template':16} {'kind':13} verdict   gap  alone     RT  seeds     IT"
    for one in sorted(tuned, key=lambda one: -one.score):
        kind, it = one.rated.kind, "" if one.ceiling is None else f"{100 * one.ceiling:6.1f}"
        yield (
            f"{one.rated.fit.template:16} {kind:13} {KIND_VERDICTS[kind]:7} "
            f"{one.rated.given_gap:5.2f} {one.rated.alone_gap:6.2f} {100 * one.score:6.1f} "
            f"{len(one.scores):6} {it}"
        )
    yield "\nOUTCOMES"
    for kind in KIND_VERDICTS:
        reached = sorted(one.score for one in tuned if one.rated.kind == kind)
        yield f"{kind:13} {_outcome(reached)}"
    limits = GIVEN_LIMIT, ALONE_LIMIT
    yield f"\nRT reaches {100 * bar:.0f} % or more in {_share([o.score >= bar for o in tuned])}"
    yield f"right by the limits {limits}: {_share([_right(o, limits, bar) for o in tuned])}"
    yield f"fitted limits: {fitted(tuned, bar)}"
    apart = [(o, fitted([x for x in tuned if x is not o], bar)) for o in tuned]
    yield (
        "right by limits fitted to the other templates: "
        f"{_share([_right(o, fit, bar) for o, fit in apart])}"
    )
    errors = [abs(o.score - _median_of_kind(o, tuned)) for o in tuned]
    plain = [abs(o.score - median(x.score for x in tuned if x is not o)) for o in tuned]
    yield (
        f"mean absolute error of the kind's median of the others: {100 * mean(errors):.0f} points; "
        f"of the median of all others: {100 * mean(plain):.0f}"
    )
    wrong = [one for one in tuned if not _right(one, limits, bar)]
    yield "exceptions: " + (
        ", ".join(f"{o.rated.fit.template} ({o.rated.kind}, {100 * o.score:.0f} %)" for o in wrong)
        or "none"
    )


def fitted(tuned: Sequence[Tuned], bar: float) -> Limits:
    """Return the limits that classify most templates right: the middle one of those that tie."""
    candidates = [
        _between(sorted({gap(one) for one in tuned}))
        for gap in (lambda one: one.rated.given_gap, lambda one: one.rated.alone_gap)
    ]
    right = {pair: sum(_right(o, pair, bar) for o in tuned) for pair in product(*candidates)}
    best = [pair for pair, count in right.items() if count == max(right.values())]
    # One limit after the other: the middle of a set of pairs need not be one of them.
    given = _middle([first for first, _ in best])
    return given, _middle([second for first, second in best if first == given])


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _between(gaps: Sequence[float]) -> list[float]:
    return [round((low + high) / 2, 3) for low, high in pairwise(gaps)] + [gaps[-1]]


def _right(one: Tuned, limits: Limits, bar: float) -> bool:
    return one.passes(limits) == (one.score >= bar)


def _median_of_kind(one: Tuned, tuned: Sequence[Tuned]) -> float:
    others = [other for other in tuned if other is not one]
    of_kind = [other.score for other in others if other.rated.kind == one.rated.kind]
    return median(of_kind or [other.score for other in others])


def _outcome(reached: Sequence[float]) -> str:
    if not reached:
        return "no template"
    low, middle, high = (f"{value:.2f}" for value in (reached[0], median(reached), reached[-1]))
    return f"Outcome({len(reached)}, {low}, {middle}, {high})"


def _share(hits: Sequence[bool]) -> str:
    counted = Counter(hits)
    return f"{counted[True]} of {len(hits)} templates"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [path / "probe.json"] if (path / "probe.json").exists() else []
    files = files or sorted(path.glob("*/probe.json"))
    if not files:
        raise DataError(f"{path}: no probe.json here; run 'rtune probe' with --out {path}")
    return files


def _probed(path: Path) -> Iterator[tuple[str, str, float, float]]:
    """Yield (name, digest, given, alone) of the templates that a probe ranked, or of its own."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "best" in found:
        for one in found["templates"]["rated"]:
            yield (
                one["template"],
                one["digest"],
                one["log_p_per_token"],
                one["log_p_per_token_alone"],
            )
        return
    model, of_model = next(iter(found["models"].items()))
    means = {r["metric"]: r["value"] for r in found["results"] if r["model"] == model}
    yield (
        path.parent.name,
        of_model["template"],
        means["log_p_per_token"],
        means["log_p_per_token_alone"],
    )


def _jinja(before: str, between: str, answer: str) -> str:
    ask, reply = json.dumps(before), json.dumps(answer)
    return (
        "{%- for message in messages -%}\n"
        "{%- if message['role'] == 'user' -%}\n"
        f"{{{{ {ask} + message['content'] + {json.dumps(between)} }}}}\n"
        "{%- elif message['role'] == 'assistant' -%}\n"
        f"{{{{ {reply} + message['content'] + eos_token + '\\n' }}}}\n"
        "{%- endif -%}\n{%- endfor -%}\n"
        f"{{%- if add_generation_prompt -%}}\n{{{{ {reply} }}}}\n{{%- endif -%}}\n"
    )


if __name__ == "__main__":
    main()
