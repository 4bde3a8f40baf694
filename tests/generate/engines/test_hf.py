import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from logging import INFO
from pathlib import Path
from typing import Any, cast

import pytest

from response_tuning import templates
from response_tuning.artifacts import Completion, Message, Request, Sampling
from response_tuning.errors import ConfigError, ModelError, TemplateError
from response_tuning.generate import EngineConfig, generate, open_engine
from response_tuning.generate.engines.hf import HfEngine
from response_tuning.models.inference import load
from response_tuning.templates import Chat

Ask = Callable[..., Request]
SaveModel = Callable[..., Path]
GREEDY = Sampling(max_new_tokens=24)
ONE_BY_ONE = 1


def say(
    folder: Path,
    requests: Sequence[Request],
    sampling: Sampling = GREEDY,
    tokens_per_batch: int = 100_000,
    template: str | None = None,
) -> list[Completion]:
    config = EngineConfig(model=str(folder), tokens_per_batch=tokens_per_batch, template=template)
    given = open_engine("hf", config).complete(requests, sampling)
    order = {request.item_id: place for place, request in enumerate(requests)}
    return sorted(given, key=lambda completion: order[completion.item_id])


def texts(*args: Any, **kwargs: Any) -> list[str | None]:
    given = say(*args, **kwargs)
    assert [c.error for c in given] == [None] * len(given)
    return [c.response for c in given]


