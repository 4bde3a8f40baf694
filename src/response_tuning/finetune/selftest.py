"""The self-test at start: on the loaded model, a step must equal its documents one by one.

A model that ignores document boundaries trains wrongly and looks healthy from outside. So before
training, the self-test compares the logits of a micro-batch with those of each document alone under
the model's stock attention.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

from response_tuning.errors import ModelError
from response_tuning.finetune import attention
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.steps import FLATTENED, PADDED, Batch, BatchLayout, Document
from response_tuning.models.checks import check_causal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Largest difference of a logit, relative to the largest logit, that rounding may explain; and by
# what factor a step without boundaries must exceed that, or the test would have no power.
LOGIT_TOLERANCE = {torch.float32: (1e-4, 10.0), torch.float64: (1e-6, 10.0)}
HALF_PRECISION = (5e-2, 2.0)

# What the code of a model raises if it cannot compute flattened documents.
_LAYOUT_ERRORS = (NotImplementedError, ValueError, TypeError, RuntimeError, KeyError, IndexError)


class Choice(NamedTuple):
    """The layout that a model is trained in, and why not the faster one."""

    layout: BatchLayout
    reason: str


def choose_layout(model: "PreTrainedModel", window: int) -> Choice:
    """Return the first layout, flattened before padded, that this model computes exactly.

    ``window`` is the length of the run's longest document in tokens: a sliding window that no
    document exceeds needs no test.

    Raises:
        ModelError: the model is exact in neither, or no causal language model.
    """
    was_training = model.training
    model.train(False)  # dropout would draw differently for a document alone
    try:
        check_causal(model, type(model).__name__)
        documents = _documents(model, window)
        alone = [_logits_alone(model, document) for document in documents]
        flattened_fault = _flattened_fault(model, documents, alone)
        if flattened_fault is None:
            return Choice(FLATTENED, "")
        padded_fault = _fault(model, PADDED, documents, alone)
    finally:
        model.train(was_training)
    if padded_fault is None:
        return Choice(PADDED, flattened_fault)
    raise ModelError(
        f"{type(model).__name__} cannot be trained exactly: flattened, {flattened_fault}; "
        f"padded, {padded_fault}"
    )


@contextmanager
def attending(model: "PreTrainedModel", layout: BatchLayout) -> Iterator[None]:
    """Give the model the attention that ``layout`` needs, and its own back afterwards."""
    if layout is not FLATTENED:
        yield
        return
    stock = model.config._attn_implementation
    model.set_attn_implementation(attention.ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(stock)


def arguments(batch: Batch) -> dict[str, Tensor | int | bool]:
    """Return what the model's forward takes for ``batch``: logits at supervised positions only.

    The logits come out as (supervised, V), and the model's own loss compares them with the
    labels of the next tokens.
    """
    inputs: dict[str, Tensor | int | bool] = dict(batch)
    labels = inputs.pop("shift_labels")
    assert isinstance(labels, Tensor)
    keep = labels != IGNORED
    # With a cache, packed positions are silently ignored by transformers' masks.
    return {
        **inputs,
        "logits_to_keep": keep,
        "labels": labels[keep],
        "shift_labels": labels[keep],
        "use_cache": False,
    }


def _documents(model: "PreTrainedModel", window: int) -> list[Document]:
    """Draw documents with holes in their supervision, one longer than the sliding window."""
    config = model.config.get_text_config()
    spans = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    outgrown = [span + 8 for span in spans if isinstance(span, int) and 0 < span < window]
    limit = getattr(config, "max_position_embeddings", None) or window
    generator = torch.Generator().manual_seed(0)
    documents = []
    for length in (9, 3, min(max([24, *outgrown]), limit), 14):
        ids = torch.randint(3, config.vocab_size, (length,), generator=generator).tolist()
        labels = [token if place % 3 else IGNORED for place, token in enumerate(ids)]
        documents.append(Document(ids, labels))
    return documents


@torch.no_grad()
def _logits_alone(model: "PreTrainedModel", document: Document) -> Tensor:
    """Return (T, V): the document by itself, everything as the model ships it."""
    ids = torch.tensor([document.input_ids], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0]
    return logits


def _tolerance(alone: Sequence[Tensor]) -> tuple[float, float]:
    """Return the entry for the precision in which the logits were computed."""
    return LOGIT_TOLERANCE.get(alone[0].dtype, HALF_PRECISION)


def _flattened_fault(
    model: "PreTrainedModel", documents: Sequence[Document], alone: Sequence[Tensor]
) -> str | None:
    with attending(model, FLATTENED), _counted_calls() as calls:
        fault = _fault(model, FLATTENED, documents, alone)
        layers = model.config.get_text_config().num_hidden_layers
        if fault is None and len(calls) != layers:
            fault = f"{len(calls)} of its {layers} layers use the attention interface"
        if fault is None:
            fault = _control_fault(model, documents, alone)
    return fault


def _control_fault(
    model: "PreTrainedModel", documents: Sequence[Document], alone: Sequence[Tensor]
) -> str | None:
    """Remove the boundaries: if the logits stay the same, agreement with them proves nothing."""
    one = Document(
        [token for document in documents for token in document.input_ids],
        [label for document in documents for label in document.labels],
    )
    rounding = _difference(model, FLATTENED.build(documents), documents, alone)
    without = _difference(model, FLATTENED.build([one]), documents, alone)
    ratio = _tolerance(alone)[1]
    if without < ratio * max(rounding, 1e-8):
        return "taking the document boundaries away changes nothing"
    return None


def _fault(
    model: "PreTrainedModel",
    layout: BatchLayout,
    documents: Sequence[Document],
    alone: Sequence[Tensor],
) -> str | None:
    """Return what is wrong with ``layout`` on this model, or None."""
    try:
        difference = _difference(model, layout.build(documents), documents, alone)
    except _LAYOUT_ERRORS as refusal:
        return str(refusal).splitlines()[0] if str(refusal) else type(refusal).__name__
    if not difference <= _tolerance(alone)[0]:
        return f"logits differ by {difference:.1e} of the largest from one document at a time"
    return None


@torch.no_grad()
def _difference(
    model: "PreTrainedModel",
    batch: Batch,
    documents: Sequence[Document],
    alone: Sequence[Tensor],
) -> float:
    """Return the largest difference of a supervised logit, relative to the largest logit."""
    on_device = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    logits = model(**arguments(on_device)).logits.float().reshape(-1, alone[0].shape[-1])
    # Both (S, V): `arguments` asks for the positions whose next token has a label.
    expected = torch.cat(
        [
            each.float()[[label != IGNORED for label in [*document.labels[1:], IGNORED]]]
            for each, document in zip(alone, documents, strict=True)
        ]
    )
    if logits.shape != expected.shape:
        return float("inf")
    return float((logits - expected).abs().max() / expected.abs().max())


@contextmanager
def _counted_calls() -> Iterator[list[int]]:
    """Count the calls of our attention inside the block: a forward pass makes one per layer."""
    calls: list[int] = []

    def counted(module: torch.nn.Module, *args: Tensor, **kwargs: object) -> object:
        calls.append(id(module))
        return attention.document_attention(module, *args, **kwargs)  # type: ignore[arg-type]

    AttentionInterface.register(attention.ATTENTION, counted)
    try:
        yield calls
    finally:
        AttentionInterface.register(attention.ATTENTION, attention.document_attention)
