"""The page that raters work on: plain forms, served to the browsers of this machine alone.

It works without scripts; one script adds keyboard shortcuts. Answers of models are escaped text.
Neither the page nor its address reveals which variant wrote an answer.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from response_tuning import loopback
from response_tuning.grade.judges.levels import LEVELS
from response_tuning.grade.raters.study import Session, TaskRating
from response_tuning.loopback import HEADERS, is_from_here, refusal
from response_tuning.pages import environment

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


BODY_BYTES = 64 * 1024
ASSETS = ("rating.css", "rating.js")


def serve_rating(
    session: Session, port: int = 0, ready: Callable[[str], None] | None = None
) -> None:
    """Serve a rater's page on this machine until it is interrupted; see ``loopback.serve``.

    Raises:
        ConfigError: the port cannot be had.
    """
    loopback.serve(rating_app(session), port, ready)


def rating_app(session: Session) -> "Starlette":
    """Return the page of a rater as an ASGI application."""
    from starlette.routing import Route

    pages = _Pages(session)
    routes = [
        Route("/", pages.begin),
        Route("/rated", pages.rated),
        Route("/{number:int}", pages.show),
        Route("/{number:int}", pages.save, methods=["POST"]),
        *(Route(f"/{name}", pages.asset) for name in ASSETS),
    ]
    return loopback.guarded(routes, BODY_BYTES)


class _Pages:
    """The response to each request; tasks are numbered from 1, in the rater's order."""

    def __init__(self, session: Session) -> None:
        self._template = environment(Path(__file__).parent).get_template("page.html.jinja")
        self._session = session

    async def begin(self, request: "Request") -> "Response":
        """Redirect to the first unrated task."""
        return self._onwards(after=-1)

    async def rated(self, request: "Request") -> "Response":
        """Show that all tasks are rated, or redirect to one that is not."""
        if self._session.unrated() is not None:
            return self._onwards(after=-1)
        return self._page(number=None)

    async def show(self, request: "Request") -> "Response":
        """Show a task, with its earlier rating if there is one."""
        number = request.path_params["number"]
        if not 1 <= number <= len(self._session.tasks):
            return refusal(404, f"There is no task {number}.")
        return self._page(number)

    async def save(self, request: "Request") -> "Response":
        """Save a rating and redirect to the next unrated task."""
        if not is_from_here(request):
            return refusal(403, "Ratings are taken from this page alone.")
        number = request.path_params["number"]
        if not 1 <= number <= len(self._session.tasks):
            return refusal(404, f"There is no task {number}.")
        task = self._session.tasks[number - 1]
        form = parse_qs((await request.body()).decode(errors="replace"))
        fields = {name: values[-1] for name, values in form.items()}
        # A page that was opened in an earlier session may show another task under this number.
        if fields.get("task") != task.digest:
            return refusal(409, "This was another session's page; reload it and rate again.")
        try:
            verdict = TaskRating.model_validate(
                {
                    "levels": [fields[name] for name in ("level-0", "level-1") if name in fields],
                    "more_helpful": fields.get("more_helpful"),
                    "comment": fields.get("comment", "").replace("\r\n", "\n").strip(),
                }
            )
            self._session.rate(number - 1, verdict)
        except ValueError:
            return refusal(400, "Something is not rated yet; go back and choose.")
        return self._onwards(after=number - 1)

    async def asset(self, request: "Request") -> "Response":
        """Return the style sheet or the script."""
        return loopback.asset(Path(__file__).parent, Path(request.url.path).name)

    def _onwards(self, after: int) -> "Response":
        from starlette.responses import RedirectResponse

        position = self._session.unrated(after)
        address = "/rated" if position is None else f"/{position + 1}"
        return RedirectResponse(address, status_code=303, headers=HEADERS)

    def _page(self, number: int | None) -> "Response":
        from starlette.responses import HTMLResponse

        session = self._session
        page = self._template.render(
            number=number,
            task=session.tasks[number - 1] if number else None,
            rating=session.verdicts.get(number - 1) if number else None,
            total=len(session.tasks),
            rated=len(session.verdicts),
            levels=LEVELS,
        )
        return HTMLResponse(page, headers=HEADERS)
