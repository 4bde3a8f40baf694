from pathlib import Path

import pytest

from response_tuning.configs import DataConfig
from response_tuning.inputs import inputs_of


def test_inputs_are_the_settings_that_name_something_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("answers.jsonl", "main", "train", "copies", "copies/xstest", "refusals"):
        (tmp_path / name).mkdir(parents=True) if "." not in name else Path(name).touch()
    Path("copies/scores.jsonl").touch()
    data = DataConfig.model_validate(
        {
            "source": "answers.jsonl",
            "mixture": {"source": "refusals"},
            "decontamination": {"data": "copies", "against": ["xstest", "a" * 5000]},
        }
    )
    found = {str(path) for path in inputs_of(data, None, Path("nowhere"))}
    assert found == {"answers.jsonl", "refusals", "copies/xstest"}
