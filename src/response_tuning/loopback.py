"""How a page is served: to the browsers of this machine alone, and to no other site in them.

Everything a page loads comes from its own server. Each response carries a content policy under
which nothing else can load and no script of a text can run.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError
from response_tuning.pages import stylesheet

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import Lifespan


HOST = "127.0.0.1"
NAMES = [HOST, "localhost"]
"""Names under which this machine's own programs reach it."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # under no-referrer, browsers send "Origin: null"
    "X-Content-Type-Options": "nosniff",
}
GRACE_S = 5
"""Seconds that a response may still take after an interrupt."""
_KINDS = {".css": "text/css", ".js": "text/javascript"}


def serve(
    app: "Starlette",
    port: int = 0,
    ready: Callable[[str], None] | None = None,
    ending: Callable[[], None] = lambda: None,
    host: str = HOST,
) -> None:
    """Serve ``app`` on this machine until it is interrupted.

    Args:
        app: What ``guarded`` returned.
        port: 0 is any free port.
        ready: Gets the address to open in a browser.
        ending: Called at the interrupt, to end responses that would go on.
        host: The address to listen on; a page is for this machine alone.

    Raises:
        ConfigError: the address or the port cannot be had.
    """
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            ending()
            super().handle_exit(sig, frame)

    # Opened here and not by uvicorn, whose errors end the process without a message of ours.
    try:
        listener = socket.create_server((host, port), family=_family(host))
    except OSError as error:
        where = f"port {port}" if host == HOST else f"{host} port {port}"
        raise ConfigError(
            f"{where}: {error.strerror}; choose another, or 0 for any that is free"
        ) from error
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_graceful_shutdown=GRACE_S
    )
    with listener, suppress(KeyboardInterrupt):
        if ready:
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{listener.getsockname()[1]}/")
        Server(config).run(sockets=[listener])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def guarded(
    routes: "Sequence[BaseRoute]",
    body_bytes: int,
    hosts: Sequence[str] = NAMES,
    lifespan: "Lifespan[Starlette] | None" = None,
) -> "Starlette":
    """Return an application that answers to ``hosts``; by default, this machine's own names."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return Starlette(
        routes=routes,
        # Another site whose name has been made to point here is no trusted host.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])],
        max_body_size=body_bytes,
        lifespan=lifespan,
    )


def is_from_here(request: "Request") -> bool:
    """Whether a request that changes something comes from a page of this server.

    Browsers name the origin of every form and of every script's request.
    """
    return request.headers.get("origin") == f"http://{request.headers['host']}"


def asset(folder: Path, name: str) -> "Response":
    """Return a script, or a style sheet behind that of all pages; ``name`` is one that we ship."""
    from starlette.responses import Response

    text = (folder / name).read_text(encoding="utf-8")
    kind = _KINDS[Path(name).suffix]
    text = stylesheet() + text if kind == "text/css" else text
    return Response(text, media_type=kind, headers=HEADERS)


def refusal(status: int, sentence: str, headers: Mapping[str, str] = HEADERS) -> "Response":
    """Return one sentence as plain text."""
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(f"{sentence}\n", status_code=status, headers=dict(headers))
