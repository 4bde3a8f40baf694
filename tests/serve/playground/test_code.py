import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Message, Sampling
from response_tuning.serve.playground.code import as_code
from response_tuning.serve.playground.records import Answer

Serve = Callable[..., Any]
AWKWARD = 'Say """hi""" \\ and {braces} \'quote\' \n ☃ \u202e'


def printed(code: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "copied.py", "exec"), {})
    return out.getvalue()


def test_the_code_gives_the_answer_again(serve: Serve, llama: Path) -> None:
    site = serve(("one", llama))
    how = {"sampling": {"max_new_tokens": 20, "temperature": 0.7, "seed": 3, "stop": ["zz"]}}
    for asked in ({}, how, {"template": "roles"} | how):
        answer = site.answer("one", "Hi.", "Yes?", AWKWARD, **asked)
        code = site.request("GET", f"/answers/{answer['id']}/code").body
        assert printed(code) == answer["response"] + "\n"


def test_the_code_of_an_adapter_that_is_off_names_its_base(serve: Serve, adapter: Path) -> None:
    site = serve(("one", adapter))
    texts = set()
    for state in ("on", "off"):
        answer = site.answer("one", "Hi.", adapter=state)
        code = site.request("GET", f"/answers/{answer['id']}/code").body
        assert printed(code) == answer["response"] + "\n"
        texts.add(answer["response"])
    assert len(texts) == 2


def test_the_code_for_a_server_asks_it_the_same_and_holds_no_key(server: Any) -> None:
    server.says = lambda prompt: f"You said {prompt}"
    answer = Answer(
        id="x", pane="one", model="m@u", template="server", template_name="server", adapter="none",
        prompt=(Message(role="user", content=AWKWARD),),
        sampling=Sampling(max_new_tokens=9, stop=("\n",)), response="", finish_reason="stop",
        seconds=1.0, at="now",
    )  # fmt: skip
    about = {
        "kind": "server",
        "source": server.url,
        "served_model": "m",
        "key_variable": "SOME_KEY",
    }
    code = as_code(answer, about)
    assert "os.environ.get('SOME_KEY'" in code
    assert json.dumps(AWKWARD)[1:5] in code
    assert printed(code) == f"You said {AWKWARD}\n"
