"""A pane whose model is in this process."""

import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

from response_tuning import templates
from response_tuning.artifacts import Sampling
from response_tuning.errors import ConfigError
from response_tuning.models import inference
from response_tuning.models.files import ADAPTER_CONFIG, kind
from response_tuning.models.local import Draft, LocalModel, PromptError
from response_tuning.models.location import locate, locate_base
from response_tuning.serve.playground.fingerprint import Fingerprint, recognised
from response_tuning.serve.playground.prompts import stretches
from response_tuning.serve.playground.records import (
    STOPPED,
    Answer,
    Ask,
    Listener,
    Reply,
    Started,
)
from response_tuning.serve.playground.surprise import TokenReading, read_tokens
from response_tuning.serve.playground.weights import SharedWeights
from response_tuning.serve.streaming import stream_reply


class Models:
    """The models in this process: each is loaded once, and freed with the last of its panes."""

    def __init__(self) -> None:
        self._loaded: WeakValueDictionary[str, SharedWeights] = WeakValueDictionary()
        self._loading = threading.Lock()

    def load(self, source: str, template: str | None) -> SharedWeights:
        """Load a model, unless it is loaded already.

        Raises:
            ModelError: it cannot be loaded.
            ConfigError: there is no such template.
            TemplateError: it has no chat template and ``template`` is None.
        """
        with self._loading:
            weights = self._loaded.get(source)
            if weights is None:
                local = inference.load(source, template)
                weights = SharedWeights(local, _base_of(source))
                self._loaded[source] = weights
            return weights

    def fingerprints(self) -> dict[str, Fingerprint]:
        """Return identity -> fingerprint of everything that is loaded."""
        loaded = [*self._loaded.values()]
        return {name: one for weights in loaded for name, one in weights.fingerprints.items()}


def _base_of(source: str) -> str | None:
    """Return the identity of an adapter's base; None for a model without an adapter."""
    folder = locate(source)
    is_adapter = kind(folder.path) == ADAPTER_CONFIG
    return locate_base(folder).identity if is_adapter else None


class LocalPane:
    """A pane of a model, an adapter or the shipped miniature."""

    kind = "local"

    def __init__(self, name: str, source: str, template: str | None, models: Models) -> None:
        """Load the model.

        Raises:
            ResponseTuningError: as ``Models.load``, or the template does not fit the model.
        """
        self.name = name
        self.source = source
        self._models = models
        self._weights = models.load(source, template)
        self._under: dict[str, LocalModel] = {}
        """Template -> the model under it."""
        self._opened_with = template or self._native()
        self.under(None)

    def about(self) -> dict[str, Any]:
        """Return what the page shows of the pane before it answers."""
        local = self.under(None)
        return {
            "name": self.name,
            "kind": self.kind,
            "source": self.source,
            "model": local.identity,
            "template": self._opened_with,
            "template_digest": local.chat.digest,
            "has_adapter": self._weights.has_adapter,
            "base": locate_base(locate(self.source)).source if self._weights.has_adapter else None,
            "context": local.context,
        }

    def under(self, template: str | None) -> LocalModel:
        """Return the model under a template; None is the one that the pane was opened with.

        Raises:
            ConfigError: there is no such template.
            TemplateError: the model cannot use it.
        """
        name = template or self._opened_with
        if name not in self._under:
            self._under[name] = inference.under_template(self._weights.local, self.source, name)
        return self._under[name]

    def answer(self, ask: Ask, listener: Listener) -> Reply:
        """Answer, piece by piece, until the reply ends or nobody listens.

        Raises:
            ResponseTuningError: the prompt cannot be rendered or does not fit, or the adapter of a
                model without one is switched off.
        """
        local = self.under(ask.template)
        adapter_on = self._adapter(ask)
        draft = _draft(local, ask)
        identity = self._weights.identities[adapter_on]
        listener.started(
            Started(
                model=identity,
                template=local.chat.digest,
                template_name=ask.template or self._opened_with,
                adapter=("on" if adapter_on else "off") if self._weights.has_adapter else "none",
                stretches=stretches(local.chat, ask.messages),
                prompt_tokens=len(draft.prompt),
            )
        )

        def continue_batch(rows: int, width: int) -> bool:
            if listener.is_stopped():
                return False
            self._weights.pass_on(adapter_on=adapter_on)
            return True

        with self._weights.turn(adapter_on=adapter_on):
            known = self._models.fingerprints()
            answered_by = recognised(self._weights.measured(), known, identity)
            ending = stream_reply(local, draft, listener.text, ask.sampling, continue_batch)
        text = ending.text if ending else local.text(draft.prompt, draft.generated)
        return Reply(
            text=text,
            finish_reason=ending.finish_reason if ending else "other",
            detail="" if ending else STOPPED,
            tokens=len(draft.generated),
            prompt_tokens=len(draft.prompt),
            ids=tuple(draft.generated),
            answered_by=answered_by,
        )

    def read(self, answer: Answer) -> list[TokenReading]:
        """Return how probable each token of an answer was, and what else there could have been.

        Raises:
            ResponseTuningError: the prompt does not fit.
        """
        template = None if answer.template_name == self._opened_with else answer.template_name
        local = self.under(template)
        prompt = local.draft(answer.prompt, Sampling(max_new_tokens=1)).prompt
        adapter_on = answer.adapter != "off"
        with self._weights.turn(adapter_on=adapter_on):
            return read_tokens(local, prompt, answer.ids)

    def _native(self) -> str:
        """Return the name of the model's own template: that of ours which it equals, if it does."""
        own = self._weights.local.chat
        for name in templates.TEMPLATES.names():
            # Installing one may put BOS in front of its text.
            alike = str(own.tokenizer.chat_template).endswith(templates.jinja(name))
            if alike and self.under(name).chat.digest == own.digest:
                return name
        return templates.NATIVE

    def _adapter(self, ask: Ask) -> bool:
        if ask.adapter == "off" and not self._weights.has_adapter:
            raise ConfigError(f"{self.name}: the model has no adapter to switch off")
        return ask.adapter == "on"


def _draft(local: LocalModel, ask: Ask) -> Draft:
    draft = local.draft(ask.messages, ask.sampling)
    draft.generated += _beginning(local, ask)
    room = None if local.context is None else local.context - len(draft.prompt)
    if room is not None and draft.generated and len(draft.generated) >= room:
        raise PromptError("the beginning of the reply leaves no room for more of it")
    # The limit counts the tokens that the model adds.
    limit = ask.sampling.max_new_tokens + len(draft.generated)
    draft.limit = limit if room is None else min(limit, room)
    return draft


def _beginning(local: LocalModel, ask: Ask) -> Sequence[int]:
    if ask.begin_ids and ask.begin_text:
        raise ConfigError("a reply begins with tokens or with words, not with both")
    ids = list(ask.begin_ids) or local.chat.encode_reply(ask.begin_text)
    local.check_ids(ids)
    return ids
