"""Objectives: what an example becomes before it becomes tokens. The subject of the research.

An objective maps an example to segments of text and gives each a weight in the loss: any number of
segments, in any order. A row is their text as it stands, followed by the stop token. The objectives
here all learn the response; they differ in what precedes it, and in whether that carries loss too.

An objective is a function, or, if it has settings, partners or a loss term, an ``ObjectiveConfig``.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from response_tuning.artifacts import Example, Message
from response_tuning.configs import Config
from response_tuning.errors import ConfigError
from response_tuning.judging import DIGITS
from response_tuning.registry import Registry
from response_tuning.templates import Chat
from response_tuning.validation import build

if TYPE_CHECKING:
    from response_tuning.finetune.example_file import Examples
    from response_tuning.finetune.losses import DocumentLoss

IGNORED = -100
"""Label of a token that carries no loss."""


class Segment(NamedTuple):
    """A stretch of text that is tokenized on its own."""

    text: str
    weight: float
    """Weight of each of its tokens in the loss; ``False`` means 0 and ``True`` means 1."""
    rendered: bool | None = None
    """Whether the chat template printed the text, so that special tokens in it are special tokens.

    Defaults to whether the weight is 0. In text that is not rendered, no token is special: a
    response that quotes ``</s>`` does not end there.
    """
    hidden: tuple[int, int] | None = None
    """Bounds of characters of a prompt that are there and cannot be seen.

    Their tokens keep their positions, and no other token attends to them.
    """

    @property
    def is_prompt(self) -> bool:
        """Whether it is no text for the model to write, although it may carry loss."""
        return self.weight == 0 or bool(self.rendered)


def checked(segment: Segment, where: str) -> Segment:
    """Return ``segment`` with its weight as a number and ``rendered`` decided.

    Raises:
        ConfigError: its text or its weight is impossible.
    """
    text: Any = segment.text
    weight: Any = segment.weight
    if not isinstance(text, str):  # an instruction that is None, say
        raise ConfigError(f"{where}: a segment's text is {text!r}")
    if not isinstance(weight, (bool, int, float)) or not 0 <= weight < math.inf:
        raise ConfigError(
            f"{where}: a segment's weight is {weight!r}; use True, False or a number from 0"
        )
    rendered = weight == 0 if segment.rendered is None else segment.rendered
    if segment.hidden is not None:
        start, end = segment.hidden
        if weight or not rendered or not 0 <= start < end < len(text):
            raise ConfigError(
                f"{where}: hides characters {start} to {end} of a segment of {len(text)}; hide "
                "part of a prompt without loss, and leave its end to be seen"
            )
    return Segment(text, float(weight), rendered, segment.hidden)


class UnfitError(ValueError):
    """An example that an objective cannot use; the message is the reason that is counted."""


Another = Callable[[], Example]
"""Looks up the other example that the seed has drawn for this one; few objectives call it."""

Objective = Callable[[Example, Another, Chat], list[Segment]]
"""(example, its other one, chat template) -> segments."""


class ObjectiveConfig(Config):
    """An objective with settings: register the class, and each run builds its own instance.

    Users set the fields with ``finetune.objective_settings``. A subclass implements ``__call__``
    and overrides ``group`` or ``loss`` if it needs partners or another loss.
    """

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the segments of ``example``."""
        raise NotImplementedError

    def group(self, example: Example) -> int | None:
        """Return a number that ``example`` shares with its partners; None if it has none.

        Partners, such as the two responses of a preference pair, follow one another in the data.
        They are trained in one micro-batch, or dropped together.
        """
        return None

    def loss(self) -> "DocumentLoss | None":
        """Return the loss; None for the weighted cross-entropy of the tokens."""
        return None

    def loss_on(self, examples: "Examples", seed: int) -> "DocumentLoss | None":
        """Return the loss for a run on ``examples``; override it if the loss needs to know them."""
        return self.loss()

    @property
    def partners(self) -> int | None:
        """Examples that each group must have; None if any number will do."""
        return None

    @property
    def section(self) -> str | None:
        """The section of ``data`` that makes such groups, for an error to name."""
        return None


OBJECTIVES: Registry[Objective | type[ObjectiveConfig]] = Registry("objective")


