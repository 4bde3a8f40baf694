import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from response_tuning import miniature
from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, ModelError, TemplateError
from response_tuning.generate import open_engine
from response_tuning.serve.server.backend import Launch
from response_tuning.templates import jinja
from response_tuning.workflows import serve_models
from response_tuning.workflows.serve_models import ServeSettings, run_serve
from tests.fixtures.gguf_files import write_gguf

Rtune = Callable[..., Any]
PYTHON = """#!/bin/sh
echo '{said}'
"""


def quiet() -> Console:
    return Console(quiet=True)


def planned(folder: Path, *models: str, **settings: Any) -> list[Launch]:
    """How each model would be served."""
    asked = ServeSettings(models, **settings)
    serve_models._check(asked)
    sources = serve_models._sources(asked)
    return [
        serve_models._launch(source, asked, folder, quiet(), len(sources)) for source in sources
    ]


@pytest.fixture(scope="module")
def mini_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature in float32, with a template whose turns end in strings."""
    header = {
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.chat_template": jinja("zero-shot"),
    }
    out = tmp_path_factory.mktemp("gguf") / "mini.gguf"
    return write_gguf(out, miniature.BASE, settings=header)


@pytest.fixture
def python_with_vllm(tmp_path: Path) -> Path:
    """What answers as the Python of an environment with vLLM and a GPU does."""
    path = tmp_path / "bin" / "python"
    path.parent.mkdir()
    path.write_text(PYTHON.format(said='["0.33.0", true]'))
    path.chmod(0o755)
    return path


@pytest.fixture
def no_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_models, "_has_llama", lambda: False)


def test_a_gguf_file_is_served_by_llama_cpp_with_its_templates_stops(
    mini_gguf: Path, tmp_path: Path
) -> None:
    (found,) = planned(tmp_path, f"small={mini_gguf}")
    assert (found.model.name, found.model.program) == ("small", "llama.cpp")
    assert found.model.identity.startswith("gguf@")
    assert found.model.stop == ("\n```", "```", "# Query:", "# Answer:")
    assert found.model.defaults == {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0}
    assert ", 256, '')" in found.command[-1]  # the context that the file states
    bare = write_gguf(tmp_path / "bare.gguf", miniature.BASE)
    (other,) = planned(tmp_path, str(bare), template="tulu", context=128)
    assert other.model.stop == () and f", 128, {jinja('tulu')!r})" in other.command[-1]


def test_a_folder_without_llama_cpp_is_served_by_transformers(
    tmp_path: Path, no_llama: None
) -> None:
    (found,) = planned(tmp_path, "miniature", template="tulu")
    assert (found.model.name, found.model.program) == ("miniature", "transformers")
    assert found.model.defaults == {"temperature": 0, "top_p": 1}
    assert (tmp_path / "miniature.jinja").read_text() == jinja("tulu")


def test_a_folder_that_cannot_be_converted_is_served_by_transformers_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_models, "_has_llama", lambda: True)
    asked = ServeSettings(["miniature"], template="tulu")
    (source,) = serve_models._sources(asked)
    found = serve_models._launch(source, asked, tmp_path, Console(soft_wrap=True), 1)
    assert found.model.program == "transformers"
    assert "miniature: not with llama.cpp: --template is not part" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--template is not part"):
        planned(tmp_path, "miniature", template="tulu", backend="llama.cpp")


def test_with_vllm_folders_go_there_and_gguf_files_to_llama_cpp(
    tmp_path: Path, python_with_vllm: Path, mini_gguf: Path
) -> None:
    base, file = planned(
        tmp_path, "base=miniature", str(mini_gguf), template="tulu", vllm=python_with_vllm
    )
    assert (base.model.program, file.model.program) == ("vllm", "llama.cpp")
    assert base.command[:3] == [str(python_with_vllm.parent / "vllm"), "serve", str(miniature.BASE)]
    flags = dict(zip(base.command[3::2], base.command[4::2], strict=True))
    assert flags["--served-model-name"] == "base" and flags["--host"] == "127.0.0.1"
    assert base.model.url == f"http://127.0.0.1:{flags['--port']}"
    assert flags["--gpu-memory-utilization"] == "0.450"  # two models share the GPU
    assert Path(flags["--chat-template"]).read_text().endswith(jinja("tulu"))
    assert base.model.defaults["stop_token_ids"] == [0]
    assert base.model.defaults["temperature"] == 0


def test_a_template_that_ends_in_strings_has_them_sent_to_vllm(
    tmp_path: Path, python_with_vllm: Path
) -> None:
    (found,) = planned(tmp_path, "miniature", template="zero-shot", vllm=python_with_vllm)
    assert found.model.stop == ("\n```", "```", "# Query:", "# Answer:")
    assert "stop_token_ids" not in found.model.defaults


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('["0.33.0", false]', "vLLM 0.33.0 is there, but its torch sees no GPU"),
        ("'; echo No module named vllm >&2; exit 1; '", r"no vLLM in this .*\(No module named vll"),
    ],
)
def test_a_python_that_cannot_run_vllm_is_refused(
    tmp_path: Path, python_with_vllm: Path, said: str, error: str
) -> None:
    python_with_vllm.write_text(PYTHON.format(said=said))
    with pytest.raises(ConfigError, match=error):
        planned(tmp_path, "miniature", template="tulu", vllm=python_with_vllm)
    with pytest.raises(ConfigError, match="--vllm missing: No such file"):
        planned(tmp_path, "miniature", template="tulu", vllm=Path("missing"))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0: other machines .* --api-key-file"),
        ({"host": "my-machine"}, "--host my-machine: not an IP address"),
        ({"backend": "ollama"}, "--backend ollama: choose one of auto, vllm, llama.cpp, transf"),
        ({"backend": "vllm"}, "give --vllm PYTHON"),
        ({"backend": "transformers", "vllm": Path("x")}, "--vllm has no effect"),
        ({"backend": "transformers", "context": 64}, "--context has no effect"),
        ({"models": []}, "needs a model"),
        ({"template": "tulo"}, "unknown template 'tulo': did you mean 'tulu'"),
        ({"models": ["a@http://127.0.0.1:1/v1"]}, "a model that a server has already"),
        ({"models": ["a=miniature", "a=miniature"]}, "'a': the name is taken"),
    ],
)
def test_what_cannot_be_served_is_refused_before_a_process_starts(
    settings: dict[str, Any], error: str
) -> None:
    given = {"models": ["miniature"], "template": "tulu"} | settings
    with pytest.raises(ConfigError, match=error):
        run_serve(ServeSettings(**given), quiet())


def test_a_model_without_a_template_or_that_is_missing_is_refused(
    tmp_path: Path, mini_gguf: Path
) -> None:
    with pytest.raises(TemplateError, match="--template tulu"):
        run_serve(ServeSettings(["miniature"]), quiet())
    bare = write_gguf(tmp_path / "bare.gguf", miniature.BASE)
    with pytest.raises(TemplateError, match=r"bare\.gguf: it has no chat template"):
        run_serve(ServeSettings([str(bare)]), quiet())
    with pytest.raises(ModelError, match="no such folder"):
        run_serve(ServeSettings(["./missing"]), quiet())
    with pytest.raises(ConfigError, match="has at most 256 tokens"):
        planned(tmp_path, str(mini_gguf), context=512)
    with pytest.raises(ConfigError, match="--template has no effect: every model has a chat"):
        planned(tmp_path, str(mini_gguf), template="tulu")


def test_errors_are_one_line_and_exit_code_2(rtune: Rtune, tmp_path: Path) -> None:
    key = tmp_path / "key.txt"
    key.write_text("secret")
    for words in (
        ("miniature", "--host", "0.0.0.0"),
        ("miniature", "--api-key-file", key),
        ("miniature", "--api-key-file", tmp_path / "none.txt"),
    ):
        refused = rtune("serve", *words, "--template", "tulu")
        assert refused.code == 2 and refused.err.count("\n") == 1, refused.err
        assert "secret" not in refused.err


@pytest.fixture
def running(mini_gguf: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``rtune serve`` with two names of a model, and its address."""
    pytest.importorskip("xllamacpp")
    key = tmp_path / "key.txt"
    key.write_text("a-key-of-16-characters\n")
    words = ["one=" + str(mini_gguf), "two=" + str(mini_gguf), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "response_tuning", "serve", *words, "--api-key-file", str(key)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(4)]
        assert printed[1:3] == ["loading one (llama.cpp) ...\n", "loading two (llama.cpp) ...\n"]
        assert printed[3].endswith("v1 (models: one, two; Ctrl-C ends)\n"), process.stderr
        yield process, printed[3].split()[0]
        process.kill()


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def test_real_clients_get_our_answers_from_llama_cpp_and_ctrl_c_ends_everything(
    running: tuple[subprocess.Popen[str], str],
) -> None:
    from openai import OpenAI

    process, url = running
    turns = [
        [Message(role="user", content="What is 2 plus 2?")],
        [Message(role="user", content="  Which colour\n is a ruby? ")],
        [
            Message(role="system", content="Answer in one sentence."),
            Message(role="user", content="Name an animal."),
            Message(role="assistant", content="A whale."),
            Message(role="user", content="Another 1"),
        ],
    ]
    config = EngineConfig(model="miniature", template="zero-shot", device="cpu")
    asked = [Request(item_id=str(n), prompt=tuple(each)) for n, each in enumerate(turns)]
    ours = {
        one.item_id: (one.response, one.finish_reason)
        for one in open_engine("hf", config).complete(asked, Sampling(max_new_tokens=32))
    }
    with OpenAI(base_url=url, api_key="a-key-of-16-characters", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["one", "two"]
        for model in ("one", "two"):
            for request in asked:
                messages: Any = [turn.model_dump() for turn in request.prompt]
                reply = client.chat.completions.create(
                    model=model, messages=messages, max_tokens=32
                )
                choice = reply.choices[0]
                assert reply.model == model
                assert (choice.message.content, choice.finish_reason) == ours[request.item_id]
                stream = client.chat.completions.create(
                    model=model, messages=messages, max_tokens=32, stream=True
                )
                pieces = [each.choices[0].delta.content or "" for each in stream if each.choices]
                # At the limit, llama.cpp's stream lacks what a stop string could begin with.
                text, got = choice.message.content or "", "".join(pieces)
                at_limit = choice.finish_reason == "length"
                assert got == text or (at_limit and got == text.rstrip())
    supervisors = children_of(process.pid)
    models = [child for each in supervisors for child in children_of(each)]
    assert len(supervisors) == len(models) == 2
    for pid in models:  # a process is no way around the key
        listed = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"a-key-of-16" not in listed
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in [*supervisors, *models])


def test_curl_needs_the_key(running: tuple[subprocess.Popen[str], str]) -> None:
    _, url = running
    body = json.dumps({"model": "one", "messages": [{"role": "user", "content": "Hi"}]})
    curl = ["curl", "-s", f"{url}/chat/completions", "-H", "Content-Type: application/json"]
    if subprocess.run(["sh", "-c", "command -v curl"], capture_output=True).returncode:
        pytest.skip("curl is not installed")
    bare = subprocess.run([*curl, "-d", body], capture_output=True, text=True)
    assert json.loads(bare.stdout)["error"]["code"] == "invalid_api_key"
    key = ["-H", "Authorization: Bearer a-key-of-16-characters"]
    done = subprocess.run([*curl, *key, "-d", body], capture_output=True, text=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"
    with urllib.request.urlopen(url.removesuffix("v1") + "health") as health:
        assert json.load(health) == {"models": {"one": "ok", "two": "ok"}}
