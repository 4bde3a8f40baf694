import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.errors import ModelError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.models.inference import load
from response_tuning.models.local import Draft, LocalModel
from response_tuning.serve.chat import chat, run_chat
from response_tuning.templates import jinja
from response_tuning.terminal import printable

SaveModel = Callable[..., Path]
SHORT = Sampling(max_new_tokens=12)
CUT = "\n[it did not stop by itself; cut after 12 tokens: the limit]\n"


@pytest.fixture(scope="session")
def local(llama: Path) -> LocalModel:
    return load(str(llama))


def talk(local: LocalModel, lines: Sequence[str], sampling: Sampling = SHORT) -> list[str]:
    said: list[str] = []
    chat(local, lines, said.append, sampling)
    return said


def engine_says(llama: Path, *words: str, sampling: Sampling = SHORT) -> str:
    roles = ("user", "assistant")
    turns = [Message(role=roles[i % 2], content=text) for i, text in enumerate(words)]  # type: ignore[arg-type]
    engine = open_engine("hf", EngineConfig(model=str(llama)))
    (given,) = engine.complete([Request(item_id="a", prompt=tuple(turns))], sampling)
    assert given.response is not None
    return given.response


def test_a_reply_is_what_the_engine_says_and_comes_in_pieces(
    local: LocalModel, llama: Path
) -> None:
    said = talk(local, ["Tell me a story.\n"])
    assert "".join(said) == engine_says(llama, "Tell me a story.") + CUT
    assert len(said) > 5


def test_a_reply_sees_the_turns_before_it(local: LocalModel, llama: Path) -> None:
    first = engine_says(llama, "hello")
    second = engine_says(llama, "hello", first, "and then?")
    assert second != engine_says(llama, "and then?")
    assert "".join(talk(local, ["hello", "and then?"])) == f"{first}{CUT}{second}{CUT}"


def test_a_reply_ends_at_the_stop_strings_of_its_template(llama: Path, tmp_path: Path) -> None:
    whole = engine_says(llama, "hello")
    file = tmp_path / "stopping.jinja"
    tulu = jinja("tulu")
    file.write_text(f"{{%- set stop_strings = [{json.dumps(whole[3:6])}] -%}}{tulu}")
    stopping = load(str(llama), str(file))
    assert "".join(talk(stopping, ["hello"])) == whole[: whole.index(whole[3:6])] + "\n"


def test_clear_forgets_the_turns_before_it(local: LocalModel, llama: Path) -> None:
    first, second = engine_says(llama, "hello"), engine_says(llama, "and then?")
    said = "".join(talk(local, ["hello", "clear", "and then?"]))
    assert said == f"{first}{CUT}[the conversation is forgotten]\n{second}{CUT}"


def test_exit_leaves_and_empty_lines_are_passed_over(local: LocalModel) -> None:
    assert talk(local, ["", "  \n", " exit \n", "hello"]) == []


def test_an_interrupt_stops_a_reply_and_the_conversation_goes_on(
    local: LocalModel, llama: Path
) -> None:
    said: list[str] = []

    def write(text: str) -> None:
        said.append(text)
        if len(said) == 3:
            raise KeyboardInterrupt

    chat(local, ["Tell me a story.", "hello"], write, SHORT, only_the_reply=True)
    notice = said.index("\n[stopped; this question and its reply are forgotten]\n")
    assert engine_says(llama, "Tell me a story.").startswith("".join(said[:notice]))
    assert "".join(said[notice + 1 :]) == engine_says(llama, "hello") + CUT
    with pytest.raises(KeyboardInterrupt):  # piped lines: the command ends
        said.clear()
        chat(local, ["Tell me a story.", "hello"], write, SHORT)


def test_a_line_that_is_no_unicode_is_said_and_not_asked(local: LocalModel, llama: Path) -> None:
    said = talk(local, ["caf\udce9\n", "hello"])
    assert "".join(said) == (
        f"[that is not UTF-8, so the model cannot read it]\n{engine_says(llama, 'hello')}{CUT}"
    )


def test_the_end_of_the_input_leaves(local: LocalModel) -> None:
    assert talk(local, []) == []


def test_a_reply_that_stops_by_itself_has_no_notice(
    save_model: SaveModel, local: LocalModel, llama: Path
) -> None:
    said_first = local.chat.encode(engine_says(llama, "hello"))
    folder = save_model("llama", eos=[said_first[4]])
    said = "".join(talk(load(str(folder)), ["hello"]))
    assert said == engine_says(folder, "hello") + "\n"
    assert engine_says(llama, "hello").startswith(said[:-1])


