from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from response_tuning.errors import ModelError
from response_tuning.finetune import attention, selftest, steps
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.selftest import arguments, attending, choose_layout
from response_tuning.finetune.steps import FLATTENED, PADDED, BatchLayout, Document

FLAT = ["llama", "mistral", "gemma2", "gemma3", "qwen3", "olmo2", "gpt-neox", "phi3", "gpt2"]
NOT_FLAT = ["qwen3.5", "gpt-oss", "bloom", "mpt", "gptj", "stablelm", "falcon-h1"]


def documents() -> list[Document]:
    """Nine documents of 6 to 70 tokens with holes in their supervision."""
    generator = torch.Generator().manual_seed(1)
    drawn = []
    for length in (6, 70, 13, 24, 9, 41, 17, 33, 8):
        ids = torch.randint(3, 128, (length,), generator=generator).tolist()
        drawn.append(Document(ids, [t if i % 4 else IGNORED for i, t in enumerate(ids)]))
    return drawn


def gradients(model: Any) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def one_by_one(model: Any) -> tuple[float, dict[str, Tensor]]:
    """Mean loss over all supervised tokens: each document alone, stock attention, all logits."""
    total, count = 0.0, sum(label != IGNORED for d in documents() for label in d.labels[1:])
    for document in documents():
        ids, labels = torch.tensor([document.input_ids]), torch.tensor([document.labels])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum") / count
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, gradients(model)


def as_step(
    model: Any, layout: BatchLayout, budget: int, of: Sequence[Document] = ()
) -> tuple[float, dict[str, Tensor]]:
    of = of or documents()
    total, count = 0.0, sum(label != IGNORED for d in of for label in d.labels[1:])
    with attending(model, layout):
        for batch in layout.micro_batches(of, budget):
            loss = model(**arguments(batch), num_items_in_batch=count).loss
            loss.backward()
            total += float(loss.detach())
    return total, gradients(model)


@pytest.mark.parametrize("budget", [100, 10_000])
@pytest.mark.parametrize("name", FLAT + NOT_FLAT)
def test_a_step_has_the_loss_and_gradients_of_its_documents_one_by_one(
    build: Callable[[str], Any], name: str, budget: int
) -> None:
    model = build(name)
    model.train(False)
    layout = choose_layout(model, window=70).layout
    assert layout is (FLATTENED if name in FLAT else PADDED)
    expected_loss, expected = one_by_one(model)
    loss, found = as_step(model, layout, budget)
    assert abs(loss - expected_loss) < 5e-6
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        difference = float((found[parameter] - gradient).abs().max())
        assert difference < 1e-6, parameter


HIDING = [
    ([1, 4], range(2, 9), 16),
    ([1, 5], range(1, 50), 60),
    ([7], range(3, 4), 8),
    ([1, 9], range(2, 30), 41),
]
"""Rows: how they begin, which tokens are hidden, how many they have in all."""
OPENING = 3
"""Tokens between hidden text and the first token with loss."""


def rows_with_hidden_text(seed: int = 3) -> list[tuple[list[int], range]]:
    """Rows that differ between seeds in their hidden text alone."""
    fixed, free = (torch.Generator().manual_seed(one) for one in (2, seed))
    drawn = []
    for start, hidden, length in HIDING:
        ids = [*start, *torch.randint(3, 128, (length - len(start),), generator=fixed).tolist()]
        ids[hidden.start : hidden.stop] = torch.randint(
            3, 128, (len(hidden),), generator=free
        ).tolist()
        drawn.append((ids, hidden))
    return drawn


def seen(ids: list[int], hidden: range) -> Document:
    positions = [place for place in range(len(ids)) if place not in hidden]
    first = hidden.stop + OPENING
    labels = [ids[place] if place >= first else IGNORED for place in positions]
    return Document([ids[place] for place in positions], labels, positions=positions)


