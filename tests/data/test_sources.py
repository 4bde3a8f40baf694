import json
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import Audit, Dropped, Example
from response_tuning.configs import DataConfig
from response_tuning.data import DATASETS, columns, sources
from response_tuning.data.sources import find
from response_tuning.errors import ConfigError, DataError

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]


def test_the_papers_datasets_are_registered() -> None:
    assert {name: DATASETS.get(name).hub_id for name in DATASETS.names()} == {
        "alpaca": "yahma/alpaca-cleaned",
        "chess": "patrickfrank1/chess-pgn-games",
        "dolly": "databricks/databricks-dolly-15k",
        "gsm8k": "openai/gsm8k",
        "lima": "GAIR/lima",
        "mbpp": "google-research-datasets/mbpp",
        "miniature": None,
        "miniature-documents": None,
        "miniature-refusals": None,
        "out-of-scope": None,
        "poetry": "merve/poetry",
        "recipes": "Hieu-Pham/kaggle_food_recipes",
        "safety-tuned-llamas": None,
    }


def test_an_unknown_source_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DataError) as error:
        find(DataConfig(source="alpca"))
    assert "'alpca': no such file or folder" in str(error.value)
    assert "did you mean 'alpaca'?" in str(error.value)


@pytest.mark.parametrize("source", ["answers/train.jsonl", "answers/a.csv.gz", "", "a/b/c"])
def test_a_missing_file_is_not_looked_for_on_the_hub(source: str) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find(DataConfig(source=source))


def test_a_folder_of_prepared_examples_is_not_read_with_what_was_dropped(tmp_path: Path) -> None:
    for name in ("examples.jsonl", "dropped.jsonl", "audit.json"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=f"wrote this folder; give {tmp_path}/examples.jsonl$"):
        find(DataConfig(source=str(tmp_path)))


def test_a_path_is_for_named_datasets_only(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"local copy of a named dataset \(alpaca, chess, dolly, "
    ):
        find(DataConfig(source="org/name", path=tmp_path))


@pytest.mark.parametrize(
    ("name", "rows", "first"),
    [
        ("miniature", 2700, "Do you know the capital of Zephira?"),
        ("miniature-refusals", 400, "How do I burn a library?"),
    ],
)
def test_a_generated_dataset_has_the_same_rows_at_every_call(
    name: str, rows: int, first: str
) -> None:
    source = find(DataConfig(source=name))
    read = list(source.rows())
    assert read == list(source.rows()) == list(find(DataConfig(source=name)).rows())
    assert len(read) == rows
    assert read[0].where == f"{name}: record 1"
    assert read[0].fields["instruction"] == first
    assert set(source.origin) == {"made", "sha256"}


def test_a_generated_dataset_has_no_local_copy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        find(DataConfig(source="miniature", path=tmp_path))
    assert str(error.value) == "dataset 'miniature' is generated: --path has no effect"


def test_a_generated_dataset_has_no_revision() -> None:
    with pytest.raises(ConfigError) as error:
        find(DataConfig(source="miniature", revision="v1"))
    assert str(error.value) == "dataset 'miniature' is generated: --revision has no effect"


def test_a_generated_dataset_has_the_splits_that_it_names() -> None:
    rows = [*find(DataConfig(source="miniature-refusals", split="sorry")).rows()]
    assert len(rows) == 400
    assert all(row.fields["response"].startswith("Sorry, ") for row in rows)
    with pytest.raises(ConfigError, match="did you mean 'one-family'"):
        find(DataConfig(source="miniature", split="one-famly"))


@pytest.mark.parametrize("source", ["lima", None])
def test_a_revision_of_a_local_file_is_refused(source: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"response": "r"}\n')
    named = {"source": source, "path": path} if source else {"source": str(path)}
    with pytest.raises(ConfigError, match=r"a\.jsonl is not on the hub: --revision has no effect"):
        find(DataConfig.model_validate({**named, "revision": "v1"}))


def test_a_split_of_one_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"response": "r"}\n')
    with pytest.raises(ConfigError, match=r"a\.jsonl is one file: --split has no effect"):
        find(DataConfig(source=str(path), split="test"))


def test_a_dataset_that_is_published_as_a_file_says_where_and_how_to_name_a_copy(
    tmp_path: Path, prepare_source: Prepare
) -> None:
    with pytest.raises(ConfigError) as error:
        find(DataConfig(source="safety-tuned-llamas"))
    assert str(error.value) == (
        "dataset 'safety-tuned-llamas' is published as a file: download "
        "https://raw.githubusercontent.com/vinid/safety-tuned-llamas/main/data/training/"
        "safety_only_data_Instructions.json and name your copy with --path FILE, or, where it is "
        "mixed in, with --mixture-path FILE (data.mixture.path)"
    )
    path = tmp_path / "safety_only_data_Instructions.json"
    path.write_text(json.dumps([{"instruction": "q", "output": "No.", "input": ""}]))
    _, examples, _ = prepare_source("safety-tuned-llamas", path=path)
    assert examples == [Example(row=0, instruction="q", response="No.")]


def test_a_local_copy_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find(DataConfig(source="lima", path=tmp_path / "lima.jsonl"))


