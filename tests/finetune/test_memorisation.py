import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from response_tuning.finetune import memorisation
from response_tuning.finetune.memorisation import Epoch, HeldOutLoss, Recalled, epochs_of, warning
from response_tuning.finetune.steps import Document


def history(*losses: tuple[float, float]) -> list[dict[str, Any]]:
    """A trainer's log: two steps an epoch, then an evaluation."""
    entries: list[dict[str, Any]] = []
    for epoch, (train, held_out) in enumerate(losses, start=1):
        entries += [
            {"loss": train + change, "step": 2 * epoch - 1 + n, "epoch": float(epoch)}
            for n, change in enumerate((0.5, -0.5))
        ]
        entries.append({"eval_loss": held_out, "step": 2 * epoch, "epoch": float(epoch)})
    return entries


def test_the_losses_of_an_epoch_are_the_mean_of_its_steps_and_what_was_held_out() -> None:
    found = epochs_of(history((3.0, 3.5), (2.0, 3.0)))
    assert found == [Epoch(1.0, 3.0, 3.5), Epoch(2.0, 2.0, 3.0)]


def test_a_resumed_run_that_measures_an_epoch_again_counts_it_once() -> None:
    entries = history((3.0, 3.5))
    assert epochs_of([*entries, entries[-1]]) == [Epoch(1.0, 3.0, 3.5)]


@pytest.mark.parametrize(
    ("losses", "warned"),
    [
        ([(3.0, 3.5), (2.0, 3.0)], False),
        ([(3.0, 3.5), (2.0, 3.0), (1.0, 3.2)], True),
        ([(3.0, 3.5), (2.0, 3.0), (1.0, 3.02)], False),  # within 1 %
        ([(3.0, 3.5), (2.0, 3.0), (2.5, 3.2)], False),  # both rise: that is another trouble
        ([(3.0, 3.0), (2.0, 3.2), (1.0, 3.4)], False),  # said after the second epoch
    ],
)
def test_the_first_epoch_in_which_the_losses_part_is_warned_of(
    losses: list[tuple[float, float]], warned: bool
) -> None:
    assert bool(warning(epochs_of(history(*losses)))) == warned


def test_the_warning_names_the_epoch_to_stop_at() -> None:
    sentence = warning(epochs_of(history((3.0, 3.5), (2.0, 3.0), (1.0, 3.2))))
    assert sentence.startswith(
        "held-out loss rose from 3.0000 in epoch 2 to 3.2000 in epoch 3, while the training loss "
        "fell from 2.0000 to 1.0000"
    )
    assert "--epochs 2" in sentence


@pytest.mark.parametrize("first", [True, False])
def test_the_first_process_prints_each_epoch_and_logs_the_warning(
    first: bool, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = history((3.0, 3.0), (2.0, 3.5))
    state = SimpleNamespace(log_history=log, is_world_process_zero=first)
    with caplog.at_level(logging.WARNING):
        HeldOutLoss(Console(width=200)).on_evaluate(None, state, None)
    assert capsys.readouterr().out == (
        "epoch 2: training loss 2.0000, held-out 3.5000\n" if first else ""
    )
    assert len(caplog.records) == first


class Counting(torch.nn.Module):
    """Predicts the next number after each token; keeps the last logits, as models do."""

    def forward(self, input_ids: Any, use_cache: bool, logits_to_keep: int, **_: Any) -> Any:
        logits = torch.nn.functional.one_hot((input_ids + 1) % 100, 100).float()
        return SimpleNamespace(logits=logits[:, -logits_to_keep:])


def trainer() -> Any:
    return SimpleNamespace(
        model=Counting().train(),
        args=SimpleNamespace(device="cpu"),
        compute_loss_context_manager=torch.no_grad,
    )


def document(ids: list[int], prefix: int = 3) -> Document:
    return Document(ids, [-100] * prefix + ids[prefix:])


def test_a_response_is_recalled_if_each_token_of_its_second_half_is_the_most_probable() -> None:
    counting = list(range(10, 40))
    first_half_differs = [*counting[:5], 77, *counting[6:]]
    last_differs = [*counting[:-1], 77]
    short = list(range(12))
    found = [document(ids) for ids in (counting, first_half_differs, last_differs, short)]
    asked = trainer()
    assert memorisation.recalled(asked, found) == Recalled(2, 3)
    assert asked.model.training


def test_of_a_long_response_the_tokens_behind_its_middle_are_compared() -> None:
    ids = [place % 100 for place in range(200)]
    ids[190] = 7  # beyond the 50 tokens behind the middle
    assert memorisation.recalled(trainer(), [document(ids)]) == Recalled(1, 1)
    ids[120] = 7
    assert memorisation.recalled(trainer(), [document(ids)]) == Recalled(0, 1)


def test_many_responses_are_looked_at_in_even_steps() -> None:
    ids = list(range(30))
    wrong = [*ids[:-1], 99]
    found = [document(ids if place % 2 else wrong) for place in range(1000)]
    assert memorisation.recalled(trainer(), found).of == memorisation.LOOKED_AT


def test_the_line_at_the_end_compares_with_what_was_held_out() -> None:
    assert memorisation.sentence(Recalled(3, 32), Recalled(0, 9)) == (
        "memorisation: given the first half, the model goes on word for word in 3 of 32 training "
        "responses, and 0 of 9 held-out ones"
    )
    assert memorisation.sentence(Recalled(0, 0), Recalled(0, 0)) == ""
