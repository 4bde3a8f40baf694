import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Message, Request, Sampling
from response_tuning.errors import ConfigError, ResponseTuningError
from response_tuning.generate import EngineConfig, open_engine
from response_tuning.models.location import identity
from response_tuning.serve.playground.local import LocalPane, Models
from response_tuning.serve.playground.records import STOPPED, Ask, Reply, Started

QUESTION = "Tell me a story."


class Listening:
    """A listener that keeps everything, and stops after some pieces of text."""

    def __init__(self, pieces: int | None = None) -> None:
        self.start: Started | None = None
        self.pieces: list[str] = []
        self._most = pieces

    def started(self, start: Started) -> None:
        assert self.start is None
        self.start = start

    def text(self, piece: str) -> None:
        assert self.start is not None
        self.pieces.append(piece)

    def is_stopped(self) -> bool:
        return self._most is not None and len(self.pieces) >= self._most


def question(*words: str, pane: str = "a", tokens: int = 24, **fields: Any) -> Ask:
    roles = ("user", "assistant")
    messages = tuple(
        Message(role=roles[i % 2], content=text)  # type: ignore[arg-type]
        for i, text in enumerate(words or (QUESTION,))
    )
    sampling = Sampling(max_new_tokens=tokens, **fields.pop("sampling", {}))
    return Ask(pane=pane, messages=messages, sampling=sampling, **fields)


def answered(pane: LocalPane, ask: Ask) -> tuple[Reply, Listening]:
    listening = Listening()
    reply = pane.answer(ask, listening)
    assert "".join(listening.pieces) == reply.text
    return reply, listening


def engine_says(model: Path, ask: Ask, **how: Any) -> tuple[str, str]:
    engine = open_engine("hf", EngineConfig(model=str(model), **how))
    (completion,) = engine.complete([Request(item_id="a", prompt=ask.messages)], ask.sampling)
    return str(completion.response), str(completion.finish_reason)


@pytest.mark.parametrize(
    "asked",
    [
        question(),
        question("Hi.", "Yes?", "Tell me more."),
        question(sampling={"temperature": 0.8, "top_p": 0.9, "seed": 7}),
        question(sampling={"stop": ("e",)}),
        question(tokens=1),
    ],
    ids=["greedy", "turns", "sampled", "stop string", "one token"],
)
def test_an_answer_is_what_the_engine_says(llama: Path, asked: Ask) -> None:
    reply, _ = answered(LocalPane("a", str(llama), None, Models()), asked)
    assert (reply.text, reply.finish_reason) == engine_says(llama, asked)
    assert reply.tokens == len(reply.ids)


@pytest.mark.parametrize("template", ["roles", "urial", "zero-shot"])
def test_an_answer_under_another_template_is_what_the_engine_says_under_it(
    save_model: Callable[..., Path], template: str
) -> None:
    roomy = save_model("llama", context=4096)
    asked = question(template=template)
    reply, listening = answered(LocalPane("a", str(roomy), None, Models()), asked)
    assert (reply.text, reply.finish_reason) == engine_says(roomy, asked, template=template)
    assert listening.start is not None
    assert listening.start.template_name == template
    assert listening.start.template != engine_of(roomy).template


def engine_of(model: Path) -> Any:
    return open_engine("hf", EngineConfig(model=str(model)))


def test_the_start_says_which_model_answers_and_what_it_is_sent(llama: Path) -> None:
    reply, listening = answered(LocalPane("a", str(llama), None, Models()), question())
    start = listening.start
    assert start is not None
    assert start.model == identity(str(llama)) == reply.answered_by
    assert start.template == engine_of(llama).template
    assert start.adapter == "none"
    prompt = "".join(part.text for part in start.stretches)
    assert prompt == f"<|user|>\n{QUESTION}\n<|assistant|>\n"
    assert start.prompt_tokens == reply.prompt_tokens


def test_an_adapter_that_is_off_answers_as_its_base_and_says_so(llama: Path, adapter: Path) -> None:
    pane = LocalPane("a", str(adapter), None, Models())
    by_state = {}
    # On again after off: the state of the weights must follow each question.
    for state in ("on", "off", "on"):
        reply, listening = answered(pane, question(adapter=state))
        assert listening.start is not None
        assert listening.start.adapter == state
        assert listening.start.model == reply.answered_by
        by_state[state] = reply.text, reply.finish_reason, reply.answered_by
    assert by_state["on"][:2] == engine_says(adapter, question())
    assert by_state["off"][:2] == engine_says(llama, question())
    assert by_state["on"][2] == identity(str(adapter))
    assert by_state["off"][2] == identity(str(llama))
    assert by_state["on"][0] != by_state["off"][0]