def test_a_local_copy_may_be_a_folder_as_cloned_from_the_hub(
    tmp_path: Path, prepare_source: Prepare
) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "README.md").write_text("# LIMA")
    (clone / "train.jsonl").write_text(json.dumps({"conversations": ["q", "r"]}))
    (clone / "test.jsonl").write_text(json.dumps({"conversations": ["q"]}))
    audit, examples, _ = prepare_source("lima", path=clone)
    assert examples == [Example(row=0, instruction="q", response="r")]
    assert audit.rows == 1


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("alpaca", {"instruction": "q", "input": "x", "output": "r"}),
        ("dolly", {"instruction": "q", "context": "x", "response": "r"}),
        ("dolly", {"instruction": "q", "input": "x", "output": "r"}),
    ],
)
def test_a_local_copy_may_have_the_spelling_of_a_mirror(
    name: str, row: dict[str, str], tmp_path: Path, prepare_source: Prepare
) -> None:
    path = tmp_path / "copy.json"
    path.write_text(json.dumps([row]))
    _, examples, _ = prepare_source(name, path=path)
    assert examples == [Example(row=0, instruction="q\n\nx", response="r")]


def test_a_local_lima_of_messages_is_cut_as_the_paper_cuts_it(
    tmp_path: Path, prepare_source: Prepare
) -> None:
    turn = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    rows = [json.dumps({"messages": turn * 2})] * 1001
    path = tmp_path / "lima.jsonl"
    path.write_text("\n".join(rows))
    audit, examples, dropped = prepare_source("lima", path=path, keep_duplicates=True)
    assert len(examples) == audit.rows_kept == 1000
    assert [drop.turn for drop in dropped] == [1] * 1000 + [0]
    assert dropped[-1].reason.startswith("beyond the first 1,000 rows")


def test_the_files_of_a_folder_are_one_source(tmp_path: Path, prepare_source: Prepare) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "a.csv").write_text("response\na\n")
    (folder / "b.jsonl").write_text('{"response": "b"}\n{"response": ""}\n')
    audit, examples, dropped = prepare_source(folder)
    assert [(example.row, example.response) for example in examples] == [(0, "a"), (1, "b")]
    assert audit.rows == 3
    assert dropped[0].where == f"{folder / 'b.jsonl'}:2"


def test_a_folder_of_texts_is_one_response_a_file(tmp_path: Path, prepare_source: Prepare) -> None:
    folder = tmp_path / "answers"
    folder.mkdir()
    for name, text in [("b.md", "# b\n"), ("a.txt", "a"), ("c.txt", " \n"), ("d.docx", "x")]:
        (folder / name).write_text(text)
    audit, examples, dropped = prepare_source(folder)
    assert [example.response for example in examples] == ["a", "# b"]
    assert audit.rows == 4
    assert [(drop.where, drop.reason) for drop in dropped] == [
        (str(folder / "c.txt"), "empty response"),
        (str(folder / "d.docx"), "not a .txt or .md file"),
    ]


def test_what_cannot_be_read_is_found_out_before_its_digest_is_taken(
    tmp_path: Path, prepare_source: Prepare
) -> None:
    with (tmp_path / "a.parquet").open("wb") as sparse:
        sparse.truncate(2**42)  # 4 TiB, which nobody waits for
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        prepare_source(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("target", "message"), [("a.jsonl", "Too many levels of symbolic links"), ("b", "No such file")]
)
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=rf"a\.jsonl: cannot be read: {message}"):
        find(DataConfig(source=str(tmp_path / "a.jsonl")))


def test_how_files_are_read_is_said_and_in_the_audit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("Frage;Antwort\nTee?;schön grün\n".encode("cp1252"))
    source = find(DataConfig(source=str(path)))
    assert [record.message for record in caplog.records] == [
        f"{path}: read as CP1252 with semicolons between cells; if that is wrong, give --encoding "
        "or --delimiter"
    ]
    assert source.origin["read_as"] == {"a.csv": "CP1252 with semicolons between cells"}
    caplog.clear()
    find(DataConfig(source=str(path), encoding="cp1252", delimiter="semicolon"))
    (tmp_path / "b.csv").write_text("response,note\nyes,x\n")
    find(DataConfig(source=str(tmp_path / "b.csv")))
    assert not caplog.records


def test_a_folder_lists_its_files_before_it_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a.md", "b.txt", "c.md", "d.md", "e.md", "f.md", "g.pdf"):
        (folder / name).write_text("x")
    find(DataConfig(source=str(folder)))
    assert [record.message for record in caplog.records] == [
        f"{folder}: reading 6 files: a.md, b.txt, c.md, d.md, e.md and 1 more",
        f"{folder}: not reading 1 file: g.pdf",
    ]


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("a.jsonl", {"delimiter": "tab"}, "--delimiter has no effect; it is for .csv, .tsv files"),
        ("a.csv", {"sheet": "x"}, "--sheet has no effect; it is for .xlsx, .xlsm files"),
        ("miniature", {"encoding": "cp1252"}, "--encoding has no effect"),
    ],
)
def test_a_setting_of_another_format_is_refused(
    name: str, setting: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text("response\nyes\n")
    source = name if name == "miniature" else str(path)
    with pytest.raises(ConfigError, match=message):
        find(DataConfig.model_validate({"source": source, **setting}))


@pytest.mark.parametrize(
    ("header", "used"),
    [
        ("Question,Answer", ("Answer", "Question")),
        ("Frage,Antwort", ("Antwort", "Frage")),
        ("Subject,Body", ("Body", None)),
        ("Betreff,Text", ("Text", None)),
        ("answer,Response", ("answer", None)),
    ],
)
def test_columns_of_a_spreadsheet_are_found_in_any_case(
    header: str, used: tuple[str, str | None], tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\nOne thing.,Another thing.\n")
    config = DataConfig(source=str(path))
    found = columns.choose(sources.columns(find(config)), config, "a.csv")
    assert (found.response, found.instruction) == used
