"""The page of the playground and its requests, for the browsers of this machine alone.

Answers stream as JSON lines. A page's script puts every text of a model into the page as text, so
that nothing in it can become an element. A request that changes or computes something must come
from the page itself.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from response_tuning import loopback, templates
from response_tuning.artifacts import Sampling
from response_tuning.errors import ResponseTuningError
from response_tuning.loopback import HEADERS, is_from_here, refusal
from response_tuning.pages import environment
from response_tuning.redaction import redacted
from response_tuning.serve.playground.code import as_code
from response_tuning.serve.playground.records import Ask, PaneForm
from response_tuning.serve.playground.session import MAX_PANES, Playground
from response_tuning.serve.playground.stream import answer_lines
from response_tuning.serve.playground.votes import Ballot, counted

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    Endpoint = Callable[["Request"], Awaitable["Response"]]

BODY_BYTES = 4 * 2**20
"""A conversation of a million tokens."""
FOLDER = Path(__file__).parent
ASSETS = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".js", ".css"))


def playground_app(playground: Playground) -> "Starlette":
    """Return the playground as an ASGI application."""
    from starlette.routing import Route

    pages = _Pages(playground)
    routes = [
        Route("/", pages.page),
        *(Route(f"/{name}", pages.asset) for name in ASSETS),
        Route("/state", pages.state),
        Route("/presets/{name}", pages.preset),
        Route("/answers.jsonl", pages.export),
        Route("/answers/{id}", pages.answer),
        Route("/answers/{id}/code", pages.code),
        Route("/answers/{id}/tokens", _from_here(pages.tokens), methods=["POST"]),
        Route("/ask", _from_here(pages.ask), methods=["POST"]),
        Route("/votes", _from_here(pages.vote), methods=["POST"]),
        Route("/panes", _from_here(pages.open), methods=["POST"]),
        Route("/panes/{name}", _from_here(pages.close), methods=["DELETE"]),
    ]
    return loopback.guarded([*map(_explained, routes)], BODY_BYTES)


class _Pages:
    """The response to each request."""

    def __init__(self, playground: Playground) -> None:
        self._playground = playground
        self._template = environment(FOLDER).get_template("page.html.jinja")

    async def page(self, request: "Request") -> "Response":
        """Return the page; its script asks for the rest."""
        from starlette.responses import HTMLResponse

        scripts = [name for name in ASSETS if name.endswith(".js")]
        return HTMLResponse(self._template.render(scripts=scripts), headers=HEADERS)

    async def asset(self, request: "Request") -> "Response":
        """Return a script or the style sheet."""
        return loopback.asset(FOLDER, Path(request.url.path).name)

    async def state(self, request: "Request") -> "Response":
        """Return the panes and what can be chosen."""
        playground = self._playground
        return _json(
            {
                "panes": [pane.about() for pane in playground.panes.values()],
                "max_panes": MAX_PANES,
                "templates": templates.names(),
                "presets": [*playground.presets],
                "sampling": Sampling(max_new_tokens=256).model_dump(mode="json"),
                "folder": str(playground.folder),
                "key_variable": playground.key_variable,
            }
        )

    async def ask(self, request: "Request") -> "Response":
        """Stream an answer as JSON lines: ``start``, ``text`` and ``end``, or ``error``."""
        from starlette.responses import StreamingResponse

        ask = Ask.model_validate_json(await request.body())
        self._playground.pane(ask.pane)
        lines = answer_lines(self._playground, ask)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=HEADERS)

    async def answer(self, request: "Request") -> "Response":
        """Return an answer that was kept."""
        if request.path_params["id"] not in self._playground.answers:
            return refusal(404, "There is no such answer.")
        return _json(self._playground.find(request.path_params["id"]).model_dump(mode="json"))

    async def export(self, request: "Request") -> "Response":
        """Return answers as JSON lines: those with the ``id`` of the address, or all."""
        from starlette.responses import Response

        ids = request.query_params.getlist("id") or [*self._playground.answers]
        lines = (self._playground.find(one).model_dump_json() + "\n" for one in ids)
        name = {"Content-Disposition": 'attachment; filename="playground.jsonl"'}
        return Response(
            "".join(lines), media_type="application/x-ndjson", headers={**HEADERS, **name}
        )

    async def code(self, request: "Request") -> "Response":
        """Return code that gives an answer again."""
        from starlette.responses import PlainTextResponse

        answer = self._playground.find(request.path_params["id"])
        about = self._playground.pane(answer.pane).about()
        return PlainTextResponse(as_code(answer, about), headers=HEADERS)

    async def tokens(self, request: "Request") -> "Response":
        """Return a reading of each token of an answer."""
        from starlette.concurrency import run_in_threadpool

        answer = self._playground.find(request.path_params["id"])
        pane = self._playground.pane(answer.pane)
        readings = await run_in_threadpool(pane.read, answer)
        tokens = [
            one._asdict() | {"alternatives": [other._asdict() for other in one.alternatives]}
            for one in readings
        ]
        return _json({"tokens": tokens})

    async def preset(self, request: "Request") -> "Response":
        """Return prompts of a benchmark."""
        from starlette.concurrency import run_in_threadpool

        name = request.path_params["name"]
        if name not in self._playground.presets:
            return refusal(404, f"There is no preset {name}.")
        prompts = await run_in_threadpool(self._playground.presets[name])
        return _json({"prompts": [[turn.model_dump() for turn in prompt] for prompt in prompts]})

    async def vote(self, request: "Request") -> "Response":
        """Keep a vote, and reveal which pane wrote which answer."""
        ballot = Ballot.model_validate_json(await request.body())
        answers = [self._playground.find(one) for one in ballot.answers]
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._playground.vote(counted(ballot, answers, at))
        return _json({"panes": [answer.pane for answer in answers]})

    async def open(self, request: "Request") -> "Response":
        """Open a further pane."""
        from starlette.concurrency import run_in_threadpool

        form = PaneForm.model_validate_json(await request.body())
        pane = await run_in_threadpool(self._playground.open, form)
        return _json(pane.about())

    async def close(self, request: "Request") -> "Response":
        """Take a pane off the page."""
        self._playground.close(request.path_params["name"])
        return _json({})


def _from_here(endpoint: "Endpoint") -> "Endpoint":
    """Refuse what another site's page sent."""

    async def guarded(request: "Request") -> "Response":
        if not is_from_here(request):
            return refusal(403, "Requests are taken from the playground's own page alone.")
        return await endpoint(request)

    return guarded


def _explained(route: Any) -> Any:  # noqa: ANN401 - Starlette's
    """Answer an error that the user can fix with one line."""
    from starlette.routing import Route

    endpoint: Endpoint = route.endpoint

    async def explained(request: "Request") -> "Response":
        try:
            return await endpoint(request)
        except ResponseTuningError as error:
            return refusal(400, redacted(str(error)))
        except ValidationError as error:
            first = error.errors()[0]
            return refusal(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    methods = [*(route.methods - {"HEAD"})]
    return Route(route.path, explained, methods=methods)


def _json(content: dict[str, Any]) -> "Response":
    from starlette.responses import JSONResponse

    return JSONResponse(content, headers=HEADERS)
