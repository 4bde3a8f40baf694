import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import AutoModelForCausalLM

from response_tuning.errors import ModelError
from response_tuning.grade.lm_eval.model import HarnessModel
from response_tuning.models.inference import load
from response_tuning.models.local import LocalModel

CHOICES = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " a river"),
    ("One, two, three, four, five, six,", " seven"),
    ("Yes", " or no"),
]


@pytest.fixture(scope="module")
def local(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """The tests' own model, with room for the 256 tokens that an answer may have."""
    folder = tmp_path_factory.mktemp("roomy")
    model = AutoModelForCausalLM.from_pretrained(tiny_base, max_position_embeddings=320)
    model.save_pretrained(folder)
    for file in tiny_base.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return load(str(folder), "tulu")


def requests(kind: str, arguments: list[Any]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=0, metadata=("task", place, 1))
        for place, one in enumerate(arguments)
    ]


def by_hand(local: LocalModel, context: str, continuation: str) -> float:
    """The log-likelihood of a continuation, from the definition."""
    before = local.chat.tokenizer(context).input_ids
    ids = local.chat.tokenizer(context + continuation).input_ids
    assert ids[: len(before)] == before
    with torch.no_grad():
        logits = local.model(torch.tensor([ids])).logits[0]
    found = torch.log_softmax(logits.float(), -1)
    return sum(float(found[at - 1, ids[at]]) for at in range(len(before), len(ids)))


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 4096])
def test_log_likelihoods_are_those_of_the_definition_whatever_the_batch(
    local: LocalModel, tokens_per_batch: int
) -> None:
    model = HarnessModel(local, tokens_per_batch)
    found = [value for value, _ in model.loglikelihood(requests("loglikelihood", CHOICES))]
    assert found == pytest.approx([by_hand(local, *pair) for pair in CHOICES], abs=1e-4)
    assert model.cut == 0


def test_log_likelihoods_of_short_weights_are_not_rounded_to_them(local: LocalModel) -> None:
    short = replace(local, model=copy.deepcopy(local.model).to(torch.bfloat16))
    model = HarnessModel(short, 64)
    found = [value for value, _ in model.loglikelihood(requests("loglikelihood", CHOICES))]
    assert any(value != float(torch.tensor(value).bfloat16()) for value in found)


def test_every_finished_request_is_told(local: LocalModel) -> None:
    model = HarnessModel(local, 64)
    heard: list[tuple[int, int]] = []
    model.on_progress = lambda done, total: heard.append((done, total))
    model.loglikelihood(requests("loglikelihood", CHOICES))
    assert heard == [(done, 4) for done in (1, 2, 3, 4)]


def answers(local: LocalModel, prompts: list[str], tokens_per_batch: int) -> list[str]:
    model = HarnessModel(local, tokens_per_batch)
    settings = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": 24}
    return model.generate_until(requests("generate_until", [(one, settings) for one in prompts]))


def test_an_answer_ends_where_the_model_stops_in_a_batch_as_alone(local: LocalModel) -> None:
    prompts = ["One", "Two, three", "Some other words"]
    free = answers(local, prompts, 4096)
    ids = local.chat.tokenizer(prompts[0] + free[0]).input_ids
    stopping = replace(local, stop_ids=(*local.stop_ids, ids[-8]))
    alone = [answers(stopping, [prompt], 4096)[0] for prompt in prompts]
    together = answers(stopping, prompts, 4096)
    assert together == alone
    assert any(len(ended) < len(whole) for ended, whole in zip(together, free, strict=True))


def test_what_does_not_fit_into_the_context_is_counted(local: LocalModel) -> None:
    model = HarnessModel(local, 4096)
    long = "many words " * 100
    model.loglikelihood(requests("loglikelihood", [(long, "x"), ("short", "x")]))
    assert model.cut == 1
    model.generate_until(requests("generate_until", [(long, {"until": ["\n"]})]))
    assert model.cut == 2


def test_a_choice_longer_than_the_context_is_refused(local: LocalModel) -> None:
    model = HarnessModel(local, 4096)
    with pytest.raises(ModelError, match="longer than the model's context of 320"):
        model.loglikelihood(requests("loglikelihood", [("a", "many words " * 100)]))


def test_a_context_without_room_for_an_answer_is_refused(tiny_base: Path) -> None:
    model = HarnessModel(load(str(tiny_base), "tulu"), 4096)
    with pytest.raises(ModelError, match="an answer may have 256 tokens"):
        model.generate_until(requests("generate_until", [("a", {"until": ["\n"]})]))


def test_a_tokenizer_without_an_end_is_refused(local: LocalModel) -> None:
    tokenizer = local.chat.tokenizer
    end = tokenizer.eos_token
    tokenizer.eos_token = None
    try:
        with pytest.raises(ModelError, match="end-of-sequence token"):
            HarnessModel(local, 64)
    finally:
        tokenizer.eos_token = end
