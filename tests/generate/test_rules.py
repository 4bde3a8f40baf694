"""The rule adapter: which scores it adds, to which tokens, at which step."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError
from response_tuning.generate import open_engine
from response_tuning.generate.rules import Rules
from response_tuning.models.inference import load
from response_tuning.models.local import Draft, LocalModel
from response_tuning.rules_config import PUBLISHED, RulesConfig
from response_tuning.templates import Chat, install

OFF: dict[str, Any] = {"eos": 0, "uniform": {}, "tags": 0, "diversity": 0}
Ask = Callable[..., Request]


@pytest.fixture(scope="module")
def local(llama: Path) -> LocalModel:
    return load(str(llama))


def scores(local: LocalModel, draft: Draft, **settings: Any) -> list[float]:
    """What the rules add to each token's logit."""
    rules = Rules(RulesConfig.model_validate(OFF | settings), local)
    logits = torch.linspace(-2, 2, local.rows or 0)[None]
    added: list[float] = (rules([draft], logits) - logits)[0].tolist()
    return [round(score, 4) for score in added]


def changed(added: Sequence[float]) -> dict[int, float]:
    return {token: score for token, score in enumerate(added) if score}


@pytest.mark.parametrize(
    ("length", "bug", "expected"),
    [
        (0, False, 0.0), (1, False, 0.06), (125, False, 7.5), (249, False, 14.94),
        (250, False, 15.0), (400, False, 15.0), (249, True, 14.94), (250, True, 0.0),
    ],
)  # fmt: skip
def test_the_stop_token_gains_with_the_length_of_the_answer(
    length: int, bug: bool, expected: float, local: LocalModel
) -> None:
    draft = Draft([5, 6], 500, [7] * length)
    found = scores(local, draft, eos=15, published_bug=bug)
    assert changed(found) == ({local.stop_ids[0]: expected} if expected else {})


def test_a_token_that_was_used_loses_once_however_often_it_was_used(local: LocalModel) -> None:
    draft = Draft([5, 6], 50, [7, 9, 7, 7])
    assert changed(scores(local, draft, diversity=-1.5)) == {7: -1.5, 9: -1.5}


def test_the_released_code_also_counts_what_follows_the_users_tag(
    local: LocalModel, ask: Ask
) -> None:
    draft = local.draft(ask("q", "jumps").prompt, Sampling())
    tag = local.chat.encode("<|user|>\n")
    assert draft.prompt[: len(tag)] == tag
    draft.generated.append(9)
    found = changed(scores(local, draft, diversity=-1.5, count_prompt=True))
    assert found == dict.fromkeys({9, *draft.prompt[len(tag) :]}, -1.5)


def test_texts_have_their_scores_at_every_step_and_rules_add_up(local: LocalModel) -> None:
    mark, newline = (local.chat.encode_reply(text)[0] for text in ("!", "\n"))
    draft = Draft([5], 50, [mark])
    found = scores(local, draft, uniform={"!": 1, "\n": -3}, diversity=-1.5)
    assert changed(found) == {mark: -0.5, newline: -3}


def test_the_published_texts_are_the_15_of_the_paper() -> None:
    assert len(PUBLISHED) == 15
    assert sorted(PUBLISHED.values()) == [-6, -5, -5, -5, -4, -4, -4, -3, *[1] * 7]
    assert RulesConfig().uniform == PUBLISHED


def test_a_tag_that_the_texts_miss_gets_the_score_of_tags(local: LocalModel) -> None:
    first = local.chat.encode_reply("<|assistant|>")[0]
    assert local.chat.encode_reply("<|user|>")[0] == first
    found = changed(scores(local, Draft([5], 50), tags=-4, uniform={"!": 1}))
    assert found == {first: -4, local.chat.encode_reply("!")[0]: 1}


