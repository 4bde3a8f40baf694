"""The command line of probes: what a base knows, and what tuning changed."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.options import Device, LocalCopy
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="Folder or hub id; an untouched base, usually.")],
    data: Annotated[str, typer.Argument(help="Instructions with responses: a source as of data.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for probe.html and its figures; by default runs/probe-<model>."),
    ] = None,
    beside: Annotated[
        list[str] | None, typer.Option(help="Another model, such as a tuned one, to compare.")
    ] = None,
    template: Annotated[
        str, typer.Option(help="Chat template of those that have none, as for tuning.")
    ] = "tulu",
    items: Annotated[int, typer.Option(help="Instructions, drawn at random.")] = 1000,
    draws: Annotated[int, typer.Option(help="Other responses to compare each one with.")] = 5,
    seed: Annotated[int, typer.Option(help="Of both draws.")] = 0,
    path: LocalCopy = None,
    device: Device = "auto",
) -> None:
    """Say, before any training, how well a base model knows which response is whose."""
    from response_tuning.configs import DataConfig, EngineConfig
    from response_tuning.folders import locked
    from response_tuning.validation import build
    from response_tuning.workflows.probe import ProbeConfig, run_probe

    engines = [
        build(EngineConfig, {"model": name, "template": chat, "device": device}, "rtune probe")
        for name, chat in [(model, template), *((other, None) for other in beside or [])]
    ]
    given = {"items": items, "draws": draws, "seed": seed}
    asked = build(DataConfig, {"source": data, "path": path}, "rtune probe")
    probed = build(ProbeConfig, given, "rtune probe")
    folder = out or Path("runs") / f"probe-{Path(model).name or 'model'}"
    with locked(folder, asked, *engines):
        run_probe(engines, asked, probed, folder, console())


@app.command("token-shift")
def token_shift(
    tuned: Annotated[str, typer.Argument(help="Folder or hub id of the tuned model.")],
    base: Annotated[str, typer.Argument(help="What it was tuned from.")],
    replies: Annotated[
        str, typer.Argument(help="Its completions (rtune generate), or instruction data.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for token-shift.json and .jsonl.")],
    data: Annotated[
        bool, typer.Option("--data", help="REPLIES are instruction data, not completions.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Measure, token by token, how much tuning changed a base model on replies."""
    from response_tuning.configs import DataConfig, EngineConfig
    from response_tuning.folders import locked
    from response_tuning.validation import build
    from response_tuning.workflows.token_shift import run_token_shift

    of_tuned, of_base = (
        build(EngineConfig, {"model": name, "device": device}, "rtune token-shift")
        for name in (tuned, base)
    )
    asked = build(DataConfig, {"source": replies}, "rtune token-shift") if data else Path(replies)
    with locked(out, asked, of_tuned, of_base):
        run_token_shift(of_tuned, of_base, asked, out, console())
