from collections.abc import Sequence
from pathlib import Path

import pytest

from response_tuning import probe
from response_tuning.models.inference import load
from response_tuning.models.likelihood import EncodedPair
from response_tuning.models.local import LocalModel
from response_tuning.probe.short_run import (
    BATCH,
    DataLaw,
    ShortRun,
    fit_data_law,
    learnability,
    short_run,
)

RESPONSES = [f"It is {n % 5}." for n in range(4 * BATCH)]


@pytest.fixture(scope="module")
def local(tiny_base: Path) -> LocalModel:
    return load(str(tiny_base), "tulu", device="cpu")


def test_a_short_run_lowers_the_loss_and_leaves_the_base_as_it_is(local: LocalModel) -> None:
    before = {name: weight.clone() for name, weight in local.model.named_parameters()}
    run = short_run(local, RESPONSES, RESPONSES[:7])
    assert run is not None
    assert [*run.losses] == [0, BATCH, 2 * BATCH, 4 * BATCH]
    losses = [*run.losses.values()]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert learnability(run) == pytest.approx((losses[0] - losses[1]) / losses[0])
    assert all((weight == before[name]).all() for name, weight in local.model.named_parameters())
    assert short_run(local, RESPONSES, RESPONSES[:7]) == run, "nothing is drawn"


def test_the_loss_of_no_steps_is_that_of_the_probe(local: LocalModel) -> None:
    from response_tuning.likelihoods import Likelihood, Pair
    from response_tuning.models.likelihood import log_likelihoods

    (found,) = log_likelihoods(local, [Pair((), "It is 3.")], 4096)
    assert isinstance(found, Likelihood)
    run = short_run(local, RESPONSES, ["It is 3."])
    assert run is not None
    expected = -(found.total + found.ending) / (found.tokens + len(local.chat.closing))
    assert run.losses[0] == pytest.approx(expected, rel=1e-4)


def test_a_step_with_many_logits_goes_through_the_model_in_parts(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = [f"It is {'so ' * (n % 7)}{n % 5}." for n in range(2 * BATCH)]
    whole = short_run(local, responses, responses[:20])
    assert whole is not None
    monkeypatch.setattr("response_tuning.probe.short_run.logits_per_batch", lambda _: 40)
    sizes: list[int] = []
    mean_loss = probe.short_run._mean_loss

    def heard(model: object, rows: Sequence[EncodedPair]) -> object:
        sizes.append(len(rows) * max(len(row.prefix + row.reply) for row in rows))
        return mean_loss(model, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(probe.short_run, "_mean_loss", heard)
    parted = short_run(local, responses, responses[:20])
    assert parted is not None
    assert max(sizes) <= 40 and len(sizes) > 20
    assert [*parted.losses.values()] == pytest.approx([*whole.losses.values()], rel=1e-4)


def test_where_the_loss_rises_a_tenth_of_the_rate_is_taken(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = short_run(local, RESPONSES, RESPONSES[:7])
    monkeypatch.setattr(probe.short_run, "LEARNING_RATES", (50.0, 4e-4))
    assert short_run(local, RESPONSES, RESPONSES[:7]) == usual
    monkeypatch.setattr(probe.short_run, "LEARNING_RATES", (50.0, 40.0))
    risen = short_run(local, RESPONSES, RESPONSES[:7])
    assert risen is not None and risen.rate == 40.0 and not risen.fell
    assert fit_data_law(risen) is None


def test_too_few_responses_are_no_run(local: LocalModel) -> None:
    assert short_run(local, RESPONSES[: BATCH - 1], RESPONSES) is None
    assert short_run(local, RESPONSES, []) is None


def test_the_data_law_is_found_again_and_says_how_many_responses_are_enough() -> None:
    true = DataLaw(b=40, learned=20, beta=1, e=1)
    run = ShortRun({n: true.loss(n) for n in (0, 16, 40, 80, 160)})
    found = fit_data_law(run)
    assert found is not None
    assert found.loss(1000) == pytest.approx(true.loss(1000), abs=0.02)
    assert true.loss(true.enough(1000)) == pytest.approx(3 - 0.95 * (3 - true.loss(1000)), abs=0.01)
    assert fit_data_law(ShortRun({0: 2.0, 16: 1.0})) is None, "two points are no curve"
