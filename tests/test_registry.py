import importlib
import sys
from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.redaction import redacted
from response_tuning.registry import NAMES_LISTED, Registry, suggestion, unknown

YOURS = "one of your own needs --import MODULE"


@pytest.fixture
def things() -> Registry[str]:
    registry: Registry[str] = Registry("thing")
    registry.register("second")("2")
    registry.register("first")("1")
    return registry


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose modules join the table ``THINGS``, as extension points do."""
    package = tmp_path / tmp_path.name  # another in each test
    package.mkdir()
    (package / "__init__.py").write_text(
        "from response_tuning.registry import Registry\nTHINGS = Registry('thing', __name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return package


def module(folder: Path, name: str, then: str = "") -> None:
    register = f"from {folder.name} import THINGS\nTHINGS.register({name!r})({name!r})\n"
    (folder / f"{name}.py").write_text(then or register)


def table(folder: Path) -> Registry[str]:
    importlib.invalidate_caches()
    registry: Registry[str] = importlib.import_module(folder.name).THINGS
    return registry


def test_what_was_registered_is_found_under_its_name(things: Registry[str]) -> None:
    assert things.get("first") == "1"
    assert things.names() == ["first", "second"]


def test_registering_is_a_decorator_that_changes_nothing() -> None:
    registry: Registry[type] = Registry("class")

    @registry.register("named")
    class Named:
        pass

    assert registry.get("named") is Named
    assert Named.__name__ == "Named"


def test_a_name_is_given_once(things: Registry[str]) -> None:
    with pytest.raises(ConfigError, match=r"^thing 'first' is registered twice$"):
        things.register("first")("another")
    assert things.get("first") == "1"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("frist", "unknown thing 'frist': did you mean 'first'? known are first, second"),
        ("other", f"unknown thing 'other': known are first, second; {YOURS}"),
        ("FIRST", "unknown thing 'FIRST': did you mean 'first'? known are first, second"),
        ("sk-planted0123456789", f"unknown thing '[key]': known are first, second; {YOURS}"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(
    things: Registry[str], asked: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        things.get(asked)
    assert str(error.value) == said


def test_many_names_are_listed_only_if_none_is_similar() -> None:
    known = [f"name-{number}" for number in range(NAMES_LISTED + 1)]
    assert (
        str(unknown("thing", "name-7x", known)) == "unknown thing 'name-7x': did you mean 'name-7'?"
    )
    assert str(unknown("thing", "other", known)).endswith(f"known are {', '.join(known)}")


def test_a_name_is_found_inside_the_section_that_has_it() -> None:
    assert suggestion("lora_r", ["data", "finetune.lora_r"]) == "did you mean 'finetune.lora_r'?"
    assert suggestion("nothing", ["data", "finetune.lora_r"]) == ""


def test_the_dashes_of_flags_do_not_make_them_similar() -> None:
    assert suggestion("--out", ["--import", "--help"]) == ""
    assert suggestion("--ot", ["--import", "--out"]) == "did you mean '--out'?"


def test_a_suggestion_survives_the_redaction_of_keys() -> None:
    for key in ("api_key", "authorization", "x-api-key"):
        message = str(unknown("key", key, ["api_key_env", "model"]))
        assert redacted(message) == message


def test_a_file_joins_the_table_of_its_folder_by_existing(folder: Path) -> None:
    module(folder, "one")
    module(folder, "two")
    assert table(folder).names() == ["one", "two"]


def test_a_folder_is_read_at_the_first_look_up_only(folder: Path) -> None:
    module(folder, "one")
    things = table(folder)
    assert f"{folder.name}.one" not in sys.modules
    assert things.get("one") == "one"
    module(folder, "late")
    assert things.names() == ["one"]


def test_a_module_that_cannot_be_imported_is_heard_at_every_look_up(folder: Path) -> None:
    module(folder, "good")
    module(folder, "worse", "import no_such_library\n")
    things = table(folder)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            things.get("good")
