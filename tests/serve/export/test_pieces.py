import json
import shutil
from pathlib import Path

import pytest

from response_tuning import miniature
from response_tuning.errors import ModelError
from response_tuning.serve.export.pieces import TOKENIZER_MODEL, is_needed, provide, rebuilt

TEXTS = [
    "Once upon a time, there was a little girl named Lily.",
    "  two spaces,\n\nlines, 12345 and 🙂 in one text  ",
    "Grüße an <b>alle</b> <s> </s>",
]


@pytest.fixture
def stories(tiny_lm: Path, tmp_path: Path) -> Path:
    """The story model's folder as transformers 5 saves it: without SentencePiece's file."""
    folder = tmp_path / "stories"
    folder.mkdir()
    shutil.copyfile(tiny_lm / "tokenizer.json", folder / "tokenizer.json")
    return folder


def test_a_missing_tokenizer_model_is_refused_with_the_ways_out(stories: Path) -> None:
    assert is_needed(stories)
    with pytest.raises(ModelError, match=r"SentencePiece without tokenizer.model: .*--rebuild-tok"):
        provide(stories, [stories], rebuild=False)
    assert not (stories / TOKENIZER_MODEL).exists()


def test_it_is_copied_from_the_base_that_has_it(stories: Path, tiny_lm: Path) -> None:
    assert provide(stories, [stories, tiny_lm], rebuild=True) == "copied from the base"
    assert (stories / TOKENIZER_MODEL).read_bytes() == (tiny_lm / TOKENIZER_MODEL).read_bytes()
    assert provide(stories, [], rebuild=False) == ""


def test_a_rebuilt_one_splits_as_the_published_one(stories: Path, tiny_lm: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    assert provide(stories, [], rebuild=True) == "rebuilt from tokenizer.json"
    ours, published = SentencePieceProcessor(), SentencePieceProcessor()
    ours.LoadFromFile(str(stories / TOKENIZER_MODEL))
    published.LoadFromFile(str(tiny_lm / TOKENIZER_MODEL))
    for text in TEXTS:
        assert ours.encode(text) == published.encode(text)


@pytest.mark.parametrize(
    ("merges", "why"),
    [(lambda m: m[::-1], "merges are not in order"), (lambda m: m[:-1], "is no merge")],
)
def test_merges_that_no_scores_can_express_are_refused(
    stories: Path, merges: object, why: str
) -> None:
    spec = json.loads((stories / "tokenizer.json").read_text())
    spec["model"]["merges"] = merges(spec["model"]["merges"])  # type: ignore[operator]
    (stories / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError, match=why):
        rebuilt(stories)


def test_a_byte_level_tokenizer_needs_none() -> None:
    assert not is_needed(miniature.BASE)