@pytest.mark.parametrize(
    "name", ["llama2", "llama3", "gpt_neox_20b", "olmo1_dolma1_5", "olmo2_dolma2"]
)
def test_published_tokenizers_have_every_published_text_as_one_token(
    name: str, public_data: Path, local: LocalModel
) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(public_data / "tokenizers" / name)
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    install(tokenizer, "tulu")
    found = Rules(RulesConfig(), replace(local, chat=Chat(tokenizer))).uniform
    assert len(found) == 15, "the tags begin with tokens that the list has"
    assert sorted(found.values()) == sorted(PUBLISHED.values())


def test_a_text_of_several_tokens_is_refused_in_one_line(local: LocalModel) -> None:
    with pytest.raises(ConfigError) as caught:
        Rules(RulesConfig(uniform={"zebra": 1}), local)
    assert "generate.rules.uniform: 'zebra' is 5 tokens" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_template_without_a_stop_token_is_refused(local: LocalModel) -> None:
    with pytest.raises(ConfigError, match="no stop token"):
        Rules(RulesConfig(uniform={}), replace(local, stop_ids=()))


def answers(folder: Path, requests: Sequence[Request], **settings: Any) -> list[Completion]:
    engine = open_engine("hf", EngineConfig(model=str(folder), **settings))
    given = engine.complete(requests, Sampling(max_new_tokens=24))
    order = {request.item_id: place for place, request in enumerate(requests)}
    return sorted(given, key=lambda one: order[one.item_id])


def rules(**settings: Any) -> RulesConfig:
    return RulesConfig.model_validate(OFF | settings)


def test_rules_that_add_nothing_change_no_answer_and_have_keys_of_their_own(
    llama: Path, varied: list[Request]
) -> None:
    plain, idle = answers(llama, varied), answers(llama, varied, rules=rules())
    assert [one.response for one in plain] == [one.response for one in idle]
    assert not {one.key for one in plain} & {one.key for one in idle}


def test_answers_do_not_depend_on_the_batch_and_are_those_of_a_plain_loop(
    llama: Path, varied: list[Request], local: LocalModel
) -> None:
    config = rules(eos=2, span=8, diversity=-1.5, uniform={"!": 1}, count_prompt=True)
    batched = answers(llama, varied, rules=config)
    single = answers(llama, varied, rules=config, tokens_per_batch=1)
    assert [one.response for one in batched] == [one.response for one in single]
    assert len({one.response for one in batched}) > 20
    assert {one.finish_reason for one in batched} == {"stop", "length"}
    for request, one in list(zip(varied, batched, strict=True))[:5]:
        assert one.response == by_hand(local, request, config)


def by_hand(local: LocalModel, request: Request, config: RulesConfig) -> str:
    """The definition: the product of the base's distribution and the rules' own."""
    prompt = local.chat.encode(local.chat.prompt(request.prompt))
    start, mark = len(local.chat.encode("<|user|>\n")), local.chat.encode_reply("!")[0]
    answer: list[int] = []
    while len(answer) < 24:
        with torch.no_grad():
            logits = local.model(torch.tensor([prompt + answer])).logits[0, -1]
        score = torch.zeros_like(logits)
        for token in {*prompt[start:], *answer}:
            score[token] -= 1.5
        score[mark] += 1
        score[local.stop_ids[0]] += 2 * min(len(answer), 8) / 8
        product = logits.softmax(-1) * score.softmax(-1)
        answer.append(int(product.argmax()))
        if answer[-1] in local.stop_ids:
            break
    return local.text(prompt, answer)


def test_a_temperature_divides_the_sum_of_logits_and_scores(llama: Path, ask: Ask) -> None:
    asked = [ask(f"q{n}", "Tell me") for n in range(1)]
    engine = open_engine("hf", EngineConfig(model=str(llama), rules=rules(uniform={"!": 60})))
    (one,) = engine.complete(asked, Sampling(max_new_tokens=6, temperature=0.5, seed=3))
    assert one.response == "!!!!!!"


def test_another_engine_refuses_rules() -> None:
    with pytest.raises(ConfigError, match="engine 'openai' has no use for rules"):
        open_engine("openai", EngineConfig(model="m", base_url="http://x/v1", rules=RulesConfig()))