def test_a_stop_string_is_never_shown_not_even_in_part(local: LocalModel, llama: Path) -> None:
    whole = engine_says(llama, "hello")
    stop = whole[4:9]
    said = talk(local, ["hello"], SHORT.model_copy(update={"stop": (stop,)}))
    assert "".join(said) == whole[: whole.index(stop)] + "\n"


def test_what_only_looked_like_a_stop_string_is_shown_in_the_end(
    local: LocalModel, llama: Path
) -> None:
    whole = engine_says(llama, "hello")
    stop = whole[-3:] + " never said"
    said = talk(local, ["hello"], SHORT.model_copy(update={"stop": (stop,)}))
    assert "".join(said) == whole + CUT


def test_a_reply_cut_by_the_context_says_so_and_then_nothing_fits_until_clear(
    save_model: SaveModel,
) -> None:
    small = load(str(save_model("gpt2", context=48, eos=[])))
    said = "".join(talk(small, ["hello", "again", "clear", "hello"], Sampling()))
    cut = "tokens: the context is full; type 'clear' to forget the conversation]\n"
    assert said.count(cut) == 2
    assert "no room for a reply in the model's context of 48; type 'clear' to forget" in said
    first, _, second = said.partition("[the conversation is forgotten]\n")
    assert first.startswith(second)


def test_a_message_that_does_not_fit_is_not_remembered(save_model: SaveModel) -> None:
    small = load(str(save_model("gpt2", context=64)))
    brief = Sampling(max_new_tokens=4)
    said = "".join(talk(small, ["x" * 200, "hello"], brief))
    assert said.endswith("".join(talk(small, ["hello"], brief)))


def test_a_character_of_several_tokens_is_shown_whole(byte_tokenizer: Any) -> None:
    import torch

    text = "né ☃"

    class Model:
        device = torch.device("cpu")

        def generate(self, *, input_ids: Any, streamer: Any, batch: Any, **_: Any) -> None:
            streamer.put(input_ids)
            for token in [*byte_tokenizer(text).input_ids, 0]:
                batch.append([token])

    from response_tuning.templates import Chat

    scripted = LocalModel("scripted", Model(), Chat(byte_tokenizer), (0,), None)
    said = talk(scripted, ["hello"])
    assert [piece for piece in said if piece] == ["n", "é", " ", "☃", "\n"]


def test_a_sentencepiece_reply_keeps_its_spaces(tiny_lm: Path) -> None:
    local = load(str(tiny_lm), "tulu")
    sampling = Sampling(max_new_tokens=60)
    draft = local.draft([Message(role="user", content="Once upon a time")], sampling)
    local.extend([draft], sampling)
    reply = local.text(draft.prompt, draft.generated)
    said = "".join(talk(local, ["Once upon a time"], sampling))
    assert said.startswith(reply)
    assert reply.count(" ") > 10


def test_run_chat_answers_its_lines_without_a_word_of_its_own(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_chat(str(llama), None, SHORT, ["hello\n", "exit\n"])
    assert capsys.readouterr().out == printable(engine_says(llama, "hello")) + CUT


def test_ctrl_c_while_typing_leaves_cleanly(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed() -> Iterator[str]:
        yield "hello"
        raise KeyboardInterrupt

    run_chat(str(llama), None, SHORT, typed(), explain=True)
    out = capsys.readouterr().out
    assert "'exit' to leave" in out
    assert out.endswith(printable(engine_says(llama, "hello")) + CUT + "\n")


def test_ctrl_c_during_a_reply_leaves_cleanly(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []

    def interrupted(*_: object) -> None:
        printed.append("[interrupted]")
        raise KeyboardInterrupt

    monkeypatch.setattr("response_tuning.terminal.write", printed.append)
    loaded = load(str(llama))
    monkeypatch.setattr(LocalModel, "extend", interrupted)
    monkeypatch.setattr("response_tuning.serve.chat.load", lambda *_: loaded)
    run_chat(str(llama), None, SHORT, ["hello\n", "how are you?\n"])
    assert printed == ["[interrupted]", "\n"], "the second line is not answered"


def test_run_chat_names_a_model_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match="/nowhere: no such folder"):
        run_chat("/nowhere", None, SHORT, [])


def test_what_a_model_says_cannot_steer_the_terminal(
    llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steering(local: LocalModel, drafts: Sequence[Draft], *_: object, **__: object) -> None:
        drafts[0].generated += local.chat.encode("\x1b]0;mine\x07 \x1b[2J hi")

    steered = load(str(llama))
    monkeypatch.setattr(LocalModel, "extend", steering)
    monkeypatch.setattr("response_tuning.serve.chat.load", lambda *_: steered)
    run_chat(str(llama), None, Sampling(max_new_tokens=1), ["hello"])
    assert capsys.readouterr().out.startswith(r"\x1b]0;mine\x07 \x1b[2J hi")
