import time

import pytest
import torch
from transformers import TrainerControl, TrainerState, get_linear_schedule_with_warmup

from review_sentiment.distributed import Workers
from review_sentiment.pipelines.modeling.clock import Clock, Schedule, TimeBudget
from review_sentiment.pipelines.modeling.plan import Pace, TrainingPlan


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


def test_a_machine_that_turns_out_slower_still_ends_in_time():
    start, control, state = time.perf_counter(), TrainerControl(), TrainerState(max_steps=1000)
    plan = TrainingPlan(steps_per_epoch=1000, steps=1000, warmup_steps=0, peak_learning_rate=1e-4, early_cost=1.0)
    clock = Clock(Pace(step_seconds=0.001, row_seconds=0.0), plan, 10, start)
    budget = TimeBudget(1.5, clock, Schedule(1000), Workers())
    clock.on_train_begin(None, state, control)
    while state.global_step < state.max_steps and not control.should_training_stop:
        time.sleep(0.01)
        state.global_step += 1
        clock.on_step_end(None, state, control)
        budget.on_step_end(None, state, control)

    assert 1.2 < time.perf_counter() - start < 1.5
    assert 50 < state.global_step < 150


def test_clock_and_schedule_go_on_where_they_were():
    plan = TrainingPlan(steps_per_epoch=10, steps=40, warmup_steps=4, peak_learning_rate=1e-4, early_cost=1.0)
    clock = Clock(Pace(step_seconds=1.0, row_seconds=0.1), plan, 10, time.perf_counter() - 100)
    clock.on_train_begin(None, TrainerState(), TrainerControl())
    clock.on_step_end(None, TrainerState(global_step=1), TrainerControl())
    clock.on_evaluate(None, TrainerState(), TrainerControl())
    later = Clock(Pace(step_seconds=9.0, row_seconds=9.0), plan, 10, time.perf_counter())
    later.restore(clock.state())
    assert later.elapsed == pytest.approx(100, abs=1)
    assert later.remaining(10, 40) == clock.remaining(10, 40)

    schedule, other = Schedule(40), Schedule(40)
    schedule.end_at(20, 30)
    other.restore(schedule.state())
    assert rates(other, 30)[20:] == rates(Schedule(40), 30, move=(20, 30))[20:]


def test_early_steps_are_reckoned_as_the_shorter_ones_that_they_are():
    plan = TrainingPlan(steps_per_epoch=10, steps=30, warmup_steps=0, peak_learning_rate=1e-4, early_cost=0.5)
    clock = Clock(Pace(step_seconds=1.0, row_seconds=0.0), plan, 10, time.perf_counter())
    assert clock.remaining(0, 30) == 20
    assert clock.remaining(15, 30) == 12.5
    assert clock.step_seconds == 0.5
    assert [clock.last_step(0, 30, seconds) for seconds in (-1, 3, 10, 13.5, 20)] == [0, 6, 20, 23, 30]
    assert clock.last_step(25, 30, 2) == 27

    later = clock.state()
    clock.restore(later | {"step": 20})
    assert clock.step_seconds == 1.0
