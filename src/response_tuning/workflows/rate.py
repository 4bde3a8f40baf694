"""``rtune rate``: people rate answers on a page, and their ratings become scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError
from response_tuning.folders import lock, locked

if TYPE_CHECKING:
    from rich.console import Console


def make_study(
    folder: Path, answers: Sequence[str], reference: str | None, seed: int, limit: int | None
) -> None:
    """Lay out a study of ``NAME=FILE`` answers, unless it exists already.

    Raises:
        ConfigError: a name or a file is missing, or ``folder`` holds another study.
        DataError: a file cannot be used.
    """
    from response_tuning.grade.raters.study import make_study

    files: dict[str, Path] = {}
    for text in answers:
        name, _, path = text.partition("=")
        if not (name and path):
            raise ConfigError(f"--answers {text}: expected NAME=FILE")
        if name in files:
            raise ConfigError(f"--answers {text}: '{name}' is given twice; give it another name")
        files[name] = Path(path)
    with locked(folder, *files.values()):
        make_study(folder, files, reference, seed, limit)


def rate(study: Path, rater: str, port: int, console: "Console") -> None:
    """Serve a rater's page of a study until it is interrupted.

    Raises:
        DataError: there is no study in ``study``.
        ConfigError: the port is not free, or the rater's name is no file name.
    """
    from response_tuning.grade.raters.page import serve_rating
    from response_tuning.grade.raters.study import Session, journal_of

    journal = journal_of(study, rater)
    session = Session(study, rater)
    done = f"{len(session.verdicts)} of {len(session.tasks)} tasks are rated"
    journal.parent.mkdir(exist_ok=True)
    with lock(journal, journal):
        serve_rating(
            session,
            port,
            lambda address: console.print(f"{address} ({done}; Ctrl-C ends)", highlight=False),
        )


def export_rated(study: Path, out: Path, console: "Console") -> None:
    """Write the scores of a study in the layout of a run, and print how far raters agree.

    Raises:
        DataError: there is no study in ``study``, or nothing has been rated.
    """
    from response_tuning.grade.raters.scores import export_ratings

    with locked(out, study):
        summary = export_ratings(study, out)
    for rater, count in summary.rated.items():
        console.print(f"{rater}: {count} of {summary.tasks} tasks", highlight=False)
    for subject, agreement in (("levels", summary.levels), ("more helpful", summary.more_helpful)):
        if agreement is not None:
            figures = agreement.model_dump(exclude_none=True)
            line = ", ".join(f"{name} {round(value, 3)}" for name, value in figures.items())
            console.print(f"agreement on {subject}: {line}", highlight=False, soft_wrap=True)
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)
