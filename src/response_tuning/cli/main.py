"""The command line: flags become a recipe, and ``workflows/`` does the rest."""

import sys

import typer
from typer.exceptions import TyperException

from response_tuning.cli import data, errors, experiments, finetune, generate, judges, names, probe
from response_tuning.cli.interrupts import ending_well
from response_tuning.errors import ResponseTuningError
from response_tuning.redaction import redacted
from response_tuning.terminal import log_to_stderr, prepare_streams, printable

# Plain help: the decorated kind alone would cost a fifth of a second at every start.
app = typer.Typer(
    help="Response Tuning: a base language model becomes an assistant from responses alone.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


# In the order of the help; what has no name adds its commands to these.
app.add_typer(finetune.app)
app.add_typer(generate.app)
app.add_typer(names.app)
app.add_typer(data.app, name="data")
app.add_typer(experiments.app)
app.add_typer(judges.app)
app.add_typer(probe.app)


@ending_well()
def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 2."""
    prepare_streams()
    log_to_stderr()
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:
        code = error.exit_code
        said = errors.usage(error)
    except ResponseTuningError as error:
        code, said = 2, errors.ours(error, app, sys.argv[1:])
    except OSError as error:
        if error.errno is None:  # a library's own
            raise
        code, said = 2, errors.system(error)
    else:
        sys.exit(code)
    print(printable(redacted(said)), file=sys.stderr)
    sys.exit(code)
