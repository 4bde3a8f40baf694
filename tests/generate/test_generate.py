import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.errors import DataError, EngineError
from response_tuning.generate import generate
from response_tuning.generate.engine import answered, failed, key
from response_tuning.generate.engines.scripted import ScriptedEngine
from response_tuning.journals import Journal

Ask = Callable[..., Request]
GREEDY = Sampling()


class Recorder:
    """Answers with the prompt reversed, last request first, and remembers what it was asked."""

    template = "none"

    def __init__(
        self, model: str = "recorder", fails: Sequence[str] = (), dies_at: int = 99
    ) -> None:
        self.model = model
        self.fails = fails
        self.dies_at = dies_at
        self.asked: list[str] = []

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in reversed(requests):
            if len(self.asked) == self.dies_at:
                raise EngineError("gone")
            text = request.prompt[-1].content
            self.asked.append(text)
            if text in self.fails:
                yield failed(self, request, sampling, "no")
            else:
                yield answered(self, request, sampling, text[::-1], "stop")


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.jsonl"


@pytest.fixture
def questions(ask: Ask) -> list[Request]:
    return [ask(f"item-{n}", f"question {n}") for n in range(5)]


def test_completions_come_in_the_order_of_the_requests(
    journal: Path, questions: list[Request]
) -> None:
    engine = Recorder()
    given = list(generate(engine, iter(questions), journal, GREEDY))
    assert engine.asked[0] == "question 4"
    assert [c.item_id for c in given] == [q.item_id for q in questions]
    assert [c.response for c in given] == [q.prompt[0].content[::-1] for q in questions]


def test_what_the_journal_answers_is_not_asked_again(
    journal: Path, questions: list[Request]
) -> None:
    first = list(generate(Recorder(), questions[:3], journal, GREEDY))
    before = journal.read_bytes()
    again = Recorder()
    both = list(generate(again, questions, journal, GREEDY))
    assert sorted(again.asked) == ["question 3", "question 4"]
    assert both[:3] == first
    assert journal.read_bytes().startswith(before)


def test_a_fully_answered_call_does_not_speak_to_the_engine(
    journal: Path, questions: list[Request]
) -> None:
    list(generate(Recorder(), questions, journal, GREEDY))
    given = list(generate(Recorder(dies_at=0), questions, journal, GREEDY))
    assert all(c.response for c in given)


def test_no_request_gives_no_completion(journal: Path) -> None:
    assert list(generate(Recorder(), [], journal, GREEDY)) == []


def test_equal_prompts_are_asked_once_and_answered_under_each_item_id(
    journal: Path, ask: Ask
) -> None:
    engine = Recorder()
    given = list(generate(engine, [ask("a", "same"), ask("b", "same")], journal, GREEDY))
    assert engine.asked == ["same"]
    assert [(c.item_id, c.response) for c in given] == [("a", "emas"), ("b", "emas")]


def test_an_answer_is_reused_for_another_item_with_the_same_prompt(journal: Path, ask: Ask) -> None:
    list(generate(Recorder(), [ask("a", "same")], journal, GREEDY))
    (given,) = generate(Recorder(dies_at=0), [ask("b", "same")], journal, GREEDY)
    assert given.item_id == "b"


@pytest.mark.parametrize(
    ("model", "sampling"),
    [
        ("other", GREEDY),
        ("recorder", Sampling(seed=1)),
        ("recorder", Sampling(max_new_tokens=7)),
        ("recorder", Sampling(stop=("#",))),
        ("recorder", Sampling(temperature=0.5)),
    ],
)
def test_another_model_seed_or_sampling_is_another_question(
    journal: Path, questions: list[Request], model: str, sampling: Sampling
) -> None:
    list(generate(Recorder(), questions, journal, GREEDY))
    engine = Recorder(model)
    list(generate(engine, questions, journal, sampling))
    assert len(engine.asked) == len(questions)


def test_the_boundaries_between_turns_are_part_of_the_question(ask: Ask) -> None:
    prompts = [ask("a", "one", "two"), ask("a", "one two"), ask("a", "one", "tw", "o")]
    assert len({key(Recorder(), prompt, GREEDY) for prompt in prompts}) == 3


def test_a_failed_item_is_a_record_and_is_asked_again_by_the_next_run(
    journal: Path, questions: list[Request]
) -> None:
    given = list(generate(Recorder(fails=["question 1"]), questions, journal, GREEDY))
    assert [c.error for c in given] == [None, "no", None, None, None]
    assert given[1].response is None and given[1].finish_reason is None
    engine = Recorder()
    given = list(generate(engine, questions, journal, GREEDY))
    assert engine.asked == ["question 1"]
    assert given[1].response == "1 noitseuq"


def test_a_last_line_torn_by_a_crash_is_cut_off_and_asked_again(
    journal: Path, questions: list[Request]
) -> None:
    list(generate(Recorder(), questions, journal, GREEDY))
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    engine = Recorder()
    list(generate(engine, questions, journal, GREEDY))
    assert engine.asked == ["question 0"]
    assert journal.read_bytes() == whole


def test_what_was_answered_before_an_engine_died_is_kept(
    journal: Path, questions: list[Request]
) -> None:
    with pytest.raises(EngineError, match="gone"):
        generate(Recorder(dies_at=3), questions, journal, GREEDY)
    assert len(list(Journal(journal, Completion))) == 3


def test_each_completion_is_on_disk_when_the_next_one_is_asked_for(
    journal: Path, questions: list[Request]
) -> None:
    on_disk = []

    class Watcher(Recorder):
        def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
            for completion in super().complete(requests, sampling):
                yield completion
                on_disk.append(journal.read_bytes().count(b"\n"))

    generate(Watcher(), questions, journal, GREEDY)
    assert on_disk == [2, 3, 4, 5, 6]  # the first line says what the file is


def test_a_damaged_line_inside_the_journal_is_named(
    journal: Path, questions: list[Request]
) -> None:
    list(generate(Recorder(), questions, journal, GREEDY))
    journal.write_text(journal.read_text().replace("question 1", 'question "1', 1))
    with pytest.raises(DataError, match=r"journal\.jsonl:5: is no longer what was written"):
        generate(Recorder(), questions, journal, GREEDY)


def test_a_prompt_that_is_not_unicode_is_named(journal: Path, ask: Ask) -> None:
    with pytest.raises(DataError, match="item bad: the prompt is not valid Unicode"):
        generate(Recorder(), [ask("bad", "\ud800")], journal, GREEDY)


def test_line_breaks_of_every_kind_survive_the_journal(journal: Path, ask: Ask) -> None:
    text = "a\r\nb\rc\u2028d\x85e\n\ufeff \0"
    engine = ScriptedEngine({"q": text})
    list(generate(engine, [ask("a", "q")], journal, GREEDY))
    (given,) = generate(engine, [ask("a", "q")], journal, GREEDY)
    assert given.response == text


def test_progress_counts_distinct_requests_from_those_already_answered(
    journal: Path, questions: list[Request]
) -> None:
    heard: list[tuple[int, int]] = []
    generate(Recorder(), questions[:2], journal, GREEDY)
    generate(
        Recorder(),
        [*questions, questions[0]],
        journal,
        GREEDY,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_importing_the_stage_and_its_engines_loads_nothing_heavy() -> None:
    code = (
        "import sys; from response_tuning.generate import ENGINES, generate; "
        "import response_tuning.serve.chat; names = ENGINES.names(); "
        "print(names, {'torch', 'transformers', 'openai', 'peft'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = ["hf", "miniature", "openai", "openai-batch", "scripted"]
    assert out.stdout.strip() == f"{names} set()"
