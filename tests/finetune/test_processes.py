import pytest

from response_tuning.finetune.processes import first_process_first, is_first


def test_one_process_is_the_first_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_first()
    with first_process_first(on_cpu=True):
        pass
    monkeypatch.setenv("RANK", "1")
    assert not is_first()
