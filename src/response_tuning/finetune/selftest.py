"""The self-test at start: on the loaded model, a step must equal its documents alone.

A model that ignores document boundaries trains wrongly and looks healthy from outside. So before
training, the self-test compares the logits of a micro-batch with the logits of each document alone
under the model's stock attention.

A step leaves hidden text out. If a run has some, the self-test puts it back and hides it by a mask:
the logits must be the same, and must not depend on what the hidden text is.
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
# Hidden text has a probability of exactly 0 in attention, so other hidden text changes no bit.
SAME_LOGITS = 1e-6

# What the code of a model raises if it cannot compute flattened documents.
_LAYOUT_ERRORS = (NotImplementedError, ValueError, TypeError, RuntimeError, KeyError, IndexError)


_Row = tuple[list[int], range]
"""Token ids, and which of them are hidden."""
_SUPERVISED = 5
"""Tokens with loss at the end of such a row."""


class Choice(NamedTuple):
    """The layout that a model is trained in, and why not the faster one."""

    layout: BatchLayout
    reason: str


def choose_layout(model: "PreTrainedModel", window: int, *, hides_text: bool = False) -> Choice:
    """Return the first layout, flattened before padded, that this model computes exactly.

    ``window`` is the length of the run's longest document in tokens: a sliding window that no
    document exceeds needs no test. ``hides_text`` says whether documents have hidden text.

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
        if hides_text:
            flattened_fault = flattened_fault or _hiding_fault(model, FLATTENED, window)
        if flattened_fault is None:
            return Choice(FLATTENED, "")
        padded_fault = _fault(model, PADDED, documents, alone)
        if hides_text:
            padded_fault = padded_fault or _hiding_fault(model, PADDED, window)
    finally:
        model.train(was_training)
    if padded_fault is None:
        return Choice(PADDED, flattened_fault)
    what = " with hidden text" if hides_text else ""
    raise ModelError(
        f"{type(model).__name__} cannot be trained exactly{what}: flattened, {flattened_fault}; "
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
    generator = torch.Generator().manual_seed(0)
    documents = []
    for length in (9, 3, _outgrown(model, window), 14):
        ids = _drawn(model, length, generator)
        labels = [token if place % 3 else IGNORED for place, token in enumerate(ids)]
        documents.append(Document(ids, labels))
    return documents


def _outgrown(model: "PreTrainedModel", window: int) -> int:
    """Return a length in tokens beyond the sliding windows that documents of ``window`` exceed."""
    config = model.config.get_text_config()
    spans = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    outgrown = [span + 8 for span in spans if isinstance(span, int) and 0 < span < window]
    limit = getattr(config, "max_position_embeddings", None) or window
    return min(max([24, *outgrown]), limit)


def _drawn(model: "PreTrainedModel", length: int, generator: torch.Generator) -> list[int]:
    size = model.config.get_text_config().vocab_size
    ids: list[int] = torch.randint(3, size, (length,), generator=generator).tolist()
    return ids


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
def _step_logits(model: "PreTrainedModel", batch: Batch) -> Tensor:
    """Return (S, V): the supervised logits of a micro-batch."""
    on_device = {
        name: value.to(model.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    logits: Tensor = model(**arguments(on_device)).logits
    return logits.flatten(end_dim=-2)


def _relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a logit, relative to the largest logit."""
    found, expected = found.float(), expected.float()
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max())


def _difference(
    model: "PreTrainedModel",
    batch: Batch,
    documents: Sequence[Document],
    alone: Sequence[Tensor],
) -> float:
    """Return the largest difference of a supervised logit from those of documents alone."""
    # Both (S, V): `arguments` asks for the positions whose next token has a label.
    expected = torch.cat(
        [
            each.float()[[label != IGNORED for label in [*document.labels[1:], IGNORED]]]
            for each, document in zip(alone, documents, strict=True)
        ]
    )
    return _relative(_step_logits(model, batch), expected)


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


def _hiding_fault(model: "PreTrainedModel", layout: BatchLayout, window: int) -> str | None:
    """Return why a step without hidden text is not the same as one in which it is masked."""
    rows, others = _rows_with_hidden_text(model, window)
    documents = [_without_hidden_text(ids, hidden) for ids, hidden in rows]
    try:
        masked = [_masked_logits(model, ids, hidden) for ids, hidden in rows]
        masked_others = [_masked_logits(model, ids, hidden) for ids, hidden in others]
        shown = [_masked_logits(model, ids, range(0)) for ids, _ in rows]
        with attending(model, layout):
            step = _step_logits(model, layout.build(documents))
    except _LAYOUT_ERRORS as refusal:
        return f"it takes no mask over hidden text ({next(iter(str(refusal).splitlines()), '')})"
    expected = torch.cat(masked)
    tolerance, ratio = _tolerance(masked)
    if _relative(torch.cat(masked_others), expected) > SAME_LOGITS:
        return "what a mask hides from attention reaches its logits in another way"
    rounding = _relative(step, expected)
    if not rounding <= tolerance:
        return f"logits differ by {rounding:.1e} of the largest from those with the text masked"
    if _relative(torch.cat(shown), expected) < ratio * max(rounding, 1e-8):
        return "showing the hidden text changes nothing"
    return None


def _rows_with_hidden_text(model: "PreTrainedModel", window: int) -> tuple[list[_Row], list[_Row]]:
    """Draw rows, one longer than the sliding window, and the same with other hidden text."""
    generator = torch.Generator().manual_seed(1)
    rows, others = [], []
    for length in (16, _outgrown(model, window)):
        ids, hidden = _drawn(model, length, generator), range(2, length - _SUPERVISED - 1)
        other = [*ids[:2], *_drawn(model, len(hidden), generator), *ids[hidden.stop :]]
        rows.append((ids, hidden))
        others.append((other, hidden))
    return rows, others


def _without_hidden_text(ids: list[int], hidden: range) -> Document:
    """Return what a step computes of a row: its last tokens carry loss."""
    positions = [*range(hidden.start), *range(hidden.stop, len(ids))]
    seen = [ids[position] for position in positions]
    labels = [IGNORED] * (hidden.start + 1) + seen[hidden.start + 1 :]
    return Document(seen, labels, positions=positions)


@torch.no_grad()
def _masked_logits(model: "PreTrainedModel", ids: list[int], hidden: range) -> Tensor:
    """Return (S, V): the supervised logits of a whole row, with its hidden text masked."""
    kept = torch.arange(len(ids) - _SUPERVISED - 1, len(ids) - 1, device=model.device)
    stock = model.config._attn_implementation
    model.set_attn_implementation("eager")  # kernels without a mask would ignore it
    try:
        logits: Tensor = model(
            input_ids=torch.tensor([ids], device=model.device),
            attention_mask=_masks(model, len(ids), hidden),
            position_ids=torch.arange(len(ids), device=model.device)[None],
            logits_to_keep=kept,
            use_cache=False,
        ).logits[0]
    finally:
        model.set_attn_implementation(stock)
    return logits


def _masks(model: "PreTrainedModel", count: int, hidden: range) -> Tensor | dict[str, Tensor]:
    """Return what eager attention adds to its scores, (1, 1, T, T), for each kind of layer."""
    config = model.config.get_text_config()
    place = torch.arange(count, device=model.device)
    ahead = place[:, None] - place[None, :]
    is_hidden = (place >= hidden.start) & (place < hidden.stop)
    # Hidden text sees what precedes it: a softmax over nothing is no number.
    allowed = (ahead >= 0) & (is_hidden[:, None] | ~is_hidden[None, :])
    near = allowed & (ahead < (getattr(config, "sliding_window", None) or count))

    def added(allowed: Tensor) -> Tensor:
        zeros = torch.zeros(allowed.shape, dtype=model.dtype, device=model.device)
        return zeros.masked_fill(~allowed, torch.finfo(model.dtype).min)[None, None]

    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    masks = {kind: added(near if kind == "sliding_attention" else allowed) for kind in kinds}
    return masks if len(masks) > 1 else masks.popitem()[1]
