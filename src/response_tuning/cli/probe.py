"""The commands of probes: what a base knows, and what tuning changed."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.grading import grade_settings
from response_tuning.cli.options import DeviceOption, ImportOption, LocalCopyOption
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
MINIATURE = "miniature"


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a base model.")],
    data: Annotated[
        str | None,
        typer.Argument(
            help="Instructions with responses: a source, as in 'rtune data'; default: the "
            "miniature's, with --predict miniature-unseen."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write probe.html to this folder; default: runs/probe-<model>."),
    ] = None,
    predict: Annotated[
        str | None,
        typer.Option(
            metavar="BENCHMARK",
            help="Predict the scores of a tuned model on this benchmark, such as miniature-unseen.",
        ),
    ] = None,
    of_run: Annotated[
        Path | None,
        typer.Option(
            "--for", metavar="RUN", help="Leave the prediction in this run, for its report."
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Compare with this model, such as a tuned one; repeat for several."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Chat template of the base, as in tuning; default: tulu."),
    ] = None,
    templates: Annotated[
        list[str] | None,
        typer.Option(
            help="Rank these templates, by name or file, or 'all' that a model can be tuned with; "
            "repeat for several."
        ),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option(
            help="Draw this many instructions at random; default: 1000, or 200 with --templates."
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Compare each response with this many other responses.")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Seed both draws with this.")] = 0,
    path: LocalCopyOption = None,
    device: DeviceOption = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="grade.KEY=VALUE",
            help="Where the benchmark of --predict is; example: grade.paths.prompts=FILE.",
        ),
    ] = None,
    modules: ImportOption = None,
) -> None:
    """Measure how well a base matches responses to instructions."""
    from response_tuning.configs import DataConfig, EngineConfig
    from response_tuning.errors import ConfigError, unused
    from response_tuning.folders import locked
    from response_tuning.validation import build
    from response_tuning.workflows.predict import check_predictable, run_predict
    from response_tuning.workflows.predictors import Questions
    from response_tuning.workflows.probe import ProbeConfig, run_probe
    from response_tuning.workflows.probe_templates import (
        ITEMS,
        check_templates,
        run_probe_templates,
    )

    if templates:
        unused(
            "--templates names the templates of one base",
            template=template,
            beside=beside,
            predict=predict,
        )
        check_templates(templates)
    if data is None and not templates:
        data, predict = MINIATURE, predict or f"{MINIATURE}-unseen"
    if data is None:
        raise ConfigError("rtune probe: --templates needs DATA: instructions with responses")
    if of_run is not None and predict is None:
        raise ConfigError("rtune probe: --for needs a prediction: add --predict BENCHMARK")
    chosen = [None] if templates else [template or "tulu", *(None for _ in beside or [])]
    engines = [
        build(EngineConfig, {"model": name, "template": chat, "device": device}, "rtune probe")
        for name, chat in zip([model, *(beside or [])], chosen, strict=True)
    ]
    drawn = {"draws": draws, "seed": seed}
    if items is not None or templates:
        drawn["items"] = ITEMS if items is None else items
    source = build(DataConfig, {"source": data, "path": path}, "rtune probe")
    config = build(ProbeConfig, drawn, "rtune probe")
    folder = out or Path("runs") / f"probe-{Path(model).name or 'model'}"
    if settings and predict is None:
        raise ConfigError("rtune probe: --set needs a prediction: add --predict BENCHMARK")
    questions = Questions(predict, grade_settings(settings)) if predict else None
    if questions:
        check_predictable(questions)
    with locked(folder, source, *engines):
        if templates:
            run_probe_templates(engines[0], templates, source, config, folder, console())
        else:
            run_probe(engines, source, config, folder, console())
        if questions:
            run_predict(engines[0], source, questions, folder, console(), of_run)


@app.command("token-shift")
def token_shift(
    tuned: Annotated[str, typer.Argument(help="Folder or hub id of the tuned model.")],
    base: Annotated[str, typer.Argument(help="Folder or hub id of its base model.")],
    replies: Annotated[
        str, typer.Argument(help="Completions of 'rtune generate', or a source with --data.")
    ],
    out: Annotated[
        Path, typer.Option(help="Write token-shift.json and token-shift.jsonl to this folder.")
    ],
    data: Annotated[
        bool, typer.Option("--data", help="Read REPLIES as a source of instruction data.")
    ] = False,
    device: DeviceOption = "auto",
    modules: ImportOption = None,
) -> None:
    """Measure, token by token, how much tuning changed a base."""
    from response_tuning.configs import DataConfig, EngineConfig
    from response_tuning.folders import locked
    from response_tuning.validation import build
    from response_tuning.workflows.token_shift import run_token_shift

    of_tuned, of_base = (
        build(EngineConfig, {"model": name, "device": device}, "rtune token-shift")
        for name in (tuned, base)
    )
    read = build(DataConfig, {"source": replies}, "rtune token-shift") if data else Path(replies)
    with locked(out, read, of_tuned, of_base):
        run_token_shift(of_tuned, of_base, read, out, console())


@app.command("answer-ranking")
def answer_ranking(
    completions: Annotated[
        list[Path],
        typer.Argument(help="Completions of one benchmark, a file for each model."),
    ],
    scorer: Annotated[str, typer.Option(help="Score with this model: a folder or hub id.")],
    out: Annotated[
        Path, typer.Option(help="Write answer-ranking.json and answer-ranking.jsonl here.")
    ],
    template: Annotated[
        str | None,
        typer.Option(help="Chat template of the scorer; default: its own. A base needs one."),
    ] = None,
    others: Annotated[
        int, typer.Option(help="Score each answer under this many other prompts.")
    ] = 16,
    words: Annotated[int, typer.Option(help="Score this many words of an answer.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the draw of other prompts.")] = 0,
    device: DeviceOption = "auto",
    modules: ImportOption = None,
) -> None:
    """Measure, without a judge, how well answers fit their prompts."""
    from response_tuning.configs import EngineConfig
    from response_tuning.folders import locked
    from response_tuning.validation import build
    from response_tuning.workflows.answer_ranking import AnswerRankingConfig, run_answer_ranking

    engine = build(
        EngineConfig,
        {"model": scorer, "template": template, "device": device},
        "rtune answer-ranking",
    )
    settings = build(
        AnswerRankingConfig,
        {"others": others, "words": words, "seed": seed},
        "rtune answer-ranking",
    )
    with locked(out, *completions, engine):
        run_answer_ranking(completions, engine, settings, out, console())
