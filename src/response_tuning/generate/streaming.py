"""One answer of a chat completions server, piece by piece, for a person who watches."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import FinishReason, Message, Request, Sampling, cut
from response_tuning.configs import EngineConfig
from response_tuning.errors import EngineError
from response_tuning.generate import dialect
from response_tuning.generate.access import KEY_CHARACTERS, NO_KEY, access
from response_tuning.generate.chat_reply import FINISH_REASONS
from response_tuning.generate.engine import one_line
from response_tuning.generate.engines.openai import filter_of, redirect
from response_tuning.redaction import masked, redacted
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from openai import OpenAI


ALTERNATIVES = 6
"""Tokens that a server is asked for at each place."""
MAX_CHARACTERS = 8 * 2**20
"""A server that never ends is ended here."""
CONNECT_S = 10.0
_EXTRAS: dict[str, Any] = {
    "stream_options": {"include_usage": True},
    "logprobs": True,
    "top_logprobs": ALTERNATIVES,
}
"""Fields that only add to an answer; a server that rejects one is asked without it."""


class StreamedToken(NamedTuple):
    """A token of an answer, as far as the server says."""

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...]
    """(text, log-probability), the most probable first."""


class Streamed(NamedTuple):
    """A server's answer."""

    text: str
    finish_reason: FinishReason
    detail: str
    tokens: int | None
    prompt_tokens: int | None
    model: str
    """The server's name of the model; empty if it gives none."""
    readings: tuple[StreamedToken, ...]
    """Empty if the server gives no log-probabilities."""
    whole: bool
    """Whether it ended by itself; False if the user stopped it."""


