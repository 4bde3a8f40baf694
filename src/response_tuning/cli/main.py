"""The command line: flags become settings, and ``workflows/`` does the rest."""

import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from response_tuning.cli import (
    data,
    errors,
    experiments,
    export,
    finetune,
    generate,
    judges,
    names,
    probe,
    serve,
    settings,
)
from response_tuning.cli.interrupts import ending_well
from response_tuning.cli.options import ImportOption
from response_tuning.errors import ResponseTuningError
from response_tuning.redaction import redacted
from response_tuning.terminal import log_to_stderr, noted_command, prepare_streams, printable

# Plain help: the decorated kind alone would add a fifth of a second to every start.
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # commands inherit them
)


def _version(wanted: bool) -> None:
    if wanted:
        import response_tuning

        print(f"rtune {response_tuning.__version__}")
        raise typer.Exit


@app.callback()
def rtune(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    modules: ImportOption = None,
) -> None:
    """Response Tuning: a base language model becomes an assistant from responses alone."""


# In the order of the help; an app without a name adds its commands to these.
app.add_typer(finetune.app)
app.add_typer(generate.app)
app.add_typer(export.app)
app.add_typer(serve.app)
app.add_typer(names.app)
app.add_typer(settings.app)
app.add_typer(data.app, name="data")
app.add_typer(experiments.app)
app.add_typer(judges.app)
app.add_typer(probe.app)


@ending_well()
def main() -> None:
    """Run the command line; an error that the user can fix is one line and exit code 2."""
    try:
        prepare_streams()
        log_to_stderr()
        with noted_command(["rtune", *sys.argv[1:]]):
            code = app(standalone_mode=False, prog_name="rtune")
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:
        code, line = error.exit_code, errors.usage(error)
    except ResponseTuningError as error:
        code, line = 2, errors.ours(error, app, sys.argv[1:])
    except OSError as error:
        if error.errno is None:  # raised by a library, not by the system
            raise
        code, line = 2, errors.system(error)
    else:
        sys.exit(code)
    print(printable(redacted(line)), file=sys.stderr)
    sys.exit(code)
