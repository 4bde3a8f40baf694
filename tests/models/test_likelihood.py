import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from response_tuning import templates
from response_tuning.artifacts import Example, Message, Request
from response_tuning.errors import TemplateError
from response_tuning.finetune.encoding import Encoder
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.models import likelihood
from response_tuning.models.inference import load
from response_tuning.models.likelihood import EncodedPair, encode_pair, log_likelihoods
from response_tuning.models.local import LocalModel

RESPONSES = ["Paris.", "The fox jumps over the lazy dog. " * 3, "naïve ☃", " a\n\nb", "</s>x"]
SaveModel = Callable[..., Path]
WIDE, ONE_BY_ONE = 100_000, 1


def asking(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


@pytest.fixture(scope="session")
def pairs(varied: list[Request]) -> list[Pair]:
    asked = [Pair(one.prompt, RESPONSES[n % 5]) for n, one in enumerate(varied[::2])]
    return [*asked, *(Pair((), response) for response in RESPONSES)]


def scored(local: LocalModel, pairs: list[Pair], tokens: int = WIDE) -> list[Likelihood]:
    found = log_likelihoods(local, pairs, tokens)
    assert len(found) == len(pairs)
    return [one for one in found if isinstance(one, Likelihood)]


def plainly(local: LocalModel, pair: Pair) -> Likelihood:
    """The same from one unpadded pass and the definition."""
    row = encode_pair(local, pair)
    assert isinstance(row, EncodedPair)
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([row.prefix + row.reply])).logits[0].double()
    logs = logits.log_softmax(-1)[len(row.prefix) - 1 : -1]
    each = [float(logs[place, token]) for place, token in enumerate(row.reply)]
    stop = local.chat.turn_end.stop_id
    early = [float(logs[place, stop].exp()) for place in range(len(row.reply) - 1)]
    return Likelihood(sum(each[:-1]), len(each) - 1, each[-1], sum(early) / len(early))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("tokens", [WIDE, 300, ONE_BY_ONE])
def test_batches_score_what_the_definition_says_of_each_pair_alone(
    kind: str, tokens: int, pairs: list[Pair], request: pytest.FixtureRequest
) -> None:
    local = load(str(request.getfixturevalue(kind)))
    for found, pair in zip(scored(local, pairs, tokens), pairs, strict=True):
        assert found == pytest.approx(plainly(local, pair), rel=1e-5, abs=1e-5)


