"""The rule adapter of Hewitt et al. 2024 (arXiv 2409.14254, section 6), for any local model.

Scores are added to the logits of the next token: up to a constant, these are the logits of
p_base x softmax(scores). They are added before a temperature divides the sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from response_tuning.artifacts import Message, digest
from response_tuning.errors import ConfigError
from response_tuning.models.local import Draft, LocalModel
from response_tuning.rules_config import RulesConfig
from response_tuning.templates import Chat

if TYPE_CHECKING:
    import torch

WHERE = "generate.rules"


@dataclass(frozen=True)
class Rules:
    """The rules for one model and its template.

    Raises:
        ConfigError: the template has no stop token, or a text of ``uniform`` is not one token.
    """

    config: RulesConfig
    local: LocalModel

    def __post_init__(self) -> None:
        if self.config.eos and not self.local.stop_ids:
            raise ConfigError(
                f"{WHERE}.eos: this template ends answers with text and has no stop token; use "
                "another template, or set eos=0"
            )
        _ = self.uniform

    @property
    def digest(self) -> str:
        """Identity of the settings, for completion keys."""
        return digest(self.config.model_dump_json())

    @cached_property
    def uniform(self) -> dict[int, float]:
        """Token id -> the score that it has at every step."""
        chat, config = self.local.chat, self.config
        tags = {chat.encode_reply(tag)[0]: config.tags for tag in _tags(chat) if config.tags}
        return tags | {_token(chat, text): score for text, score in config.uniform.items()}

    def __call__(self, drafts: Sequence[Draft], logits: "torch.Tensor") -> "torch.Tensor":
        """Return the logits (B, V) of the next token of each draft plus the scores of the rules."""
        import torch

        scores = torch.zeros_like(logits)
        for row, draft in enumerate(drafts):
            # Rule 3 adds to rule 2, and a token that occurs twice counts once.
            used = sorted({*self._counted(draft)})
            scores[row, used] += self.config.diversity
            if self.config.eos:
                scores[row, self.local.stop_ids[0]] += self.eos(len(draft.generated))
        tokens = torch.tensor([*self.uniform], dtype=torch.long, device=logits.device)
        scores[:, tokens] += torch.tensor([*self.uniform.values()]).to(scores)
        return logits + scores

    def eos(self, length: int) -> float:
        """Return the score of the stop token after ``length`` tokens of an answer."""
        if length >= self.config.span and self.config.published_bug:
            return 0.0
        return self.config.eos * min(length, self.config.span) / self.config.span

    def _counted(self, draft: Draft) -> Sequence[int]:
        """Return the tokens that rule 3 counts as used."""
        if not self.config.count_prompt:
            return draft.generated
        return [*draft.prompt[self._before_instruction :], *draft.generated]

    @cached_property
    def _before_instruction(self) -> int:
        """Tokens of a prompt up to the end of the first user's tag."""
        chat = self.local.chat
        return len(chat.encode(chat.marks + _user_tag(chat)))


def _token(chat: Chat, text: str) -> int:
    ids = chat.encode_reply(text)
    if len(ids) != 1:
        raise ConfigError(
            f"{WHERE}.uniform: {text!r} is {len(ids)} tokens of this model and must be one; give "
            "generate.rules.uniform without it, such as {'!': 1}"
        )
    return ids[0]


def _tags(chat: Chat) -> Iterator[str]:
    """Yield the texts that open a user's and the assistant's turn, without white space around."""
    for tag in (_user_tag(chat), chat.opening.removeprefix(chat.marks)):
        if tag.strip():
            yield tag.strip()


def _user_tag(chat: Chat) -> str:
    """Return what a prompt has between its marks and the first user's words."""
    words = "zwordsz"
    prompt = chat.prompt([Message(role="user", content=words)])
    return prompt.removeprefix(chat.marks).partition(words)[0]
