"""Direct preference optimization (DPO): Rafailov et al., arXiv 2305.18290, equation 7.

For a pair of a chosen answer w and a rejected answer l to one prompt x,

    loss = -log sigmoid(beta (log p(w|x)/p_ref(w|x) - log p(l|x)/p_ref(l|x))),

where p_ref is the model before training and log p(y|x) sums over the tokens of y, the stop token
included. Without prompts, x is the opening of a response: nothing else in the loss changes.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from response_tuning.finetune.losses import DocumentLoss, Scored, Term
from response_tuning.finetune.steps import Document


def preference_loss(beta: float, nll_weight: float = 0.0) -> DocumentLoss:
    """Return the loss of pairs, in which the chosen document precedes the rejected one.

    ``nll_weight`` adds the mean cross-entropy of the chosen answers' tokens. What is only logged:
    the mean margin (beta times the difference of the log-ratios), the share of pairs with a margin
    above 0, and both log-ratios. The chosen answers' log-ratio may fall while the margin grows.
    """

    def preference(scored: Scored) -> Tensor:
        chosen, rejected = log_ratios(scored)
        return -F.logsigmoid(beta * (chosen - rejected)).sum()

    def margin(scored: Scored) -> Tensor:
        chosen, rejected = log_ratios(scored)
        return beta * (chosen - rejected).sum()

    def accuracy(scored: Scored) -> Tensor:
        chosen, rejected = log_ratios(scored)
        return (chosen > rejected).float().sum()

    def tokens_of_chosen(documents: Sequence[Document]) -> float:
        return sum(document.total_weight for document in documents[::2])

    def nll(scored: Scored) -> Tensor:
        return scored.of_documents(scored.losses)[::2].sum()

    terms = [
        Term("preference", _pairs, preference),
        Term("margin", _pairs, margin, 0),
        Term("accuracy", _pairs, accuracy, 0),
        Term("chosen_log_ratio", _pairs, lambda scored: log_ratios(scored)[0].sum(), 0),
        Term("rejected_log_ratio", _pairs, lambda scored: log_ratios(scored)[1].sum(), 0),
    ]
    if nll_weight:
        terms.append(Term("nll", tokens_of_chosen, nll, nll_weight))
    return DocumentLoss(tuple(terms), needs_reference=True)


def log_ratios(scored: Scored) -> tuple[Tensor, Tensor]:
    """Return log p - log p_ref of the chosen and of the rejected documents, (pairs,) each."""
    ratios = scored.of_documents(-scored.losses) - scored.reference
    chosen, rejected = ratios.view(-1, 2).unbind(1)
    return chosen, rejected


def _pairs(documents: Sequence[Document]) -> float:
    return len(documents) / 2