def build_objective(name: str, settings: Mapping[str, Any] | None = None) -> Objective:
    """Return the objective called ``name`` with ``settings``.

    Raises:
        ConfigError: the name or a setting is unknown, or a value is impossible.
    """
    entry = OBJECTIVES.get(name)
    where = f"objective '{name}'"
    if isinstance(entry, type):
        return build(entry, dict(settings or {}), where)
    if settings:
        raise ConfigError(
            f"{where} has no settings; remove finetune.objective_settings ({', '.join(settings)})"
        )
    return entry


def loss_of(objective: Objective) -> "DocumentLoss | None":
    """Return the loss that an objective brings; None for the tokens' cross-entropy."""
    return objective.loss() if isinstance(objective, ObjectiveConfig) else None


def loss_on(objective: Objective, examples: "Examples", seed: int) -> "DocumentLoss | None":
    """Return the loss that an objective brings to a run on ``examples``."""
    return objective.loss_on(examples, seed) if isinstance(objective, ObjectiveConfig) else None


@OBJECTIVES.register("instruction-tuning")
def instruction_tuning(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | instruction), with earlier turns as context (paper, section 3)."""
    return [Segment(chat.prompt(_conversation(example)), False), Segment(example.response, True)]


@OBJECTIVES.register("response-tuning")
def response_tuning(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response): neither instruction nor user tag is ever shown (paper, section 3)."""
    return [Segment(chat.opening, False), Segment(example.response, True)]


@OBJECTIVES.register("response-tuning-empty-user")
def response_tuning_empty_user(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | an empty user turn): Hewitt et al., arXiv 2409.14254."""
    empty = [Message(role="user", content="")]
    return [Segment(chat.prompt(empty), False), Segment(example.response, True)]


@OBJECTIVES.register("shuffled-pairs")
def shuffled_pairs(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | someone else's instruction): the control in which pairing is wrong."""
    return [Segment(chat.prompt(_conversation(other())), False), Segment(example.response, True)]


@OBJECTIVES.register("decoupled")
def decoupled(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response) where its instruction is there but cannot be seen.

    Tokens and positions are those of instruction tuning; what can be seen is what response tuning
    shows: BOS, the assistant's opening and the response. So it differs from either in one thing.
    """
    prompt = chat.prompt(_conversation(example))
    opening = chat.opening.removeprefix(chat.marks)
    if not prompt.endswith(opening):
        raise UnfitError("the prompt does not end in the assistant's opening")
    hidden = (len(chat.marks), len(prompt) - len(opening))
    return [Segment(prompt, False, hidden=hidden), Segment(example.response, True)]


@OBJECTIVES.register("system-only")
def system_only(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | system message): the role and its rules, and no instruction.

    Without a system message it is response tuning.
    """
    system = [message for message in example.earlier if message.role == "system"]
    shown = chat.prompt(system) if system else chat.opening
    return [Segment(shown, False), Segment(example.response, True)]


@OBJECTIVES.register("weighted-instruction-tuning")
class WeightedInstructionTuning(ObjectiveConfig):
    """Learn the prompt too, at a lower weight: Chatterjee et al. (WIT), arXiv 2507.07817."""

    prompt_weight: float = Field(default=0.1, ge=0, le=1)
    """Weight of a prompt token; a response token weighs 1. At 0 this is instruction tuning."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the prompt as served, at ``prompt_weight``, and the response."""
        prompt = chat.prompt(_conversation(example))
        return [Segment(prompt, self.prompt_weight, rendered=True), Segment(example.response, 1)]


class _Preference(ObjectiveConfig):
    """Pairs of answers, of which the first was preferred; see ``preference_loss``."""

    beta: float = Field(default=0.1, gt=0)
    """How far the model may go from what it was: a larger value keeps it nearer."""
    nll_weight: float = Field(default=0.0, ge=0)
    """Weight of the cross-entropy of the preferred answers, beside the preference loss."""

    @property
    def partners(self) -> int:
        """A pair."""
        return 2

    @property
    def section(self) -> str:
        """The section that reads pairs."""
        return "preferences"

    def group(self, example: Example) -> int:
        """Return the row, whose two answers are a pair."""
        return example.row

    def loss(self) -> "DocumentLoss":
        """Return the preference loss with these settings."""
        from response_tuning.finetune.preference_loss import preference_loss

        return preference_loss(self.beta, self.nll_weight)


@OBJECTIVES.register("dpo")
class DirectPreference(_Preference):
    """Learn which of two answers to a prompt was preferred (DPO, arXiv 2305.18290)."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the prompt as served, and the response."""
        prompt = chat.prompt(_conversation(example))
        return [Segment(prompt, False), Segment(example.response, True)]


