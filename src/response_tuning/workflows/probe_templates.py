"""``rtune probe --templates``: which chat template to tune a base with, before any tuning."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning import templates
from response_tuning.artifacts import Score, package_versions, write_json, write_jsonl
from response_tuning.configs import DataConfig
from response_tuning.errors import ConfigError, DataError, TemplateError
from response_tuning.pairing import draws
from response_tuning.probe.template_fit import limited, recommend
from response_tuning.probe.templates_page import TemplateRow, TemplatesReport, write_templates_page
from response_tuning.probe.templates_page import lines as table_lines
from response_tuning.terminal import quiet_libraries
from response_tuning.workflows.probe import (
    Pairs,
    ProbeConfig,
    estimates,
    intervals,
    left_out_sentences,
    print_lines,
    rank_responses,
    ranking_verdict,
    read_pairs,
    setup,
)
from response_tuning.workflows.template_fit import (
    MeasuredTemplates,
    measured,
    not_measured,
    records,
    under_template,
)

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.models.local import LocalModel

ALL = "all"
ITEMS = 200
"""Instructions that every template is measured on."""


class TemplateScore(Score):
    """One number about one instruction, under one template."""

    template: str


class Measurements(NamedTuple):
    """What was measured under each template, by its name."""

    identity: str
    """Of the model."""
    scores: dict[str, list[Score]]
    digests: dict[str, str]
    left_out: dict[str, dict[str, int]]
    unusable: dict[str, str]


def check_templates(names: Sequence[str]) -> None:
    """Refuse templates that cannot be ranked, before anything is read.

    Raises:
        ConfigError: there is no such template, or there is only one.
        TemplateError: a template's file cannot be used.
    """
    for name in names:
        if name != ALL:
            templates.check(name)
    if ALL not in names and len(set(names)) < 2:
        raise ConfigError(
            f"--templates {names[0]}: a ranking needs two templates or more; add another "
            f"--templates, or probe this one with --template {names[0]}"
        )


def run_probe_templates(
    model: "EngineConfig",
    names: Sequence[str],
    data: DataConfig,
    config: ProbeConfig,
    out: Path,
    console: "Console",
) -> None:
    """Rank the templates that a base could be tuned with, on the same items and draws.

    Leaves ``probe.html``, ``probe.json`` and ``probe.jsonl``, one number a line, in ``out``.

    Args:
        model: The base; its template is ignored.
        names: Templates by name or file; ``all`` stands for every one that a model can be tuned
            with, and for the tokenizer's own if it has one.
        data: Instructions with responses.
        config: How many instructions, and how many other responses for each.
        out: The folder; it may exist.
        console: Where the table is printed.

    Raises:
        ConfigError: see ``check_templates``.
        DataError: the data have fewer than two responses with an instruction, or no template can
            score them.
        ModelError: the model cannot be loaded.
    """
    check_templates(names)
    quiet_libraries()
    pairs = read_pairs(data, config)
    found = _measure(model, _expanded(names, model), pairs, config, console)
    rated = measured(found.scores, found.unusable)
    if not rated.rated:
        reasons = [f"{name}: {reason}" for name, reason in rated.unusable.items()]
        why = "; ".join(reasons) or "no response can be scored under all of them"
        raise DataError(f"{model.model}: no template can be measured: {why}")
    shared = set(rated.items)
    # The best first: differences are from it.
    scores = {
        one.fit.template: [s for s in found.scores[one.fit.template] if s.item_id in shared]
        for one in rated.rated
    }
    tables = estimates(scores, "response-ranking")
    report = _report(model, pairs, config, found, rated, tables)
    write_jsonl(out / "probe.jsonl", _scored(scores))
    write_json(out / "probe.json", _record(pairs, config, found, rated, report) | tables)
    write_templates_page(report, out / "probe.html")
    print_lines(
        console,
        [*table_lines(report), report.sentence, *report.notes, f"wrote {out / 'probe.html'}"],
    )


def _expanded(names: Sequence[str], model: "EngineConfig") -> list[str]:
    """Return the names, each once, with ``all`` replaced by what it stands for."""
    from response_tuning.models.inference import has_native_template

    listed: dict[str, None] = {}  # as a set that keeps the order
    for name in names:
        every = templates.for_tuning() if name == ALL else [name]
        listed |= dict.fromkeys(every)
        if name == ALL and has_native_template(str(model.model), model.revision):
            listed[templates.NATIVE] = None
    return [*listed]


def _measure(
    model: "EngineConfig",
    names: Sequence[str],
    pairs: Pairs,
    config: ProbeConfig,
    console: "Console",
) -> Measurements:
    drawn = draws(pairs.responses, config.draws, config.seed)
    local, unusable = _load(model, names)
    found = Measurements(local.identity if local else "", {}, {}, {}, unusable)
    for name in names:
        if local is None or name in unusable:
            continue
        under = under_template(local, model, name)
        if isinstance(under, str):
            unusable[name] = under
            continue
        try:
            ranking = rank_responses(under, model, pairs, drawn, console, f"template {name}")
        except DataError as error:  # it can score no response
            unusable[name] = str(error)
            continue
        found.scores[name], found.left_out[name] = ranking.scores, dict(ranking.left_out)
        found.digests[name] = under.chat.digest
    return found


def _load(
    model: "EngineConfig", names: Sequence[str]
) -> "tuple[LocalModel | None, dict[str, str]]":
    """Load the model under the first template that its tokenizer takes.

    Returns:
        The model, or None if there is no such template; and why others cannot be used.
    """
    from response_tuning.models.inference import load

    unusable: dict[str, str] = {}
    for name in names:
        try:
            return load(str(model.model), name, model.revision, model.device), unusable
        except TemplateError as error:
            unusable[name] = str(error)
    return None, unusable


def _report(
    model: "EngineConfig",
    pairs: Pairs,
    config: ProbeConfig,
    found: Measurements,
    rated: MeasuredTemplates,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> TemplatesReport:
    rows = []
    for one in rated.rated:
        metrics = intervals(tables, one.fit.template)
        rows.append(TemplateRow(one, limited(ranking_verdict(metrics), one.kind), metrics))
    lost = len(pairs.prompts) - len(rated.items)
    return TemplatesReport(
        model=str(model.model),
        sentence=recommend(rated.rated, rows[0].verdict),
        rows=rows,
        notes=[
            setup(pairs, config),
            *([f"{lost:,} items that some template cannot score are left out."] if lost else []),
            *left_out_sentences(found.left_out),
            *not_measured(rated.unusable),
        ],
    )


def _record(
    pairs: Pairs,
    config: ProbeConfig,
    found: Measurements,
    rated: MeasuredTemplates,
    report: TemplatesReport,
) -> dict[str, Any]:
    verdicts = {row.rated.fit.template: row.verdict for row in report.rows}
    record = records(rated)
    for line in record["rated"]:
        line |= {
            "verdict": verdicts[line["template"]],
            "digest": found.digests[line["template"]],
        }
    return {
        "best": rated.rated[0].fit.template,
        "says": report.sentence,
        "model": found.identity,
        "templates": record,
        "left_out": found.left_out,
        "data": pairs.source | {"without_instruction": pairs.without_instruction},
        "settings": config.model_dump(),
        "packages": package_versions(),
    }


def _scored(scores: Mapping[str, Sequence[Score]]) -> Iterator[TemplateScore]:
    for template, lines in scores.items():
        for score in lines:
            yield TemplateScore(template=template, **score.model_dump())
