"""Judges: a model behind an engine, or the offline rules."""

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.configs import EngineConfig, JudgeConfig
from response_tuning.errors import ResponseTuningError
from response_tuning.grade.benchmark import OFFLINE, AskJudge
from response_tuning.registry import unknown
from response_tuning.workflows.generate import Sampler

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.generate import Engine


class Judge:
    """The judge of a run. Its model is loaded with the first question.

    With ``retry_filtered`` it is asked again about what a content filter withheld.

    Raises:
        ConfigError: its engine or a setting is unknown or impossible.
        EngineError: there is no key for its server.
    """

    def __init__(
        self, config: JudgeConfig, console: "Console", *, retry_filtered: bool = False
    ) -> None:
        self.config = config
        self.retry_filtered = retry_filtered
        self._console = console
        check_judge(config)

    @cached_property
    def engine(self) -> "Engine":
        """Load or connect to the judge's model."""
        from response_tuning.generate import open_engine

        return open_engine(self.config.engine, self.config.settings)

    def with_journal(self, journal: Path, label: str) -> AskJudge | None:
        """Return a function that asks the judge and appends its replies to ``journal``.

        None for the offline judge. ``label`` names the benchmark on the progress bar.
        """
        if self.config.engine == OFFLINE:
            return None
        sampling = Sampling(**self.config.model_dump(include={"max_new_tokens", "temperature"}))

        def ask(requests: Iterable[Request]) -> Iterator[Completion]:
            sampler = Sampler(self.engine, sampling, self._console, self.retry_filtered)
            return sampler.complete(requests, journal, f"verdicts on {label}")

        return ask


def check_judge(config: JudgeConfig) -> None:
    """Refuse a judge that cannot be asked; see ``check_engine``."""
    from response_tuning.generate import ENGINES

    if config.engine == OFFLINE:
        return
    if config.engine not in ENGINES.names():
        raise unknown("judge", config.engine, [OFFLINE, *ENGINES.names()])
    try:
        check_engine(config.engine, config.settings)
        if config.engine == "hf":
            _check_local(config.settings)
    except ResponseTuningError as error:
        # Engines name the flags of 'rtune generate'; the flags of a judge have other names.
        raise type(error)(_ENGINE_FLAG.sub(_judge_flag, str(error))) from error


def _check_local(settings: EngineConfig) -> None:
    """Refuse a judge that is not there, or has no such template; asks no network."""
    from response_tuning import templates
    from response_tuning.models.inference import load_chat
    from response_tuning.models.location import check_name, is_here

    model = str(settings.model)
    check_name(model)
    if settings.template is not None:
        templates.check(settings.template)
    if is_here(model, settings.revision):
        load_chat(model, settings.template, settings.revision)


_ENGINE_FLAG = re.compile(
    r"(?<![\w-])--(?:(model|base-url|table|api-key-env)\b|template (?P<template>\S+))"
)


def in_settings(line: str, section: str) -> str:
    """Return an engine's line with settings of ``section`` in place of flags of rtune generate."""

    def setting(flag: re.Match[str]) -> str:
        return f"--set {section}.{flag['name'].replace('-', '_')}={flag['value'] or '...'}"

    return _ENGINE_SETTING.sub(setting, line)


_ENGINE_SETTING = re.compile(
    r"(?<![\w-])--(?P<name>model|base-url|table|api-key-env|template)\b"
    r"(?: (?P<value>[A-Z]+\b|https?://[^\s;,)]+|(?<=template )\S+))?"
)


def _judge_flag(flag: re.Match[str]) -> str:
    if flag["template"]:
        return f"--set grade.judge.settings.template={flag['template']}"
    if flag[1] == "api-key-env":
        return "--set grade.judge.settings.api_key_env=..."
    return f"--judge-{flag[1].removeprefix('base-')}"


def check_retry(judge: JudgeConfig, engines: Iterable[str] = (), *, retry_filtered: bool) -> None:
    """Refuse ``retry_filtered`` where neither ``judge`` nor ``engines`` can have a filter.

    Raises:
        ConfigError: one line that names the flag.
    """
    from response_tuning.generate import check_retry as check_engines

    judging = {judge.engine} - {OFFLINE}
    check_engines(judging.union(engines), retry_filtered=retry_filtered)


def check_engine(name: str, settings: EngineConfig) -> None:
    """Refuse settings that have no effect on an engine, and a server that cannot be asked.

    Commands call this before they do anything else. It loads no model.

    Raises:
        ConfigError: there is no such engine, or a setting has no effect on it.
        EngineError: there is no key for the server.
    """
    from response_tuning.generate import ENGINES, open_engine
    from response_tuning.generate.engine import check_settings

    ENGINES.get(name)
    if name == "hf":  # opening it would load the model; the other engines only connect
        check_settings(name, settings)
    else:
        open_engine(name, settings)
