"""Weights that several panes share: one token at a time each, with the adapter on or off.

Whether an adapter is on is a state of the weights. So whoever computes with them holds their turn,
sets that state first, and passes the turn on after each token: panes of one model stream together.
Panes of different models do not wait for each other.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from response_tuning.models.decoding import Weights
from response_tuning.models.local import LocalModel
from response_tuning.serve.playground.fingerprint import Fingerprint, fingerprint


class SharedWeights:
    """The weights of one loaded model, and what identifies them.

    Args:
        local: The loaded model.
        base: Identity of the model without its adapter; None if it has no adapter.
    """

    def __init__(self, local: LocalModel, base: str | None) -> None:
        self.local = local
        self.has_adapter = base is not None
        self.identities = {True: local.identity} | ({False: base} if base is not None else {})
        """Whether the adapter is on -> identity. Without an adapter, there is the one."""
        self._model: Weights = local.model
        self._adapter_is_on = True
        self._turns = _Turns()
        self.fingerprints: dict[str, Fingerprint] = {}
        """Identity -> what these weights compute, as measured right after they were loaded."""
        for adapter_on, identity in self.identities.items():
            with self.turn(adapter_on=adapter_on):
                self.fingerprints[identity] = self.measured()

    @contextmanager
    def turn(self, *, adapter_on: bool) -> Iterator[None]:
        """Wait for the turn, set the adapter's state, and hold both until the block ends."""
        with self._turns:
            self._set(adapter_on)
            yield

    def pass_on(self, *, adapter_on: bool) -> None:
        """Let the others have their turn, and wait for the next one. The caller holds the turn."""
        self._turns.release()
        self._turns.acquire()
        self._set(adapter_on)

    def measured(self) -> Fingerprint:
        """Return what the weights compute now. The caller holds the turn."""
        return fingerprint(self._model, self.local.rows)

    def _set(self, adapter_on: bool) -> None:
        if not self.has_adapter or adapter_on == self._adapter_is_on:
            return
        # What ``PeftModel.disable_adapter`` does, which would hold the state for a whole answer.
        if adapter_on:
            self._model.base_model.enable_adapter_layers()
        else:
            self._model.base_model.disable_adapter_layers()
        self._adapter_is_on = adapter_on


class _Turns:
    """A lock that is fair: Python's own goes to whoever asks at the right moment."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def acquire(self) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket)

    def release(self) -> None:
        with self._changed:
            self._waiting.popleft()
            self._changed.notify_all()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
