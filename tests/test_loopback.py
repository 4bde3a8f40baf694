import socket
from pathlib import Path
from typing import Any

import pytest

from response_tuning.errors import ConfigError
from response_tuning.loopback import HEADERS, HOST, asset, guarded, is_from_here, refusal, serve
from response_tuning.pages import stylesheet


def request(origin: str | None, host: str = "127.0.0.1:5") -> Any:
    from starlette.requests import Request

    headers = [(b"host", host.encode())]
    headers += [(b"origin", origin.encode())] if origin is not None else []
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize(
    ("origin", "here"),
    [
        ("http://127.0.0.1:5", True), ("http://127.0.0.1", False), ("http://127.0.0.1:6", False),
        ("https://127.0.0.1:5", False), ("http://example.org", False), ("null", False),
        ("", False), (None, False),
    ],
)  # fmt: skip
def test_a_request_is_from_here_if_its_origin_is_the_host(origin: str | None, here: bool) -> None:
    assert is_from_here(request(origin)) is here


def test_a_style_sheet_follows_that_of_all_pages(tmp_path: Path) -> None:
    (tmp_path / "own.css").write_text("p { margin: 0; }", encoding="utf-8")
    (tmp_path / "own.js").write_text("go();", encoding="utf-8")
    style, script = asset(tmp_path, "own.css"), asset(tmp_path, "own.js")
    assert bytes(style.body).decode() == stylesheet() + "p { margin: 0; }"
    assert style.headers["content-type"] == "text/css; charset=utf-8"
    assert bytes(script.body) == b"go();"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"


def test_every_response_has_a_policy_under_which_nothing_foreign_loads() -> None:
    reply = refusal(404, "There is no such page.")
    assert (reply.status_code, bytes(reply.body)) == (404, b"There is no such page.\n")
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    assert policy.pop("default-src") == policy.pop("base-uri") == "'none'"
    assert policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert reply.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port}: .* choose another, or 0"):
            serve(guarded([], 10), port)
