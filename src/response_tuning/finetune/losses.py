"""Losses over the documents of a step, for objectives that need more than cross-entropy.

The default loss is the mean of the tokens' cross-entropy, weighted by the objective's weights and
divided by their sum. An objective can bring a ``DocumentLoss`` instead: a sum of terms, each of
which sees the logits of a micro-batch and the documents that they belong to. Every term is divided
by its size in the whole step, summed over micro-batches and processes beforehand, so the loss does
not depend on how the step is split.

A preference loss over pairs, for instance, is one term:

    def total(scored):  # partners follow one another
        chosen, rejected = scored.of_documents(-scored.losses).view(-1, 2).unbind(1)
        return -F.logsigmoid(beta * (chosen - rejected)).sum()

    DocumentLoss((Term("preference", size=lambda documents: len(documents) / 2, total=total),))

``preference_loss`` has DPO's, which also compares with the model before training.

Whatever a term draws at random, it draws from ``Document.seed``; never from a generator that it
shares with other micro-batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from response_tuning.finetune.cross_entropy import cross_entropy, of_hidden
from response_tuning.finetune.steps import Document, Partners
from response_tuning.models.head import Deferred


@dataclass(frozen=True)
class Scored:
    """The supervised positions of a micro-batch, document after document; S of them."""

    logits: Tensor
    """(S, V), float32."""
    targets: Tensor
    """(S,): the tokens to predict."""
    weights: Tensor
    """(S,): the objective's weights of these tokens."""
    documents: Sequence[Document]
    references: Sequence[float] = ()
    """By the position of the example: see ``reference``."""

    @cached_property
    def losses(self) -> Tensor:
        """Return (S,): the cross-entropy of each token."""
        return F.cross_entropy(self.logits, self.targets, reduction="none")

    @cached_property
    def counts(self) -> list[int]:
        """Supervised positions of each document: ``torch.split`` takes them."""
        return [document.supervised for document in self.documents]

    @cached_property
    def reference(self) -> Tensor:
        """Return (documents,): their log-probabilities under the model before training."""
        values = [self.references[document.example] for document in self.documents]
        return torch.tensor(values, device=self.logits.device)

    def of_documents(self, values: Tensor) -> Tensor:
        """Sum ``values`` of (S,) over each document: (documents,)."""
        counts = torch.tensor(self.counts, device=values.device)
        owners = torch.repeat_interleave(counts)
        return values.new_zeros(len(counts)).index_add(0, owners, values)


class Term(NamedTuple):
    """One term of a loss: factor x total / size."""

    name: str
    """Its column in ``metrics.jsonl``, after ``term_``."""
    size: Callable[[Sequence[Document]], float]
    """What documents add to the divisor. Partners are among them together."""
    total: Callable[[Scored], Tensor]
    """The term's sum over a micro-batch, with a gradient."""
    factor: float = 1.0
    """0 only logs the term."""


def token_term(factor: float = 1.0) -> Term:
    """Return the default loss as a term, to add others to it."""

    def size(documents: Sequence[Document]) -> float:
        return sum(document.total_weight for document in documents)

    return Term("tokens", size, lambda scored: (scored.losses * scored.weights).sum(), factor)


class DocumentLoss(NamedTuple):
    """What an objective trains with instead of the tokens' weighted cross-entropy."""

    terms: tuple[Term, ...]
    partners: "Callable[[Sequence[int]], Partners] | None" = None
    """From the examples of the documents, draws new partners each epoch; None: fixed groups."""
    needs_reference: bool = False
    """Whether a term reads ``Scored.reference``."""


@dataclass
class MicroBatchLoss:
    """Stands in for a model's ``loss_function`` in training; knows the current micro-batch.

    The model calls it with logits alone. The trainer sets ``documents`` and ``weights`` before each
    forward pass: passing them through the model would hand them to every layer.
    """

    terms: tuple[Term, ...] = ()
    documents: Sequence[Document] = ()
    weights: Tensor | None = None
    sizes: list[float] = field(default_factory=list)
    """Divisors of the terms in this step, over all processes."""
    values: dict[str, Tensor] = field(default_factory=dict)
    """The terms of this step so far, on this process."""
    reference: Sequence[float] = ()
    """Log-probability of each example under the model before training, if a term needs it."""
    head: Deferred | None = None
    """The model's head, if the logits that the model hands over are its hidden states."""

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        vocab_size: int,
        num_items_in_batch: Any = None,  # noqa: ANN401 - a number or a tensor of one
        *,
        shift_labels: Tensor | None = None,
        **other: Any,  # noqa: ANN401 - whatever else the model's forward was given
    ) -> Tensor:
        """Return this micro-batch's part of the step's loss; see ``cross_entropy``."""
        if self.head is not None:
            assert self.head.is_unchanged(logits)
            assert shift_labels is not None
            return of_hidden(self.head, shift_labels, num_items_in_batch, self.weights)
        # Evaluation measures the tokens alone, whatever the loss in training.
        if not self.terms or shift_labels is None or not logits.requires_grad:
            return cross_entropy(
                logits,
                labels,
                vocab_size,
                num_items_in_batch,
                shift_labels=shift_labels,
                weights=self.weights,
                **other,
            )
        logits, targets = logits.view(-1, vocab_size).float(), shift_labels.view(-1)
        if not self.documents:
            return logits.sum()  # 0, of no rows; a process without documents has a backward pass
        weights = logits.new_ones(len(targets)) if self.weights is None else self.weights
        scored = Scored(logits, targets, weights, self.documents, self.reference)
        loss = logits.new_zeros(())
        for term, size in zip(self.terms, self.sizes, strict=True):
            value = term.total(scored) / (size or 1.0)
            self.values[term.name] = self.values.get(term.name, 0) + value.detach()
            loss = loss + term.factor * value if term.factor else loss
        return loss
