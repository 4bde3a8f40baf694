import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.errors import DataError
from response_tuning.serve.playground.app import ASSETS, FOLDER
from response_tuning.serve.playground.records import Answer

Serve = Callable[..., Any]


@pytest.fixture
def site(serve: Serve, llama: Path, gpt2: Path) -> Any:
    return serve(("one", llama), ("two", gpt2))


def test_the_page_and_its_parts_come_from_here_alone(site: Any) -> None:
    page = site.request("GET", "/")
    assert page.status == 200
    assert sorted(re.findall(r'(?:src|href)="([^"]*)"', page.body)) == [
        "/answers.jsonl", "/main.js", "/playground.css",
    ]  # fmt: skip
    for name in ASSETS:
        reply = site.request("GET", f"/{name}")
        assert reply.status == 200
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert reply.headers["content-type"].startswith(kind)
        assert not re.search(r"https?://(?!127\.0\.0\.1)|url\(|@import|\beval\b", reply.body), name
    assert "--ink" in site.request("GET", "/playground.css").body


def test_scripts_put_no_text_into_the_page_as_markup() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc"
    for name in ASSETS:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not re.search(ways, text), name
        assert len(text.splitlines()) <= 400


def test_the_policy_allows_no_script_or_style_on_the_page_itself(site: Any) -> None:
    reply = site.request("GET", "/")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(
        r"<style|\son\w+=|style=|javascript:|<script(?! type=.module. src)", reply.body
    )
    for path in ("/", "/main.js", "/state", "/answers.jsonl"):
        headers = site.request("GET", path).headers
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "example.org:80", ""])
def test_a_name_that_was_made_to_point_here_is_not_served(site: Any, host: str) -> None:
    assert site.request("GET", "/state", Host=host).status == 400
    assert site.request("POST", "/ask", {}, Host=host, Origin=f"http://{host}").status == 400


CHANGES = [
    ("POST", "/ask"), ("POST", "/votes"), ("POST", "/panes"), ("DELETE", "/panes/one"),
    ("POST", "/answers/x/tokens"),
]  # fmt: skip


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://127.0.0.1:1", None])
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_what_another_site_asks_for_is_refused(
    site: Any, method: str, path: str, origin: str | None
) -> None:
    reply = site.request(method, path, {"pane": "one"}, Origin=origin)
    assert reply.status == 403
    assert "own page alone" in reply.body
    assert [*site.playground.panes] == ["one", "two"]


def test_an_answer_comes_in_pieces_and_is_kept(site: Any, llama: Path) -> None:
    events = site.ask("one", "Tell me a story.").events()
    assert [event["type"] for event in events[:2]] == ["start", "text"]
    assert len(events) > 6
    answer = events[-1]["answer"]
    assert "".join(event["text"] for event in events[1:-1]) == answer["response"]
    assert answer["id"] == events[0]["id"]
    assert answer["finish_reason"] == "length"
    assert (answer["tokens"], answer["detail"]) == (12, "")
    assert 0 < answer["first_text_s"] <= answer["seconds"]
    assert site.request("GET", f"/answers/{answer['id']}").json() == answer


def test_answers_are_there_after_a_restart(
    serve: Serve, llama: Path, gpt2: Path, tmp_path: Path
) -> None:
    first = serve(("one", llama))
    kept = [first.answer("one", word) for word in ("Hi.", "Ho.")]
    again = serve(("two", gpt2))
    for answer in kept:
        assert again.request("GET", f"/answers/{answer['id']}").json() == answer
    lines = again.request("GET", "/answers.jsonl").body.splitlines()
    assert [json.loads(line) for line in lines] == kept
    one = again.request("GET", f"/answers.jsonl?id={kept[1]['id']}")
    assert [json.loads(line) for line in one.body.splitlines()] == kept[1:]
    assert "attachment" in one.headers["content-disposition"]
    assert Answer.model_validate_json(lines[0]).response == kept[0]["response"]


def test_an_answer_that_is_no_longer_read_is_ended_and_kept(serve: Serve, llama: Path) -> None:
    site = serve(("one", llama))
    asked = {
        "pane": "one", "messages": [{"role": "user", "content": "Hi."}],
        "sampling": {"max_new_tokens": 240},
    }  # fmt: skip
    body = json.dumps(asked)
    head = (
        f"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nOrigin: {site.address}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    with contextlib.closing(socket.create_connection(("127.0.0.1", site.port))) as connection:
        connection.sendall((head + body).encode())
        while b'"text"' not in connection.recv(4096):
            pass
    for _ in range(600):
        if site.playground.answers:
            break
        time.sleep(0.05)
    (answer,) = site.playground.answers.values()
    assert answer.detail == "stopped by the user"
    assert 0 < answer.tokens < 240


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pane": "three"}, "pane 'three'"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature: "),
        ({"sampling": {"max_new_tokens": 0}}, "sampling.max_new_tokens: "),
        ({"sampling": {"seed": "x"}}, "sampling.seed: "),
        ({"sampling": {"top_k": 5}}, "sampling.top_k: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "tool", "content": ""}]}, "messages.0.role: "),
        ({"messages": [{"role": "assistant", "content": "Hi."}]}, "must be the user's"),
        ({"adapter": "maybe"}, "adapter: "),
    ],
)
def test_a_question_that_cannot_be_asked_is_one_line(
    site: Any, fields: dict[str, Any], message: str
) -> None:
    asked = {"pane": "one", "messages": [{"role": "user", "content": "Hi."}]} | fields
    reply = site.request("POST", "/ask", asked)
    assert reply.status == 400
    assert message in reply.body
    assert len(reply.body.splitlines()) == 1