def masked(model: Any, seed: int = 3) -> tuple[float, dict[str, Tensor]]:
    """The definition, written out: whole rows, eager attention, and for each query a list of keys.

    A token after hidden text sees none of it, the tokens between it and the response included.
    """
    rows, total = rows_with_hidden_text(seed), 0.0
    count = sum(len(ids) - hidden.stop - OPENING for ids, hidden in rows)
    window = getattr(model.config, "sliding_window", None)
    model.set_attn_implementation("eager")
    for ids, hidden in rows:
        masks = {}
        for kind, reach in (("full_attention", len(ids)), ("sliding_attention", window)):
            mask = torch.full((1, 1, len(ids), len(ids)), torch.finfo(torch.float32).min)
            for query in range(len(ids)):
                for key in range(max(0, query + 1 - (reach or len(ids))), query + 1):
                    if key not in hidden or query in hidden:
                        mask[0, 0, query, key] = 0
            masks[kind] = mask
        kinds = set(getattr(model.config, "layer_types", None) or ["sliding_attention"])
        given = masks if len(kinds) > 1 else masks[kinds.pop()]
        logits = model(input_ids=torch.tensor([ids]), attention_mask=given, use_cache=False).logits
        first = hidden.stop + OPENING
        targets = torch.tensor(ids[first:])
        loss = torch.nn.functional.cross_entropy(
            logits[0, first - 1 : -1].float(), targets, reduction="sum"
        )
        (loss / count).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach()) / count
    return total, gradients(model)


def hidden_step(
    model: Any, layout: BatchLayout, budget: int, seed: int = 3
) -> tuple[float, dict[str, Tensor]]:
    return as_step(model, layout, budget, [seen(*row) for row in rows_with_hidden_text(seed)])


@pytest.mark.parametrize("budget", [20, 10_000])
@pytest.mark.parametrize("name", [*FLAT, "gptj", "stablelm"])
def test_a_step_without_hidden_text_has_the_loss_and_gradients_of_a_mask_over_it(
    build: Callable[[str], Any], name: str, budget: int
) -> None:
    model = build(name)
    model.train(False)
    layout = choose_layout(model, window=70, hides_text=True).layout
    assert layout is (FLATTENED if name in FLAT else PADDED)
    loss, found = hidden_step(model, layout, budget)
    if name == "gptj":  # it takes no other attention
        model.set_attn_implementation = lambda _: None
    expected_loss, expected = masked(model)
    assert abs(loss - expected_loss) < 5e-6
    assert found.keys() == expected.keys()
    for parameter, gradient in expected.items():
        assert float((found[parameter] - gradient).abs().max()) < 2e-6, parameter


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_other_hidden_text_changes_no_bit_of_a_step_but_shown_it_does(
    build: Callable[[str], Any], name: str
) -> None:
    model = build(name)
    model.train(False)
    assert hidden_step(model, FLATTENED, 100, seed=3)[0] == hidden_step(model, FLATTENED, 100, 4)[0]
    assert masked(model, seed=3)[0] == masked(model, seed=4)[0]
    shown = [
        as_step(
            model,
            FLATTENED,
            100,
            [
                seen(ids, hidden)._replace(
                    input_ids=ids,
                    labels=[IGNORED] * (hidden.stop + OPENING) + ids[hidden.stop + OPENING :],
                    positions=None,
                )
                for ids, hidden in rows_with_hidden_text(seed)
            ],
        )[0]
        for seed in (3, 4)
    ]
    assert abs(shown[0] - shown[1]) > 0.01


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bloom", "it takes no mask over hidden text"),
        ("mpt", "padded, logits differ by .* from those with the text masked"),
        ("gpt-oss", "padded, logits differ by .* from those with the text masked"),
        ("falcon-h1", "what a mask hides from attention reaches its logits in another way"),
    ],
)
def test_a_model_that_hides_no_text_exactly_is_refused(
    build: Callable[[str], Any], name: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=f"trained exactly with hidden text: .*{reason}"):
        choose_layout(build(name), window=70, hides_text=True)


def test_a_step_that_closes_the_gap_of_hidden_text_is_found_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "_positions", lambda document: range(len(document.input_ids)))
    with pytest.raises(ModelError, match=r"flattened, logits differ by .* the text masked"):
        choose_layout(build("llama"), window=70, hides_text=True)