def test_an_adapter_that_is_on_and_off_at_once_answers_as_one_after_the_other(
    adapter: Path,
) -> None:
    pane = LocalPane("a", str(adapter), None, Models())
    asked = [question(adapter=state, tokens=40) for state in ("on", "off")]
    alone = [answered(pane, one)[0] for one in asked]
    together: dict[str, Reply] = {}
    turns: list[str] = []

    class Noting(Listening):
        def __init__(self, state: str) -> None:
            super().__init__()
            self.state = state

        def text(self, piece: str) -> None:
            super().text(piece)
            turns.append(self.state)

    def answer(one: Ask) -> None:
        together[one.adapter] = pane.answer(one, Noting(one.adapter))

    threads = [threading.Thread(target=answer, args=(one,)) for one in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [together["on"], together["off"]] == alone
    changes = sum(one != other for one, other in pairwise(turns))
    assert changes > 5, f"they take turns: {turns}"


def test_panes_of_one_model_share_its_weights(llama: Path) -> None:
    models = Models()
    one, two = (LocalPane(name, str(llama), None, models) for name in ("one", "two"))
    assert one.under(None).model is two.under("roles").model


def test_weights_that_were_exchanged_are_recognised(llama: Path, gpt2: Path) -> None:
    models = Models()
    one, two = (
        LocalPane(name, str(path), None, models) for name, path in (("one", llama), ("two", gpt2))
    )
    one._weights._model, two._weights._model = two._weights._model, one._weights._model
    reply, listening = answered(one, question())
    assert listening.start is not None
    assert listening.start.model == identity(str(llama))
    assert reply.answered_by == identity(str(gpt2))


def test_an_adapter_that_was_left_on_is_recognised(adapter: Path, llama: Path) -> None:
    pane = LocalPane("a", str(adapter), None, Models())
    with pane._weights.turn(adapter_on=True):
        pass
    pane._weights._adapter_is_on = False  # as the pane believes, so that it does not switch it off
    reply, listening = answered(pane, question(adapter="off"))
    assert listening.start is not None
    assert listening.start.model == identity(str(llama))
    assert reply.answered_by == identity(str(adapter))


def test_a_reply_that_nobody_wants_any_more_ends(llama: Path) -> None:
    pane = LocalPane("a", str(llama), None, Models())
    whole, _ = answered(pane, question(tokens=100))
    listening = Listening(pieces=3)
    reply = pane.answer(question(tokens=100), listening)
    assert (reply.finish_reason, reply.detail) == ("other", STOPPED)
    assert reply.text == "".join(listening.pieces)
    assert whole.text.startswith(reply.text)
    assert 3 <= len(reply.ids) < 10 < len(whole.ids)
    again, _ = answered(pane, question(tokens=100))
    assert again == whole, "the turn was given back"


def test_a_reply_goes_on_from_the_tokens_it_is_given(llama: Path) -> None:
    pane = LocalPane("a", str(llama), None, Models())
    whole, _ = answered(pane, question())
    rest, _ = answered(pane, question(begin_ids=whole.ids[:5], tokens=19))
    assert (rest.ids, rest.text) == (whole.ids, whole.text)
    other = (whole.ids[4] + 7) % 256
    another, _ = answered(pane, question(begin_ids=(*whole.ids[:4], other)))
    assert another.ids[:5] == (*whole.ids[:4], other)
    assert another.ids != whole.ids


def test_a_reply_that_is_given_its_stop_token_ends_there(llama: Path) -> None:
    pane = LocalPane("a", str(llama), None, Models())
    whole, _ = answered(pane, question())
    ended, _ = answered(pane, question(begin_ids=(*whole.ids[:4], 0)))
    assert (ended.finish_reason, ended.ids) == ("stop", (*whole.ids[:4], 0))
    assert whole.text.startswith(ended.text)


def test_a_reply_begins_with_the_words_it_is_given(llama: Path) -> None:
    pane = LocalPane("a", str(llama), None, Models())
    reply, _ = answered(pane, question(begin_text="Once upon"))
    assert reply.text.startswith("Once upon")
    assert len(reply.text) > len("Once upon")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (question(adapter="off"), "a: the model has no adapter to switch off"),
        (question(template="tuluu"), "did you mean 'tulu'"),
        (question("x" * 600), "leaves no room for a reply in the model's context of 256"),
        (question(begin_ids=(10**6,)), "has none"),
        (question(begin_ids=(5,) * 250), "leaves no room for more of it"),
        (question(begin_ids=(5,), begin_text="Yes"), "not with both"),
    ],
)
def test_what_cannot_be_answered_is_one_line(llama: Path, asked: Ask, message: str) -> None:
    with pytest.raises(ResponseTuningError, match=message):
        LocalPane("a", str(llama), None, Models()).answer(asked, Listening())


def test_a_pane_names_its_model_and_template(adapter: Path, llama: Path) -> None:
    about = LocalPane("a", str(adapter), None, Models()).about()
    assert about["model"] == identity(str(adapter))
    assert (about["name"], about["kind"], about["template"]) == ("a", "local", "tulu")
    assert about["has_adapter"] is True
    assert about["base"] == str(llama)
    assert about["template_digest"] == engine_of(llama).template


def test_a_template_that_does_not_exist_is_said_before_the_model_answers(llama: Path) -> None:
    with pytest.raises(ConfigError, match="'nowhere'"):
        LocalPane("a", str(llama), "nowhere", Models())


def test_a_model_is_freed_with_the_last_pane_that_uses_it(llama: Path) -> None:
    import gc

    models = Models()
    panes = [LocalPane(name, str(llama), None, models) for name in ("one", "two")]
    assert len(models.fingerprints()) == 1
    panes.pop()
    gc.collect()
    assert len(models.fingerprints()) == 1
    panes.clear()
    gc.collect()
    assert models.fingerprints() == {}


def test_a_template_of_the_model_s_own_is_called_native(llama: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "own"))
    own = folder / "chat_template.jinja"
    own.write_text(own.read_text(encoding="utf-8").replace("<|user|>", "<|me|>"), encoding="utf-8")
    pane = LocalPane("a", str(folder), None, Models())
    assert pane.about()["template"] == "native"
    reply, listening = answered(pane, question())
    assert (reply.text, reply.finish_reason) == engine_says(folder, question())
    assert listening.start is not None
    assert listening.start.stretches[0].text.startswith("<|me|>")
