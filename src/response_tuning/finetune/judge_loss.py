"""Self-Judge: a judge with a reference teaches one without (Ye and Ng, arXiv 2409.00935).

Every judged answer is two documents of one model: T shows the reference, S does not. Both end in
the digit and the stop token. As in the published code (nusnlp/Self-J), the loss of a step is

    CE(T) + 0.3 CE(S) + 2 KL(p_T || p_S),

where p is the distribution over the whole vocabulary at the digit's position, and p_T has no
gradient. CE is a mean over the supervised tokens, KL one over the answers of the step.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from response_tuning.errors import DataError
from response_tuning.finetune.losses import DocumentLoss, Scored, Term
from response_tuning.finetune.steps import Document

DIGIT_AND_STOP = 2
"""Supervised tokens of each document."""


def judge_loss(with_weight: float, without_weight: float, kl_weight: float) -> DocumentLoss:
    """Return the loss of pairs, in which the document with the reference precedes the other one.

    Raises, where a step has other documents:
        DataError: the digit of a document is not one token with the stop token behind it.
    """

    def side(first: int) -> Term:
        def total(scored: Scored) -> Tensor:
            return scored.of_documents(scored.losses)[first::2].sum()

        name, weight = (("with_reference", with_weight), ("without_reference", without_weight))[
            first
        ]
        return Term(name, lambda documents: DIGIT_AND_STOP * _pairs(documents), total, weight)

    return DocumentLoss((side(0), side(1), Term("divergence", _pairs, divergence, kl_weight)))


def divergence(scored: Scored) -> Tensor:
    """Return the sum over pairs of KL(p_T || p_S) at the position of the digit."""
    of_digits = scored.logits[::DIGIT_AND_STOP]  # (documents, V)
    teacher, student = F.log_softmax(of_digits, dim=-1).view(-1, 2, of_digits.shape[-1]).unbind(1)
    teacher = teacher.detach()
    return F.kl_div(student, teacher, reduction="sum", log_target=True)


def _pairs(documents: Sequence[Document]) -> float:
    for document in documents:
        if document.supervised != DIGIT_AND_STOP:
            raise DataError(
                f"example {document.example + 1} has {document.supervised} tokens with a loss, and "
                "a judge has 2, its digit and the stop token; prepare the data with data.judging, "
                "leave train_on_final_newline off, and use a tokenizer with one token a digit"
            )
    return len(documents) / 2