def test_a_step_that_shows_hidden_text_is_found_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(ids: list[int], hidden: range) -> Document:
        first = hidden.stop + 1
        return Document(ids, [IGNORED] * first + ids[first:])

    monkeypatch.setattr(selftest, "_without_hidden_text", shown)
    with pytest.raises(ModelError, match=r"flattened, logits differ by .* the text masked"):
        choose_layout(build("llama"), window=70, hides_text=True)


def test_an_opening_that_passes_hidden_text_on_is_found_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = selftest._masks

    def leaking(model: Any, count: int, hidden: range) -> Any:
        mask = real(model, count, hidden)
        assert isinstance(mask, Tensor)
        mask[0, 0, hidden.stop, : hidden.stop] = 0  # only the first token after the hidden text
        return mask

    monkeypatch.setattr(selftest, "_masks", leaking)
    with pytest.raises(ModelError, match="flattened, what a mask hides"):
        choose_layout(build("llama"), window=70, hides_text=True)


def test_a_window_that_does_not_count_hidden_tokens_is_found_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = attention.document_attention

    def short(*args: Any, document_positions: Tensor | None = None, **kwargs: Any) -> Any:
        return real(*args, **kwargs)

    monkeypatch.setattr(attention, "document_attention", short)
    with pytest.raises(ModelError, match=r"flattened, logits differ by .* the text masked"):
        choose_layout(build("gemma3"), window=70, hides_text=True)


def test_hidden_text_that_changes_nothing_when_shown_proves_nothing(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = selftest._masked_logits
    monkeypatch.setattr(
        selftest, "_masked_logits", lambda model, ids, _: real(model, ids, range(2, len(ids) - 6))
    )
    with pytest.raises(ModelError, match="flattened, showing the hidden text changes nothing"):
        choose_layout(build("llama"), window=70, hides_text=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt-oss", "does not implement s_aux"),
        ("qwen3.5", "packed sequences"),
        ("bloom", "logits differ"),
        ("mpt", "logits differ"),
        ("gptj", "0 of its 2 layers"),
        ("stablelm", "without document boundaries"),
        ("falcon-h1", "logits differ"),
    ],
)
def test_why_a_model_is_not_flattened_is_said(
    build: Callable[[str], Any], name: str, reason: str
) -> None:
    choice = choose_layout(build(name), window=64)
    assert choice.layout is PADDED
    assert reason in choice.reason


def test_the_models_own_attention_is_given_back(build: Callable[[str], Any]) -> None:
    model = build("gemma2")
    before = model.config._attn_implementation
    choose_layout(model, window=64)
    assert model.config._attn_implementation == before
    assert model.training


def test_an_attention_that_forgets_the_sliding_window_is_found_out(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = attention.document_attention

    def forgetful(*args: Any, sliding_window: int | None = None, **kwargs: Any) -> Any:
        return real(*args, **kwargs)

    monkeypatch.setattr(attention, "document_attention", forgetful)
    choice = choose_layout(build("mistral"), window=64)
    assert choice.layout is PADDED
    assert "logits differ" in choice.reason


def test_a_window_that_no_document_outgrows_is_not_tested(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = selftest._documents(build("mistral"), window=16)
    assert max(len(document.input_ids) for document in drawn) == 24
    drawn = selftest._documents(build("mistral"), window=17)
    assert max(len(document.input_ids) for document in drawn) == 24
    model = build("mistral")
    model.config.sliding_window = 40
    drawn = selftest._documents(model, window=64)
    assert max(len(document.input_ids) for document in drawn) == 48


def test_a_model_that_is_exact_in_neither_layout_is_refused(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftest, "_difference", lambda *_: 0.5)
    with pytest.raises(ModelError, match="cannot be trained exactly"):
        choose_layout(build("llama"), window=64)


def test_boundaries_that_change_nothing_prove_nothing(
    build: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama")
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    choice = choose_layout(model, window=64)
    assert "changes nothing" in choice.reason


def test_a_small_fresh_model_passes(tiny_base: Any) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert choose_layout(model, window=64).layout is FLATTENED
