from pathlib import Path

from response_tuning.artifacts import Completion, Message, Sampling
from response_tuning.journals import Journal
from response_tuning.workflows.generate import copy_completions


def completion(key: str, response: str) -> Completion:
    return Completion(
        item_id=key,
        prompt=(Message(role="user", content="Is it?"),),
        response=response,
        finish_reason="stop",
        key=key,
        model="m",
        template="t",
        sampling=Sampling(),
    )


def test_completions_are_copied_once_and_the_last_of_a_key_counts(tmp_path: Path) -> None:
    own, other = tmp_path / "own.journal", tmp_path / "other.journal"
    for path, pairs in ((own, [("a", "mine")]), (other, [*"ab", "b", "c"])):
        with Journal(path, Completion).appending() as append:
            for number, pair in enumerate(pairs):
                append(completion(pair[0], pair[1] if len(pair) > 1 else str(number)))
    damaged = tmp_path / "damaged.journal"
    damaged.write_bytes(other.read_bytes().replace(b"Is it?", b"Was it"))
    sources = [Journal(damaged, Completion), Journal(other, Completion)]
    copy_completions(sources, own, wanted={"a", "b"})
    kept = [(one.key, one.response) for one in Journal(own, Completion)]
    assert kept == [("a", "mine"), ("b", "2")]