@OBJECTIVES.register("rt-dpo")
class ResponsePreference(_Preference):
    """Learn which of two answers was preferred, without their prompt (RT-DPO)."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the assistant's opening and the response."""
        return [Segment(chat.opening, False), Segment(example.response, True)]


class _Mixup(ObjectiveConfig):
    """Mix rows that a reference run was sure of with rows it was not; see ``mixup_loss``."""

    confidence: Path | None = None
    """``confidence.jsonl`` of a run with ``record_confidence`` on the same examples."""
    mu: float = Field(default=0.2, ge=0)
    """Weight of the mixtures. 0 keeps the order of the rows and mixes nothing: the baseline."""
    alpha: float = Field(default=0.5, gt=0)
    """Shares of a mixture are drawn from Beta(alpha, alpha)."""
    split: Literal["confidence", "random", "length"] = "confidence"
    """``length``: by confidence within each tenth of the lengths. ``random`` is a control."""
    tokens_weight: float = Field(default=1.0, gt=0)
    """Factor of the plain rows' loss: 1 + mu without mixtures is a control."""

    def loss(self) -> "DocumentLoss":
        """Return the loss without partners."""
        from response_tuning.finetune.mixup_loss import mixup_loss

        return mixup_loss(self.mu, self.alpha, None, self.tokens_weight)

    def loss_on(self, examples: "Examples", seed: int) -> "DocumentLoss":
        """Return the loss with partners from the confidence of ``examples``.

        Raises:
            ConfigError: no file of confidences is named.
            DataError: it is of other examples.
        """
        from response_tuning.finetune.confidence import read_confidence
        from response_tuning.finetune.mixup_loss import mixup_loss, split_partners

        if self.confidence is None:
            raise ConfigError(
                "a mixture needs the confidence of a reference run: tune one with "
                "finetune.record_confidence=true and set "
                "finetune.objective_settings.confidence=RUN/confidence.jsonl"
            )
        scores, lengths = read_confidence(self.confidence, examples)
        partners = split_partners(scores, lengths, self.split, seed)
        return mixup_loss(self.mu, self.alpha, partners, self.tokens_weight)


@OBJECTIVES.register("sftmix")
class InstructionMixup(_Mixup):
    """Instruction tuning with mixtures of responses (SFTMix, arXiv 2410.05248)."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the prompt as served, and the response."""
        prompt = chat.prompt(_conversation(example))
        return [Segment(prompt, False), Segment(example.response, True)]


@OBJECTIVES.register("rt-sftmix")
class ResponseMixup(_Mixup):
    """Response tuning with mixtures of responses."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the assistant's opening and the response."""
        return [Segment(chat.opening, False), Segment(example.response, True)]


@OBJECTIVES.register("self-judge")
class SelfJudge(ObjectiveConfig):
    """Learn to grade answers, and from grading with a reference to grade without (Self-Judge)."""

    with_weight: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy with the reference."""
    without_weight: float = Field(default=0.3, ge=0)
    """Weight of the cross-entropy without the reference."""
    kl_weight: float = Field(default=2.0, ge=0)
    """Weight of KL(with || without): 0 leaves two judges that share their weights."""

    @property
    def partners(self) -> int:
        """A prompt with the reference and one without."""
        return 2

    @property
    def section(self) -> str:
        """The section that makes both prompts."""
        return "judging"

    def group(self, example: Example) -> int:
        """Return the row, whose two prompts are partners."""
        return example.row

    def loss(self) -> "DocumentLoss":
        """Return the loss with these weights."""
        from response_tuning.finetune.judge_loss import judge_loss

        return judge_loss(self.with_weight, self.without_weight, self.kl_weight)

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the prompt as served, and the digit."""
        if example.response not in DIGITS:
            raise UnfitError("the response is no digit from 0 to 9 (see data.judging)")
        if len(chat.encode_reply(example.response)) != 1:
            raise UnfitError("the tokenizer does not write the digit as one token")
        return [
            Segment(chat.prompt(_conversation(example)), False),
            Segment(example.response, True),
        ]


def _conversation(example: Example) -> list[Message]:
    if example.instruction is None:
        raise UnfitError("no instruction")
    return [*example.earlier, Message(role="user", content=example.instruction)]
