"""How probable a model finds each of a few labels as its reply: a judge that answers in numbers.

Labels such as the digits 0 to 9 are one token each, so a single forward pass per prompt gives the
probabilities of all of them, and their mean is a score without any text to parse.
"""

from collections.abc import Sequence

from response_tuning.artifacts import Message
from response_tuning.errors import ModelError, TemplateError
from response_tuning.judging import DIGITS
from response_tuning.likelihoods import Unscored
from response_tuning.models.likelihood import EncodedPair, logits_of
from response_tuning.models.local import LocalModel, PromptError


def label_probabilities(
    local: LocalModel,
    prompts: Sequence[tuple[Message, ...]],
    tokens_per_batch: int,
    labels: Sequence[str] = DIGITS,
) -> list[tuple[float, ...] | Unscored]:
    """Return p(label | prompt) for each prompt, renormalised over ``labels``.

    Raises:
        ModelError: the tokenizer does not write each label as one token of its own.
        EngineError: a batch does not fit into the GPU's memory.
    """
    import torch

    ids = _label_ids(local, labels)
    found: list[tuple[float, ...] | Unscored | None] = []
    scorable: list[tuple[int, EncodedPair]] = []
    for place, prompt in enumerate(prompts):
        prefix = _encoded(local, prompt)
        if isinstance(prefix, Unscored):
            found.append(prefix)
        else:
            found.append(None)
            # Whichever label: the logits that predict a reply do not depend on it.
            scorable.append((place, EncodedPair(prefix, ids[:1])))
    for index, logits in logits_of(local, [pair for _, pair in scorable], tokens_per_batch):
        shares = torch.softmax(logits[0, ids].double(), dim=-1)
        found[scorable[index][0]] = tuple(shares.tolist())
    return [one for one in found if one is not None]


def expected(probabilities: Sequence[float], values: Sequence[float] = range(10)) -> float:
    """Return the mean of ``values`` under the labels' probabilities: by default, of digits."""
    pairs = zip(probabilities, values, strict=True)
    return sum(probability * value for probability, value in pairs)


def _label_ids(local: LocalModel, labels: Sequence[str]) -> list[int]:
    written = [local.chat.encode_reply(label) for label in labels]
    for label, ids in zip(labels, written, strict=True):
        if len(ids) != 1:
            raise ModelError(
                f"{local.identity}: its tokenizer writes the label {label!r} as {len(ids)} tokens; "
                "use labels of one token each"
            )
    ids = [one for (one,) in written]
    if len({*ids}) < len(ids):
        raise ModelError(f"{local.identity}: its tokenizer writes two of the labels alike")
    return ids


def _encoded(local: LocalModel, prompt: tuple[Message, ...]) -> list[int] | Unscored:
    try:
        ids = local.chat.encode(local.chat.prompt(prompt))
        local.check_ids(ids)
    except (TemplateError, PromptError) as error:
        return Unscored(str(error))
    if local.context is not None and len(ids) + 1 > local.context:
        return Unscored(f"longer than the model's context of {local.context} tokens")
    return ids