def test_batches_of_a_real_model_score_what_the_definition_says(
    tiny_lm: Path, pairs: list[Pair]
) -> None:
    local = load(str(tiny_lm), "tulu")
    together = scored(local, pairs)
    assert together == scored(local, pairs)
    for found, alone, pair in zip(together, scored(local, pairs, 1), pairs, strict=True):
        assert found == pytest.approx(alone, rel=1e-5, abs=1e-5)
        assert found == pytest.approx(plainly(local, pair), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("template", ["tulu", "neutral-tags"])
def test_what_is_scored_is_what_would_be_trained_on(llama: Path, template: str) -> None:
    local = load(str(llama), template)
    for response in RESPONSES:
        example = Example(row=0, instruction="Say it.", response=response)
        for objective, prompt in (
            ("instruction-tuning", asking("Say it.")),
            ("response-tuning", ()),
        ):
            (row,) = Encoder(local.chat, objective, 200).rows([example])
            ids = encode_pair(local, Pair(prompt, response))
            assert isinstance(ids, EncodedPair)
            assert ids.prefix + ids.reply == row.input_ids
            assert ids.reply == [label for label in row.labels if label >= 0]


def test_the_total_is_over_the_responses_tokens_and_the_ending_apart(llama: Path) -> None:
    local = load(str(llama))
    (found,) = scored(local, [Pair(asking("hello"), "Paris.")])
    row = encode_pair(local, Pair(asking("hello"), "Paris."))
    assert isinstance(row, EncodedPair)
    assert found.tokens == len(row.reply) - 1
    assert found.per_token == found.total / found.tokens
    assert found.total < 0
    assert found.ending < 0
    assert 0 < found.early < 1


def test_an_empty_response_has_an_ending_and_no_mean(llama: Path) -> None:
    (found,) = scored(load(str(llama)), [Pair(asking("hello"), "")])
    assert (found.total, found.tokens) == (0, 0)
    assert math.isnan(found.per_token)
    assert math.isnan(found.early)
    assert found.ending < 0


def test_without_an_instruction_a_response_follows_the_opening_alone(llama: Path) -> None:
    local = load(str(llama))
    row = encode_pair(local, Pair((), "Paris."))
    assert isinstance(row, EncodedPair)
    assert local.chat.decode(row.prefix) == "<|assistant|>\n"


def test_in_context_a_reply_ends_with_the_closing_fence(llama: Path) -> None:
    local = load(str(llama), "zero-shot")
    row = encode_pair(local, Pair(asking("hello"), "Paris."))
    assert isinstance(row, EncodedPair)
    assert local.chat.decode(row.reply) == "Paris.\n```"
    (found,) = scored(local, [Pair(asking("hello"), "Paris.")])
    assert found.tokens == len(row.reply) - len(local.chat.closing)
    together = plain_logs(local, row)
    assert found.ending == pytest.approx(sum(together[found.tokens :]), rel=1e-5)


def plain_logs(local: LocalModel, row: EncodedPair) -> list[float]:
    with torch.no_grad():
        logits = local.model(input_ids=torch.tensor([row.prefix + row.reply])).logits[0].double()
    logs = logits.log_softmax(-1)[len(row.prefix) - 1 : -1]
    return [float(logs[place, token]) for place, token in enumerate(row.reply)]


def test_what_cannot_be_scored_says_why_and_keeps_its_place(llama: Path) -> None:
    local = load(str(llama))
    system = Message(role="system", content="Be brief.")
    found = log_likelihoods(
        local,
        [
            Pair(asking("hello"), "Paris."),
            Pair(asking("x" * 300), "Paris."),
            Pair((*asking("hello"), system), "Paris."),
            Pair(asking("hello"), "Paris."),
        ],
        WIDE,
    )
    assert [type(one) for one in found] == [Likelihood, Unscored, Unscored, Likelihood]
    assert found[0] == found[3]
    assert found[1] == Unscored("longer than the model's context of 256 tokens")
    assert isinstance(found[2], Unscored)
    assert "message after it, and there is none" in found[2].reason


def test_a_template_that_does_not_say_what_ends_a_reply_is_refused(
    llama: Path, tmp_path: Path
) -> None:
    file = tmp_path / "endless.jinja"
    file.write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    with pytest.raises(TemplateError, match="not one special token"):
        log_likelihoods(load(str(llama), str(file)), [Pair(asking("hello"), "Paris.")], WIDE)


def test_a_model_that_computes_all_positions_gives_the_same(llama: Path, pairs: list[Pair]) -> None:
    local = load(str(llama))

    class Wasteful:
        device, config = local.model.device, local.model.config

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None: ...

        def __call__(self, use_cache: bool, **given: torch.Tensor) -> SimpleNamespace:
            assert set(given) == {"input_ids", "attention_mask"}
            return SimpleNamespace(logits=local.model(**given).logits)

    assert scored(replace(local, model=Wasteful()), pairs) == scored(local, pairs)


def test_an_adapter_scores_as_the_model_that_it_is_merged_into(
    llama: Path, pairs: list[Pair]
) -> None:
    from peft import LoraConfig, get_peft_model

    local = load(str(llama))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted: Any = get_peft_model(
            local.model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        )
    found = scored(replace(local, model=adapted), pairs)
    merged = scored(replace(local, model=adapted.merge_and_unload()), pairs)
    for one, other in zip(found, merged, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-4)
    assert abs(found[0].total - scored(load(str(llama)), pairs)[0].total) > 0.01


def test_a_template_of_another_name_changes_the_numbers(llama: Path) -> None:
    pair = Pair(asking("hello"), "Paris.")
    totals = {
        name: scored(load(str(llama), name), [pair])[0].total
        for name in templates.names()
        if not name.startswith("urial")  # longer than the context
    }
    # Without a system turn, these three print the same.
    assert totals["native"] == totals["tulu"] == totals["tulu-system"]
    assert len(set(totals.values())) == len(totals) - 2


def test_a_response_that_nothing_precedes_has_no_score(llama: Path) -> None:
    local = load(str(llama))
    local.chat.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    bare = replace(local, chat=templates.Chat(local.chat.tokenizer))
    pairs = [Pair((), "Paris."), Pair(asking(""), "Paris."), Pair(asking("hello"), "Paris.")]
    found = log_likelihoods(bare, pairs, WIDE)
    assert found[:2] == [Unscored(templates.UNPREDICTED)] * 2
    assert found[2] == pytest.approx(plainly(bare, pairs[2]), rel=1e-5)


def test_likelihoods_do_not_depend_on_how_many_logits_there_are_at_once(
    llama: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = load(str(llama))
    expected = scored(local, pairs)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 3 * local.model.config.vocab_size)
    assert scored(local, pairs) == expected


def test_a_batch_has_a_bounded_number_of_logits(
    llama: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = load(str(llama))
    vocabulary, longest = local.model.config.vocab_size, 0
    monkeypatch.setitem(likelihood.LOGITS_PER_BATCH, "cpu", 200 * vocabulary)
    most = [0]
    local.model.register_forward_hook(
        lambda *given: most.append(given[2].logits.numel() // vocabulary)
    )
    scored(local, pairs)
    for pair in pairs:
        row = encode_pair(local, pair)
        assert isinstance(row, EncodedPair)
        longest = max(longest, len(row.prefix) + len(row.reply))
    assert 100 < max(most) <= max(200, longest)
    assert len(most) > 2