@pytest.mark.parametrize("body", ["", "{", "[]", '"x"', "[" * 100_000, "\x00"])
def test_a_body_that_is_no_question_is_refused(site: Any, body: str) -> None:
    for path in ("/ask", "/votes", "/panes"):
        assert site.request("POST", path, body).status == 400


def test_a_huge_body_is_refused(site: Any) -> None:
    assert site.request("POST", "/ask", "x" * (5 * 2**20)).status == 413


def test_what_goes_wrong_during_an_answer_is_an_event(site: Any) -> None:
    (event,) = site.ask("one", "x" * 2000).events()
    assert event["type"] == "error"
    assert "leaves no room for a reply" in event["error"]
    assert site.playground.answers == {}


def test_tokens_of_an_answer_are_read_by_the_pane_that_wrote_it(site: Any) -> None:
    answer = site.answer("one", "Hi.")
    tokens = site.request("POST", f"/answers/{answer['id']}/tokens").json()["tokens"]
    assert [one["id"] for one in tokens] == answer["ids"]
    assert {one["rank"] for one in tokens} == {1}
    assert len(tokens[0]["alternatives"]) == 6
    site.request("DELETE", "/panes/one")
    gone = site.request("POST", f"/answers/{answer['id']}/tokens")
    assert (gone.status, "pane 'one'" in gone.body) == (400, True)


def test_panes_are_opened_and_closed(site: Any, llama: Path, gpt2: Path) -> None:
    opened = site.request("POST", "/panes", {"name": "three", "model": str(gpt2)})
    assert opened.json()["name"] == "three"
    assert [pane["name"] for pane in site.request("GET", "/state").json()["panes"]] == [
        "one", "two", "three",
    ]  # fmt: skip
    three, two = (site.answer(name, "Hi.") for name in ("three", "two"))
    assert (three["model"], three["response"]) == (two["model"], two["response"])
    twice = site.request("POST", "/panes", {"name": "one", "model": str(gpt2)})
    assert (twice.status, "the name is taken" in twice.body) == (400, True)
    missing = site.request("POST", "/panes", {"name": "four", "model": "/nowhere"})
    assert (missing.status, missing.body) == (400, "/nowhere: no such folder\n")
    assert site.request("DELETE", "/panes/two").status == 200
    assert site.request("DELETE", "/panes/two").status == 400
    assert [*site.playground.panes] == ["one", "three"]


def test_there_is_room_for_five_panes(site: Any, llama: Path) -> None:
    for name in ("three", "four", "five"):
        assert site.request("POST", "/panes", {"name": name, "model": str(llama)}).status == 200
    full = site.request("POST", "/panes", {"name": "six", "model": str(llama)})
    assert (full.status, full.body) == (400, "there are 5 panes already; close one\n")


def test_a_vote_is_kept_passed_on_and_reveals_the_panes(site: Any) -> None:
    ids = [site.answer(pane, "Hi.")["id"] for pane in ("two", "one")]
    reply = site.request("POST", "/votes", {"answers": ids, "choice": 1, "blind": True})
    assert reply.json() == {"panes": ["two", "one"]}
    (vote,) = site.votes
    assert [one.pane for one in vote.candidates] == ["two", "one"]
    assert vote.choice == 1
    site.request("POST", "/votes", {"answers": ids, "choice": "both bad", "blind": True})
    assert [vote.choice for vote in site.votes] == [1, "both bad"]
    other = site.answer("one", "Ho.")["id"]
    mixed = site.request("POST", "/votes", {"answers": [ids[0], other], "choice": 0, "blind": True})
    assert (mixed.status, len(site.votes)) == (400, 2)
    missing = {"answers": ["x", "y"], "choice": 0, "blind": True}
    assert site.request("POST", "/votes", missing).status == 400


def test_votes_are_there_after_a_restart(serve: Serve, llama: Path, gpt2: Path) -> None:
    site = serve(("one", llama), ("two", gpt2))
    ids = [site.answer(pane, "Hi.")["id"] for pane in ("one", "two")]
    ballot = {"answers": ids, "choice": "tie", "blind": True}
    site.request("POST", "/votes", ballot)
    again = serve(("one", llama), ("two", gpt2))
    again.request("POST", "/votes", ballot | {"choice": 0})
    assert [vote.choice for vote in again.votes] == ["tie", 0]


def test_presets_are_read_when_they_are_chosen(serve: Serve, llama: Path) -> None:
    read: list[str] = []

    def some() -> Sequence[tuple[Message, ...]]:
        read.append("some")
        return [(Message(role="user", content="Why?"),)]

    def broken() -> Sequence[tuple[Message, ...]]:
        raise DataError("questions.csv: no such file")

    site = serve(("one", llama), presets={"some": some, "broken": broken})
    assert site.request("GET", "/state").json()["presets"] == ["some", "broken"]
    assert read == []
    assert site.request("GET", "/presets/some").json() == {
        "prompts": [[{"role": "user", "content": "Why?"}]]
    }
    assert site.request("GET", "/presets/other").status == 404
    failed = site.request("GET", "/presets/broken")
    assert (failed.status, failed.body) == (400, "questions.csv: no such file\n")


def test_other_addresses_and_methods_are_refused(site: Any) -> None:
    for path in ("/nowhere", "/..%2frecords.py", "/records.py", "/page.html.jinja", "/panes/one"):
        assert site.request("GET", path).status in (404, 405)
    assert site.request("GET", "/ask").status == 405
    assert site.request("GET", "/answers/nowhere").status == 404
