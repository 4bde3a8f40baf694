import os
from pathlib import Path

import pytest

from response_tuning.data.files import choose, is_saved
from response_tuning.errors import DataError


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def chosen(path: Path, split: str = "train") -> list[str]:
    return [file.relative_to(path).as_posix() for file in choose(path, split).read]


def test_one_data_file_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    path = folder(tmp_path, "test.jsonl") / "test.jsonl"
    assert choose(path, "train").read == [path]


def test_a_folder_of_texts_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    path = folder(tmp_path, "b.md", "a.txt", "c/a.TXT")
    assert chosen(path) == ["a.txt", "b.md", "c/a.TXT"]
    assert choose(path, "train").are_texts


def test_other_files_among_texts_are_read_so_that_they_are_counted(tmp_path: Path) -> None:
    assert chosen(folder(tmp_path, "a.txt", "b.pdf")) == ["a.txt", "b.pdf"]


def test_hidden_files_are_not_there(tmp_path: Path) -> None:
    assert chosen(folder(tmp_path, "a.txt", ".DS_Store", ".git/b.txt")) == ["a.txt"]


def test_data_files_of_a_folder_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    path = folder(tmp_path, "data/2.parquet", "data/1.parquet", "README.md", "load.py")
    files = choose(path, "train")
    assert chosen(path) == ["data/1.parquet", "data/2.parquet"]
    assert not files.are_texts
    assert files.not_read == ("README.md", "load.py")


def test_data_files_of_another_split_are_left_out_and_named(tmp_path: Path) -> None:
    path = folder(tmp_path, "train.jsonl", "test.jsonl", "val-00000-of-1.jsonl", "more.jsonl")
    assert chosen(path) == ["more.jsonl", "train.jsonl"]
    assert choose(path, "train").not_read == ("test.jsonl", "val-00000-of-1.jsonl")
    assert chosen(path, "validation") == ["more.jsonl", "val-00000-of-1.jsonl"]


def test_a_split_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file for the split 'test'"):
        choose(folder(tmp_path, "train.jsonl"), "test")


def test_data_files_and_texts_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data files \(b\.csv\) and texts \(a\.txt\)"):
        choose(folder(tmp_path, "a.txt", "b.csv", "README.md"), "train")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.zip", "a.csv.ZST"])
def test_compressed_files_are_refused(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name, "b.jsonl")
    for where in (path, path / name):
        with pytest.raises(DataError, match="unpack it first"):
            choose(where, "train")


def test_a_text_file_alone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give the folder of the texts"):
        choose(folder(tmp_path, "a.txt") / "a.txt", "train")


@pytest.mark.parametrize("name", ["a.bin", "a"])
def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name)
    for where in (path, path / name):
        with pytest.raises(DataError, match=r"formats are \.jsonl, .*\.parquet, .*\.txt, \.md"):
            choose(where, "train")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder has no file that can be read"):
        choose(tmp_path, "train")


@pytest.mark.parametrize("name", ["dataset_infos.json", "dataset_info.json", "state.json"])
def test_what_is_about_the_data_files_of_a_folder_is_not_read(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, name, "data/train-0.parquet", "README.md", "LICENSE.txt", "CITATION.md")
    assert chosen(path) == ["data/train-0.parquet"]
    assert choose(path, "train").not_read == ("CITATION.md", "LICENSE.txt", "README.md", name)
    assert choose(path / name, "train").read == [path / name]


def test_arrow_files_say_which_folder_is_read(tmp_path: Path) -> None:
    path = folder(tmp_path, "saved/data-00000-of-00001.arrow", "README.md")
    for where in (path, path / "saved", path / "saved/data-00000-of-00001.arrow"):
        with pytest.raises(DataError, match=r"that save_to_disk wrote, with .*; give that folder"):
            choose(where, "train")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="a named pipe, not a file"):
        choose(tmp_path / "a.jsonl", "train")


def test_a_folder_that_was_saved_to_disk_is_told_by_its_files(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", "dataset_info.json", "state.json", "data.arrow")
    assert is_saved(one)
    assert is_saved(folder(tmp_path / "dict", "dataset_dict.json"))
    assert not is_saved(folder(tmp_path / "hub", "dataset_info.json", "a.parquet"))
    assert not is_saved(one / "state.json")


@pytest.mark.parametrize("ending", ["train.jsonl", "train/0.parquet", "train-0-of-1.parquet"])
def test_two_folders_with_the_same_split_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = folder(tmp_path, f"main/{ending}", f"socratic/{ending}", "main/test.jsonl")
    with pytest.raises(DataError) as error:
        choose(path, "train")
    assert "2 of its folders hold the split 'train'" in str(error.value)
    assert f"({path / 'main'}, {path / 'socratic'}); give one of them" in str(error.value)
    assert chosen(path, "test") == ["main/test.jsonl"]


def test_the_parts_of_one_split_are_read_together(tmp_path: Path) -> None:
    path = folder(tmp_path, "data/train/0.jsonl", "data/train/more/1.jsonl", "data/train-2.jsonl")
    assert len(chosen(path)) == 3