class StreamingServer:
    """A chat completions server that streams.

    Args:
        config: Model, address and the variable of the key, as of the engine ``openai``.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
        EngineError: the environment variable with the key is not set.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._access = access(config)
        self._refused: frozenset[str] = frozenset()
        self._without: frozenset[str] = frozenset()
        """Fields of ``_EXTRAS`` that the server rejects."""

    def stream(
        self,
        messages: tuple[Message, ...],
        sampling: Sampling,
        write: Callable[[str], None],
        is_stopped: Callable[[], bool],
    ) -> Streamed:
        """Ask for one answer, and write its text as it arrives.

        Raises:
            EngineError: the server gives no answer, or not the whole of it.
        """
        from openai import APIError, APIStatusError

        request = Request(item_id="", prompt=messages)
        try:
            with self._client() as client:
                return self._answer(client, request, sampling, write, is_stopped)
        except APIStatusError as error:
            if 300 <= error.status_code < 400:
                raise EngineError(redirect(error)) from error
            raise EngineError(self._masked(f"{type(error).__name__}: {error}")) from error
        except APIError as error:
            cause = error.__cause__ or ""
            raise EngineError(self._masked(f"{type(error).__name__}: {error} {cause}")) from error

    def _client(self) -> "OpenAI":
        import httpx2
        from openai import OpenAI, Timeout

        seconds = self._config.timeout_s
        return OpenAI(
            api_key=self._access.api_key,
            base_url=self._config.base_url,
            max_retries=self._config.max_retries,
            timeout=Timeout(seconds, connect=min(seconds, CONNECT_S)),
            # Prompts and keys go to the address that the user gave, or nowhere.
            http_client=httpx2.Client(
                proxy=self._access.proxy, trust_env=False, follow_redirects=False
            ),
        )

    def _answer(
        self,
        client: "OpenAI",
        request: Request,
        sampling: Sampling,
        write: Callable[[str], None],
        is_stopped: Callable[[], bool],
    ) -> Streamed:
        key = self._access.api_key
        reply = _Reply(sampling, write, key if len(key) >= KEY_CHARACTERS else "")
        with self._opened(client, request, sampling) as chunks:
            for chunk in chunks:
                reply.receive(chunk)
                if is_stopped() or reply.is_cut or reply.is_too_long:
                    break
        notes = dialect.notes(self._refused, sampling)
        return reply.ended(notes, stopped=is_stopped())

    def _opened(self, client: "OpenAI", request: Request, sampling: Sampling) -> Any:  # noqa: ANN401
        """Open a stream without the fields that the server rejects."""
        from openai import BadRequestError, UnprocessableEntityError

        while True:
            extras = {name: one for name, one in _EXTRAS.items() if name not in self._without}
            sent = dialect.fields(request, sampling, self._refused)
            try:
                return client.chat.completions.create(
                    model=str(self._config.model), stream=True, **sent, **extras
                )
            except (BadRequestError, UnprocessableEntityError) as error:
                both = sent | extras
                field = dialect.refused_field(both, error.param, str(error))
                if field in extras:
                    # A server without log-probabilities has no use for their number either.
                    pair = {"logprobs", "top_logprobs"}
                    self._without |= pair if field in pair else {field}
                elif field is None or filter_of(error) or not dialect.can_omit(field, sampling):
                    raise
                else:
                    self._refused |= {field}

    def _masked(self, text: str) -> str:
        secret = self._access.api_key if self._access.api_key != NO_KEY else ""
        return one_line(printable(redacted(text, secret)))


class _Reply:
    """A reply that grows by the server's chunks."""

    def __init__(self, sampling: Sampling, write: Callable[[str], None], secret: str) -> None:
        self._stop = sampling.stop
        self._limit = sampling.max_new_tokens
        self._write = write
        self._secret = secret
        """The key, which a server may repeat; empty if there is none."""
        self._text = ""
        self._shown = 0
        """Characters written so far."""
        self._reason = ""
        self._model = ""
        self._usage: Any = None
        self._thought = False
        self._readings: list[StreamedToken] = []
        self.is_cut = False
        """Whether a stop string has ended it; some servers ignore them."""

    @property
    def is_too_long(self) -> bool:
        """Whether the server sends more than any answer has."""
        return len(self._text) > MAX_CHARACTERS

    def receive(self, chunk: Any) -> None:  # noqa: ANN401 - the SDK builds it from any JSON
        """Add a chunk; unknown shapes are passed over, as the SDK does not check them."""
        self._model = self._model or str(getattr(chunk, "model", None) or "")
        self._usage = getattr(chunk, "usage", None) or self._usage
        for choice in (getattr(chunk, "choices", None) or [])[:1]:
            delta = getattr(choice, "delta", None)
            text = getattr(delta, "content", None)
            if isinstance(text, str) and not self.is_cut:
                self._add(text)
            self._thought |= bool(getattr(delta, "reasoning_content", None))
            self._reason = str(getattr(choice, "finish_reason", None) or self._reason)
            self._readings += _readings(getattr(choice, "logprobs", None))

    def _add(self, text: str) -> None:
        self._text += text
        kept = cut(self._text, self._stop)
        if kept is not None:
            self._text, self.is_cut = kept, True
        self._show(held_back=_begun(self._text, self._secret))

    def _show(self, held_back: int) -> None:
        settled = self._masked(self._text[: len(self._text) - held_back])
        if len(settled) > self._shown:
            self._write(settled[self._shown :])
            self._shown = len(settled)

    def _masked(self, text: str) -> str:
        return masked(text, self._secret) if self._secret else text

    def ended(self, notes: list[str], *, stopped: bool) -> Streamed:
        """Return the answer.

        Raises:
            EngineError: the server ended the connection without a word.
        """
        tokens = getattr(self._usage, "completion_tokens", None)
        prompt_tokens = getattr(self._usage, "prompt_tokens", None)
        if not (self._text or self._reason or stopped or self.is_cut):
            raise EngineError("the server sent no answer")
        self._show(held_back=0)
        word = "stop" if self.is_cut else self._reason.strip().lower()
        finish = FINISH_REASONS.get(word)
        remarks = [] if finish else [f"finish_reason '{one_line(self._masked(word))}'"]
        if not word and isinstance(tokens, int):  # the count comes last, so the answer is whole
            finish, remarks = ("length" if tokens >= self._limit else "stop"), []
        elif not word:
            remarks = ["the server gave no reason for its end, so it may be cut short"]
        remarks += ["it thought first, which is not shown"] if self._thought else []
        return Streamed(
            text=self._masked(self._text),
            finish_reason=finish or "other",
            detail="; ".join([*remarks, *notes]),
            tokens=tokens if isinstance(tokens, int) else None,
            prompt_tokens=prompt_tokens if isinstance(prompt_tokens, int) else None,
            model=one_line(self._masked(self._model)),
            readings=tuple(self._readings),
            whole=not stopped,
        )


def _begun(text: str, secret: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of the secret."""
    lengths = range(min(len(secret) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(secret[:length])), 0)


def _readings(logprobs: Any) -> Iterator[StreamedToken]:  # noqa: ANN401 - the SDK's
    for one in getattr(logprobs, "content", None) or []:
        others = getattr(one, "top_logprobs", None) or []
        try:
            alternatives = tuple((str(each.token), float(each.logprob)) for each in others)
            yield StreamedToken(str(one.token), float(one.logprob), alternatives)
        except (AttributeError, TypeError, ValueError):
            return  # another dialect; the answer is as good without
