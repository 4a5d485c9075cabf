import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from review_sentiment.pipelines.modeling.clock import Schedule


def rates(schedule: Schedule | None, steps: int, move: tuple[int, int] | None = None) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_linear_schedule_with_warmup(optimizer, 4, 40)
    if schedule:
        schedule.drive(scheduler)
    seen = []
    for step in range(1, steps + 1):
        optimizer.step()
        scheduler.step()
        if move and step == move[0]:
            schedule.end_at(*move)
        seen.append(scheduler.get_last_lr()[0])
    return seen


def test_an_end_that_is_not_moved_changes_nothing():
    assert rates(Schedule(40), 40) == rates(None, 40)


def test_a_moved_end_still_decays_to_zero_without_a_jump():
    moved = rates(Schedule(40), 30, move=(20, 30))
    assert moved[:20] == rates(None, 20)
    assert moved[20] == pytest.approx(moved[19] - moved[19] / 10)
    assert moved[-1] == 0
