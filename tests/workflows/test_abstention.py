from response_tuning.artifacts import Completion, Sampling
from response_tuning.workflows.generate import ABSTENTION, abstaining


def completion(confidence: float | None, error: str | None = None) -> Completion:
    return Completion(
        item_id="x", prompt=(), response=None if error else "Thorpe.", error=error, key="k",
        finish_reason=None if error else "stop", model="m", template="t", sampling=Sampling(),
        confidence=confidence,
    )  # fmt: skip


def test_an_answer_that_is_sure_enough_stays_as_it_is() -> None:
    for sure in (completion(-0.1), completion(-0.2)):
        assert abstaining(sure, -0.2) == sure


def test_any_other_answer_is_replaced_and_says_why() -> None:
    for sure, said in ((-0.21, "-0.210"), (None, "unknown")):
        declined = abstaining(completion(sure), -0.2)
        assert declined.response == ABSTENTION
        assert declined.detail == f"abstained: confidence {said}, threshold -0.2"


def test_an_error_is_no_abstention() -> None:
    assert abstaining(completion(None, "500"), -0.2).error == "500"
