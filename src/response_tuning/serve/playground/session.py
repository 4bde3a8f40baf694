"""What one playground holds: its panes, and every answer and vote, which are kept on disk."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from response_tuning.artifacts import Message
from response_tuning.errors import ConfigError
from response_tuning.journals import Journal
from response_tuning.registry import unknown
from response_tuning.serve.playground.records import Answer, Ask, Listener, PaneForm, Reply, Started
from response_tuning.serve.playground.surprise import TokenReading
from response_tuning.serve.playground.votes import Vote, Voted

ANSWERS, VOTES = "answers.jsonl", "votes.jsonl"
MAX_PANES = 5
"""A browser opens six connections to one server: each pane streams over one, and one stays free."""


class Pane(Protocol):
    """A model that answers on the page."""

    @property
    def name(self) -> str:
        """Name of the pane, and of the variant in scores."""
        ...

    def about(self) -> dict[str, Any]:
        """Return what the page shows of the pane before it answers."""
        ...

    def answer(self, ask: Ask, listener: Listener) -> Reply:
        """Answer, piece by piece, until the reply ends or nobody listens.

        Raises:
            ResponseTuningError: it cannot answer.
        """
        ...

    def read(self, answer: Answer) -> Sequence[TokenReading]:
        """Return a reading of each token of an answer.

        Raises:
            ResponseTuningError: it cannot.
        """
        ...


OpenPane = Callable[[PaneForm], Pane]
Presets = Mapping[str, Callable[[], Sequence[tuple[Message, ...]]]]
"""Name of a benchmark -> its first prompts, read when they are asked for."""


class Playground:
    """The panes, and what was answered and voted in ``folder``, now and earlier.

    Args:
        panes: In their order on the page.
        folder: Holds the journals of answers and votes.
        open_pane: Opens a further pane.
        presets: Prompts of benchmarks.
        voted: Called with all votes after each.
        key_variable: Environment variable of the servers' key.
    """

    def __init__(
        self,
        panes: Sequence[Pane],
        folder: Path,
        *,
        open_pane: OpenPane,
        presets: Presets,
        voted: Voted,
        key_variable: str = "OPENAI_API_KEY",
    ) -> None:
        """Read what is in ``folder``.

        Raises:
            ConfigError: two panes have one name, or there are too many.
            DataError: a journal is damaged.
        """
        self.panes: dict[str, Pane] = {}
        for pane in panes:
            self._add(pane)
        self.folder = folder
        self.presets = presets
        self.key_variable = key_variable
        self._open_pane = open_pane
        self._voted = voted
        self._saving = threading.Lock()
        self._answers = Journal(folder / ANSWERS, Answer)
        self._votes = Journal(folder / VOTES, Vote)
        self.running: dict[threading.Thread, Callable[[], None]] = {}
        """Thread that is answering -> what ends its answer."""
        self.answers = {answer.id: answer for answer in self._answers}
        self.votes = list(self._votes)

    def open(self, form: PaneForm) -> Pane:
        """Open a further pane.

        Raises:
            ResponseTuningError: its name is taken, there are too many, or it cannot be opened.
        """
        self._check_room(form.name)
        pane = self._open_pane(form)
        self._add(pane)
        return pane

    def close(self, name: str) -> None:
        """Take a pane off the page; its answers are kept.

        Raises:
            ConfigError: there is no such pane.
        """
        self.pane(name)
        del self.panes[name]

    def pane(self, name: str) -> Pane:
        """Return a pane by its name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.panes:
            raise unknown("pane", name, [*self.panes])
        return self.panes[name]

    def answer(self, ask: Ask, listener: Listener, identifier: str) -> Answer:
        """Have a pane answer, and keep the answer under an id of the caller's.

        Raises:
            ResponseTuningError: the pane cannot answer.
        """
        clock = _Clock(listener)
        reply = self.pane(ask.pane).answer(ask, clock)
        assert clock.start is not None  # a pane says what it answers before it does
        answer = Answer(
            id=identifier,
            pane=ask.pane,
            model=clock.start.model,
            template=clock.start.template,
            template_name=clock.start.template_name,
            adapter=clock.start.adapter,
            prompt=ask.messages,
            sampling=ask.sampling,
            begin_ids=ask.begin_ids,
            begin_text=ask.begin_text,
            response=reply.text,
            finish_reason=reply.finish_reason,
            detail=reply.detail,
            tokens=reply.tokens,
            prompt_tokens=reply.prompt_tokens,
            seconds=round(clock.passed(), 3),
            first_text_s=clock.first,
            ids=reply.ids,
            answered_by=reply.answered_by,
            readings=reply.readings,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._saving, self._answers.appending() as append:
            append(answer)
            self.answers[answer.id] = answer
        return answer

    def stop(self) -> None:
        """End all answers after their next token."""
        for end in [*self.running.values()]:
            end()

    def finish(self, seconds: float) -> None:
        """Wait until answers that were stopped are kept, for at most so many seconds each."""
        for thread in [*self.running]:
            thread.join(seconds)

    def find(self, identifier: str) -> Answer:
        """Return an answer by its id.

        Raises:
            ConfigError: there is none.
        """
        if identifier not in self.answers:
            raise ConfigError(f"answer {identifier!r}: there is none in {self.folder}")
        return self.answers[identifier]

    def vote(self, vote: Vote) -> None:
        """Keep a vote, and pass all of them on."""
        with self._saving, self._votes.appending(each_synced=True) as append:
            append(vote)
            self.votes.append(vote)
            self._voted(self.votes)

    def _add(self, pane: Pane) -> None:
        self._check_room(pane.name)
        self.panes[pane.name] = pane

    def _check_room(self, name: str) -> None:
        if name in self.panes:
            raise ConfigError(f"pane '{name}': the name is taken; give it another: NAME=MODEL")
        if len(self.panes) >= MAX_PANES:
            raise ConfigError(f"there are {MAX_PANES} panes already; close one")


class _Clock:
    """Passes on what a pane says, and takes the time."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._began = time.monotonic()
        self.start: Started | None = None
        self.first: float | None = None
        """Seconds until the first text."""

    def passed(self) -> float:
        return time.monotonic() - self._began

    def started(self, start: Started) -> None:
        self.start = start
        self._listener.started(start)

    def text(self, piece: str) -> None:
        if piece and self.first is None:
            self.first = round(self.passed(), 3)
        self._listener.text(piece)

    def is_stopped(self) -> bool:
        return self._listener.is_stopped()
