import torch

from response_tuning.serve.playground.fingerprint import recognised

KNOWN = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1.0, 3.0]), "c": torch.ones(3)}


def test_the_nearest_known_model_is_recognised() -> None:
    assert recognised(torch.tensor([1.0, 2.0]), KNOWN, "a") == "a"
    assert recognised(torch.tensor([1.0, 3.0]), KNOWN, "a") == "b"
    assert recognised(torch.tensor([1.0001, 3.0]), KNOWN, "a") == "b", "rounding of a GPU"


def test_what_no_known_model_computes_is_not_recognised() -> None:
    assert recognised(torch.tensor([1.0, 2.5]), KNOWN, "a") == ""
    assert recognised(torch.ones(5), KNOWN, "a") == ""
    assert recognised(torch.tensor([1.0, float("nan")]), KNOWN, "a") == ""


def test_of_two_names_for_one_model_the_claimed_one_is_recognised() -> None:
    twice = KNOWN | {"other": KNOWN["a"]}
    for name in ("a", "other"):
        assert recognised(KNOWN["a"], twice, name) == name