def plain_generate(
    folder: Path, requests: Sequence[Request], template: str | None = None
) -> list[str]:
    """What transformers says to each prompt alone, with nothing of ours but the template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    templates.install(tokenizer, template or "native")
    chat = templates.Chat(tokenizer)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    said = []
    for request in requests:
        ids = tokenizer(chat.prompt(request.prompt), add_special_tokens=False, return_tensors="pt")
        out = model.generate(**ids, max_new_tokens=24, do_sample=False, pad_token_id=0)
        whole = tokenizer.decode(out[0], skip_special_tokens=True)
        said.append(whole[len(tokenizer.decode(ids.input_ids[0], skip_special_tokens=True)) :])
    return said


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_batches_say_what_one_by_one_and_plain_generate_say(
    kind: str, varied: list[Request], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    batched = texts(folder, varied)
    assert len(set(batched)) > 40
    assert batched == texts(folder, varied, tokens_per_batch=ONE_BY_ONE)
    assert batched == plain_generate(folder, varied)


def test_batches_of_a_real_model_say_what_one_by_one_and_plain_generate_say(
    tiny_lm: Path, varied: list[Request]
) -> None:
    batched = texts(tiny_lm, varied, template="tulu")
    assert len(set(batched)) > 20
    assert batched == texts(tiny_lm, varied, template="tulu", tokens_per_batch=ONE_BY_ONE)
    assert batched == texts(tiny_lm, varied, template="tulu", tokens_per_batch=500)
    assert batched == plain_generate(tiny_lm, varied, template="tulu")


def test_the_first_space_of_a_sentencepiece_reply_is_kept(tiny_lm: Path, ask: Ask) -> None:
    local = load(str(tiny_lm), "tulu")
    prompt, reply = (
        local.chat.tokenizer(text, add_special_tokens=False).input_ids
        for text in ("<|assistant|>\n", "Once upon")
    )
    assert local.chat.tokenizer.decode(reply) == "Once upon"
    assert local.text(prompt, reply) == " Once upon"


def test_rows_that_stop_at_different_tokens_are_cut_where_they_stop_alone(
    save_model: SaveModel, byte_tokenizer: Any, varied: list[Request]
) -> None:
    folder = save_model("llama", eos=[0, *range(20, 45)])
    batched = say(folder, varied)
    assert batched == say(folder, varied, tokens_per_batch=ONE_BY_ONE)
    assert {c.finish_reason for c in batched} == {"stop", "length"}
    lengths = {
        len(byte_tokenizer(c.response).input_ids) for c in batched if c.finish_reason == "stop"
    }
    assert len(lengths) > 3
    unstopped = texts(save_model("llama"), varied)
    assert all(
        whole is not None and cut.response is not None and whole.startswith(cut.response)
        for cut, whole in zip(batched, unstopped, strict=True)
    )


def test_a_reply_that_reaches_its_limit_is_marked(llama: Path, ask: Ask) -> None:
    (given,) = say(llama, [ask("a", "hello")], Sampling(max_new_tokens=3))
    assert given.finish_reason == "length"
    assert given.tokens == 3


def test_the_tokens_of_a_prompt_are_counted_with_its_template_and_without_padding(
    llama: Path, byte_tokenizer: Any, ask: Ask
) -> None:
    requests = [ask("a", "hello"), ask("b", "hello hello hello")]
    chat = Chat(byte_tokenizer)
    expected = {r.item_id: len(chat.encode(chat.prompt(r.prompt))) for r in requests}
    given = say(llama, requests, Sampling(max_new_tokens=3))
    assert {c.item_id: c.prompt_tokens for c in given} == expected


def test_the_turn_end_stops_a_reply_even_if_the_model_does_not_declare_it(
    save_model: SaveModel, varied: list[Request]
) -> None:
    local = load(str(save_model("llama", eos=[7, 8])))
    assert local.stop_ids == (0, 7, 8)


def test_stop_strings_cut_each_reply_at_their_first_occurrence(
    llama: Path, varied: list[Request]
) -> None:
    stop = ("e", "th", "|>")
    whole = texts(llama, varied)
    cut = say(llama, varied, GREEDY.model_copy(update={"stop": stop}))
    assert {c.finish_reason for c in cut} == {"stop", "length"}
    for text, completion in zip(whole, cut, strict=True):
        assert text is not None
        places = [text.find(string) for string in stop if string in text]
        assert completion.response == (text[: min(places)] if places else text)
        assert completion.finish_reason == ("stop" if places else "length")


def test_a_stop_string_of_several_tokens_ends_a_reply_early(llama: Path, ask: Ask) -> None:
    local = load(str(llama))
    draft = local.draft(ask("a", "hello").prompt, GREEDY)
    local.extend([draft], GREEDY)
    shown = [local.text(draft.prompt, draft.generated[:n]) for n in range(25)]
    whole = [n for n in range(3, 22) if "\ufffd" not in shown[n + 3][len(shown[n]) :]]
    before, stop = shown[whole[0]], shown[whole[0] + 3][len(shown[whole[0]]) :]
    sampling = GREEDY.model_copy(update={"stop": (stop, "never said")})
    draft = local.draft(ask("a", "hello").prompt, sampling)
    local.extend([draft], sampling)
    assert len(draft.generated) == whole[0] + 3
    assert local.ending(draft, sampling) == (before, "stop")


def test_a_stop_string_that_begins_in_the_prompt_does_not_stop_the_reply(
    llama: Path, varied: list[Request]
) -> None:
    whole = texts(llama, varied)
    letters = Counter(text[0] for text in whole if text)
    letter, times = letters.most_common()[-1]
    assert times < len(whole)
    # The prompt ends in ">" and a newline.
    stop = (f">\n{letter}", f"\n{letter}")
    assert not any(string in text for string in stop for text in whole if text)
    assert texts(llama, varied, GREEDY.model_copy(update={"stop": stop})) == whole


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_full_context_ends_each_reply_at_its_own_length(
    kind: str, varied: list[Request], save_model: SaveModel
) -> None:
    from response_tuning.models.inference import load

    folder = save_model(kind, context=128, eos=[])
    endless = Sampling(max_new_tokens=1000)
    some = varied[4:24:3]
    batched = say(folder, some, endless)
    assert batched == say(folder, some, endless, tokens_per_batch=ONE_BY_ONE)
    local = load(str(folder))
    drafts = [local.draft(request.prompt, endless) for request in some]
    assert len({draft.limit for draft in drafts}) > 3
    local.extend(drafts, endless)
    assert all(local.ending(draft, endless) is not None for draft in drafts)


def test_a_prompt_without_room_for_a_reply_is_an_error_record_beside_the_others(
    save_model: SaveModel, ask: Ask
) -> None:
    from response_tuning.models.inference import load

    folder = save_model("gpt2", context=64)
    chat = load(str(folder)).chat
    asks = [ask(f"{n}", "a" * n) for n in range(80)]
    sizes = [len(chat.encode(chat.prompt(request.prompt))) for request in asks]
    fits, full, long = (asks[sizes.index(size)] for size in (62, 63, 64))
    given = say(folder, [long, fits, full])
    assert given[0].response is None
    assert given[0].error == (
        "the prompt has 64 tokens, which leaves no room for a reply in the model's context of 64"
    )
    assert [c.finish_reason for c in given[1:]] == ["length", "length"]


def test_a_prompt_without_a_token_is_an_error_record(llama: Path, tmp_path: Path, ask: Ask) -> None:
    bare = tmp_path / "bare.jinja"
    bare.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    nothing, fine = say(llama, [ask("n", ""), ask("a", "hello")], template=str(bare))
    assert nothing.error == "the prompt has no token, so there is nothing to continue"
    assert fine.error is None


def test_a_message_that_the_template_refuses_is_an_error_record(llama: Path, ask: Ask) -> None:
    system = Request(item_id="s", prompt=(Message(role="system", content="be brief"),))
    refused, fine = say(llama, [system, ask("a", "hello")])
    assert refused.error is not None and "message after it, and there is none" in refused.error
    assert fine.error is None


def test_the_folders_own_taste_in_decoding_is_ignored(
    llama: Path, tmp_path: Path, varied: list[Request]
) -> None:
    folder = tmp_path / "tasteful"
    shutil.copytree(llama, folder)
    taste = {"do_sample": True, "temperature": 2.0, "top_k": 3, "repetition_penalty": 9.0}
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, **taste}))
    assert texts(folder, varied[:5]) == texts(llama, varied[:5])


def test_sampling_repeats_with_its_seed_and_leaves_the_global_generator_alone(
    llama: Path, varied: list[Request]
) -> None:
    import torch

    def drawn(seed: int) -> list[str | None]:
        return texts(llama, varied[:4], Sampling(max_new_tokens=8, temperature=1.0, seed=seed))

    before = torch.get_rng_state()
    assert drawn(0) == drawn(0) != drawn(1)
    assert torch.equal(before, torch.get_rng_state())


def test_sampling_uses_the_whole_vocabulary_unless_top_p_limits_it(llama: Path, ask: Ask) -> None:
    local = load(str(llama))

    def firsts(sampling: Sampling) -> list[int]:
        drafts = [local.draft(ask("a", f"hello {n}").prompt, sampling) for n in range(300)]
        local.extend(drafts, sampling)
        return [draft.generated[0] for draft in drafts]

    one = Sampling(max_new_tokens=1)
    assert len(set(firsts(one.model_copy(update={"temperature": 100.0})))) > 100
    likeliest = firsts(one.model_copy(update={"temperature": 100.0, "top_p": 1e-6}))
    assert likeliest == firsts(one)


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_sampled_answers_depend_neither_on_the_batch_nor_on_the_order(
    llama: Path, varied: list[Request], top_p: float
) -> None:
    drawn = Sampling(max_new_tokens=24, temperature=0.8, top_p=top_p, seed=3)
    together = texts(llama, varied, drawn)
    assert len(set(together)) > 40
    for tokens in (ONE_BY_ONE, 150, 1000):
        assert texts(llama, varied, drawn, tokens_per_batch=tokens) == together
    assert texts(llama, varied[::-1], drawn)[::-1] == together
    assert texts(llama, varied[7:9], drawn) == together[7:9]


@pytest.mark.parametrize("kept", [1, 13, 44])
def test_sampled_answers_survive_a_kill(
    llama: Path, varied: list[Request], tmp_path: Path, kept: int
) -> None:
    drawn = Sampling(max_new_tokens=24, temperature=1.0)
    engine = open_engine("hf", EngineConfig(model=str(llama), tokens_per_batch=600))
    whole, killed = tmp_path / "whole.journal", tmp_path / "killed.journal"
    answers = list(generate(engine, varied, whole, drawn))
    lines = whole.read_bytes().splitlines(keepends=True)
    killed.write_bytes(b"".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])
    assert list(generate(engine, varied, killed, drawn)) == answers


def test_loading_and_answering_say_nothing_and_leave_the_log_level_alone(
    llama: Path,
    varied: list[Request],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    from transformers.utils import logging

    logging.add_handler(caplog.handler)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()  # type: ignore[no-untyped-call]
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        texts(llama, varied[:3], Sampling(max_new_tokens=300))
        assert capfd.readouterr() == ("", "")
        assert caplog.records == []
        assert logging.get_verbosity() == INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.remove_handler(caplog.handler)
        logging.set_verbosity(before[0])
        if not before[1]:
            logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture
def adapter(llama: Path, byte_tokenizer: Any, tmp_path: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(1)
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        tuned: Any = get_peft_model(
            base,
            LoraConfig(r=4, lora_dropout=0.5, target_modules="all-linear", init_lora_weights=False),
        )
    tuned.save_pretrained(tmp_path / "adapter")
    byte_tokenizer.save_pretrained(tmp_path / "adapter")
    merged: Any = tuned.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    byte_tokenizer.save_pretrained(tmp_path / "merged")
    return tmp_path / "adapter"


def test_an_adapter_says_what_it_says_when_merged(
    adapter: Path, llama: Path, varied: list[Request]
) -> None:
    said = texts(adapter, varied)
    assert said == texts(adapter.with_name("merged"), varied)
    assert said != texts(llama, varied)


def test_an_adapter_without_a_tokenizer_uses_that_of_its_base(
    adapter: Path, varied: list[Request]
) -> None:
    said = texts(adapter, varied[:3])
    for file in [*adapter.glob("tokenizer*"), *adapter.glob("chat_template*")]:
        file.unlink()
    assert texts(adapter, varied[:3]) == said


def test_an_adapter_whose_base_is_gone_names_its_file(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/gone/base"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"adapter_config\.json: its base .* /gone/base: no such"):
        open_engine("hf", EngineConfig(model=str(adapter)))


def test_an_adapter_of_an_adapter_is_refused(adapter: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(adapter, second)
    config = json.loads((second / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(adapter)
    (second / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is an adapter: merge that"):
        open_engine("hf", EngineConfig(model=str(second)))


def identity(folder: Path) -> str:
    return open_engine("hf", EngineConfig(model=str(folder))).model


def test_the_identity_follows_the_content_not_the_place(llama: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(llama, copy)
    (copy / "README.md").write_text("a model card")
    (copy / "metrics.jsonl").write_text("{}")
    assert identity(copy) == identity(llama)


def test_retraining_in_place_is_noticed(llama: Path, gpt2: Path, tmp_path: Path, ask: Ask) -> None:
    folder = tmp_path / "model"
    journal = tmp_path / "journal.jsonl"
    said = []
    for trained in (llama, gpt2):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(trained, folder)
        engine = open_engine("hf", EngineConfig(model=str(folder)))
        (given,) = generate(engine, [ask("a", "hello")], journal, GREEDY)
        said.append(given.response)
    assert said[0] != said[1]


def test_an_adapters_identity_follows_its_base_too(
    adapter: Path, llama: Path, gpt2: Path, tmp_path: Path
) -> None:
    before = identity(adapter)
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert identity(adapter).split("+")[1] != before.split("+")[1]


def test_new_tokens_are_counted_with_the_stop_token(
    save_model: SaveModel, varied: list[Request]
) -> None:
    folder = save_model(eos=range(0, 400, 9))
    given = say(folder, varied)
    assert {c.finish_reason for c in given} == {"stop", "length"}
    for completion in given:
        assert completion.tokens is not None
        if completion.finish_reason == "length":
            assert completion.tokens == GREEDY.max_new_tokens
        else:
            assert 1 <= completion.tokens <= GREEDY.max_new_tokens
            assert (completion.tokens == 1) == (completion.response == "")
    one_by_one = say(folder, varied, tokens_per_batch=ONE_BY_ONE)
    assert [c.tokens for c in given] == [c.tokens for c in one_by_one]


def test_an_engine_that_is_told_to_stays_on_the_cpu(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    asked: list[dict[str, Any]] = []
    load = AutoModelForCausalLM.from_pretrained

    def note(folder: Path, **how: Any) -> Any:
        asked.append(how)
        return load(folder, **{**how, "device_map": "cpu"})

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", note)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    for device in ("cpu", "auto"):
        open_engine("hf", EngineConfig.model_validate({"model": str(llama), "device": device}))
    assert [how["device_map"] for how in asked] == ["cpu", "cuda"]
    assert [how["dtype"] for how in asked] == [torch.float32, torch.bfloat16]


def test_another_precision_is_another_model(llama: Path) -> None:
    names = []
    for precision in ("auto", "float32", "bfloat16"):
        settings = EngineConfig.model_validate(
            {"model": str(llama), "device": "cpu", "precision": precision}
        )
        engine = cast(HfEngine, open_engine("hf", settings))
        kind = str(engine._local.model.dtype).removeprefix("torch.")
        assert kind == ("float32" if precision == "auto" else precision)
        names.append(engine.model)
    assert names == [names[0], f"{names[0]}+float32", f"{names[0]}+bfloat16"]


def test_another_template_is_another_question(tiny_lm: Path, llama: Path) -> None:
    own, again = (
        open_engine("hf", EngineConfig(model=str(llama), template=name)) for name in (None, "tulu")
    )
    assert own.template == again.template
    assert (
        own.template
        != open_engine("hf", EngineConfig(model=str(tiny_lm), template="tulu")).template
    )


def test_a_base_without_a_template_is_an_error_with_the_next_step(tiny_lm: Path) -> None:
    with pytest.raises(TemplateError, match="--template tulu"):
        open_engine("hf", EngineConfig(model=str(tiny_lm)))


def damaged(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "model.safetensors"
    match how:
        case "no weights":
            weights.rename(folder / "pytorch_model.bin")
        case "no config":
            (folder / "config.json").unlink()
        case "cut weights":
            os.truncate(weights, 5000)
        case "more layers":
            (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
        case "more words":
            (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 9999}))
        case "new architecture":
            (folder / "config.json").write_text(json.dumps(config | {"model_type": "nova"}))
        case "no tokenizer":
            for file in folder.glob("tokenizer*"):
                file.unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no weights", "no model.safetensors, only pytorch_model.bin, and only safetensors"),
        ("no config", "no config.json and no adapter_config.json"),
        ("cut weights", "cannot be loaded"),
        ("more layers", "9 weights that config.json requires are missing"),
        ("more words", "1 weights|2 weights"),
        ("new architecture", "nova"),
        ("no tokenizer", "no usable tokenizer"),
    ],
)
def test_a_damaged_folder_is_named_in_one_line(
    llama: Path, tmp_path: Path, how: str, said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    damaged(folder, how)
    with pytest.raises(ModelError, match=said) as caught:
        open_engine("hf", EngineConfig(model=str(folder)))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["/nowhere/model", "./nowhere", "runs/rt/seed-0/finetune"])
def test_a_folder_that_does_not_exist_is_named(model: str) -> None:
    with pytest.raises(ModelError, match=f"{model}: no such folder"):
        open_engine("hf", EngineConfig(model=model))


def test_a_name_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match="nobody/nothing: no such folder, and the hub cannot"
    ) as caught:
        open_engine("hf", EngineConfig(model="nobody/nothing"))
    assert "\n" not in str(caught.value)


def test_a_hub_model_is_read_from_the_cache_and_known_by_its_commit(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, varied: list[Request]
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--some--base"
    shutil.copytree(llama, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    engine = open_engine("hf", EngineConfig(model="some/base"))
    assert engine.model == f"some/base@{commit}"
    assert [c.error for c in engine.complete(varied[:2], GREEDY)] == [None, None]


def test_a_missing_model_name_is_an_error_with_the_next_step() -> None:
    with pytest.raises(ConfigError, match="--model"):
        open_engine("hf", EngineConfig())


def stopping_at(folder: Path, string: str) -> str:
    """Write ``zero-shot`` with another stop string."""
    text = templates.jinja("zero-shot")
    head, line, tail = text.partition("['\\n```', '```', '# Query:', '# Answer:']")
    assert line
    file = folder / "stopping.jinja"
    file.write_text(f"{head}[{json.dumps(string)}]{tail}", encoding="utf-8")
    return str(file)


def test_a_reply_ends_at_the_stop_strings_of_its_template(
    llama: Path, varied: list[Request], tmp_path: Path
) -> None:
    endless = stopping_at(tmp_path, "never said")
    whole = {c.item_id: c for c in say(llama, varied, template=endless)}
    letters = Counter(str(c.response)[3:4] for c in whole.values())
    letter = next(letter for letter, _ in letters.most_common() if letter not in ("", "\ufffd"))
    for completion in say(llama, varied, template=stopping_at(tmp_path, letter)):
        before = whole[completion.item_id]
        response, found, _ = str(before.response).partition(letter)
        assert completion.response == response
        assert completion.finish_reason == ("stop" if found else before.finish_reason)
        assert not found or (completion.tokens or 0) <= (before.tokens or 0)
        assert completion.sampling == GREEDY
        assert completion.key != before.key


def test_stop_strings_of_the_template_and_of_the_caller_both_end_a_reply(
    llama: Path, ask: Ask, tmp_path: Path
) -> None:
    (whole,) = texts(llama, [ask("a", "hello")], template=stopping_at(tmp_path, "never said"))
    later, sooner = str(whole)[10], str(whole)[2]
    template = stopping_at(tmp_path, later)
    sampling = GREEDY.model_copy(update={"stop": (sooner,)})
    assert texts(llama, [ask("a", "hello")], sampling, template=template) == [
        str(whole)[: str(whole).index(sooner)]
    ]
    template = stopping_at(tmp_path, sooner)
    sampling = GREEDY.model_copy(update={"stop": (later,)})
    assert texts(llama, [ask("a", "hello")], sampling, template=template) == [
        str(whole)[: min(str(whole).index(sooner), str(whole).index(later))]
    ]


def test_a_template_that_ends_turns_in_text_travels_in_the_tokenizer(
    llama: Path, varied: list[Request], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(llama, tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    templates.install(tokenizer, stopping_at(tmp_path, "e"))
    tokenizer.save_pretrained(folder)
    here = texts(llama, varied, template=stopping_at(tmp_path, "e"))
    assert texts(folder, varied) == here
    assert not any("e" in str(text) for text in here)


def test_our_demonstrations_do_not_fit_into_the_miniature_which_says_so(ask: Ask) -> None:
    (completion,) = say(Path("miniature"), [ask("a", "hello")], template="urial")
    assert completion.response is None
    assert "leaves no room for a reply in the model's context of 256" in str(completion.error)


def test_confidence_is_the_mean_log_likelihood_of_the_answer(llama: Path, ask: Ask) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    requests = [ask("a", "Tea?"), ask("b", "And a longer question about ink?")]
    plain = open_engine("hf", EngineConfig(model=str(llama)))
    engine = open_engine("hf", EngineConfig(model=str(llama), confidence=True))
    assert engine.model == f"{plain.model}+confidence"
    found = {one.item_id: one for one in engine.complete(requests, GREEDY)}
    without = {one.item_id: one for one in plain.complete(requests, GREEDY)}
    model: Any = AutoModelForCausalLM.from_pretrained(llama)
    chat = Chat(cast("Any", AutoTokenizer.from_pretrained(llama)))
    for request in requests:
        one = found[request.item_id]
        assert (one.response, without[request.item_id].confidence) == (
            without[request.item_id].response, None,
        )  # fmt: skip
        prompt, reply = (
            chat.encode(chat.prompt(request.prompt)),
            chat.encode_reply(str(one.response)),
        )
        reply += [chat.turn_end.stop_id] if one.finish_reason == "stop" else []
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, torch.tensor(reply)[:, None]).mean()
        assert one.confidence == pytest.approx(float(expected), abs=1e-4)


def test_an_answer_without_a_token_has_no_confidence(llama: Path, ask: Ask) -> None:
    (whole,) = say(llama, [ask("a", "Tea?")])
    first = str(whole.response)[:1]
    engine = open_engine("hf", EngineConfig(model=str(llama), confidence=True))
    stopped = GREEDY.model_copy(update={"stop": (first,)})
    (cut,) = engine.complete([ask("a", "Tea?")], stopped)
    assert (cut.response, cut.confidence) == ("", None)
