import time

import pytest
import torch
from transformers import TrainerControl, TrainerState, get_linear_schedule_with_warmup

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.plan import (
    Clock,
    Pace,
    Schedule,
    TimeBudget,
    TrainingPlan,
    fit_plan,
    plan_training,
)


@pytest.fixture
def training(raw):
    return parse_parameters(raw).training.model_copy(update={"epochs": 3, "batch_size": 8, "learning_rate": 3e-5})


def test_the_tutorial_s_warm_up_never_reaches_its_rate(training):
    unfinished = {"accumulation_steps": 2, "warmup_steps": 500}
    plan = plan_training(
        2500, 1000, 2, training.model_copy(update={**unfinished, "allow_unfinished_warmup": True}), 1.0
    )
    assert (plan.steps_per_epoch, plan.steps, plan.warmup_steps) == (157, 471, 500)
    assert plan.peak_share == pytest.approx(470 / 500)

    with pytest.raises(UserError, match=r"\(500\) is not shorter than the run \(471 steps\)"):
        plan_training(2500, 1000, 2, training.model_copy(update=unfinished), 1.0)


def test_a_share_of_the_steps_is_a_warm_up(training):
    plan = plan_training(80, 20, 2, training.model_copy(update={"warmup_steps": 0.1}), 1.0)
    assert (plan.steps, plan.warmup_steps, plan.peak_share) == (30, 3, 1.0)
    params = training.model_copy(update={"warmup_steps": 0.1, "epochs": 1, "batch_size": 80})
    plan = plan_training(80, 20, 2, params, 1.0)
    assert (plan.steps, plan.warmup_steps) == (1, 0)


def test_all_faults_are_in_one_message(training):
    with pytest.raises(UserError, match=r"(?s)warmup_steps.*validation has 1 rows for 2 classes"):
        plan_training(8, 1, 2, training.model_copy(update={"warmup_steps": 3}), 1.0)


def test_a_budget_shortens_run_and_warm_up_together(training):
    params = training.model_copy(update={"warmup_steps": 0.1, "time_budget_minutes": 1.0})
    plan = plan_training(320, 100, 2, params, 1.0)
    pace = Pace(step_seconds=0.5, row_seconds=0.05)

    # 60 s less 3 % and 3.1 s gone leave 55.1; two validations of 5 s leave 45.1.
    fitted = fit_plan(plan, 320, 100, pace, params, spent=3.1)
    assert (plan.steps, fitted.steps, fitted.warmup_steps) == (120, 80, 8)
    fitted = fit_plan(plan, 320, 100, Pace(0.6, 0.05), params, spent=3.1)
    assert (fitted.steps, fitted.warmup_steps) == (75, 8)
    assert fit_plan(plan, 320, 100, Pace(0.01, 0.01), params, spent=1) == plan

    whole = params.model_copy(update={"warmup_steps": 90})
    with pytest.raises(
        UserError, match=r"warmup_steps \(90\) is not shorter than the 80 steps that training.time_budget"
    ):
        fit_plan(plan, 320, 100, pace, whole, spent=3.1)
    with pytest.raises(UserError, match=r"about 1.5 minutes on this machine: allow these, lower"):
        fit_plan(plan, 320, 100, Pace(2.0, 0.05), params, spent=3.1)


def test_a_budget_buys_shorter_steps_and_keeps_a_last_epoch_at_full_length(training):
    params = training.model_copy(update={"warmup_steps": 0.1, "time_budget_minutes": 1.0})
    plan = plan_training(320, 100, 2, params, early_cost=0.5)
    # 55.1 s less three validations of 5 s leave 40.1, or 80.2 steps: 40 at full length, and 80 at half of it.
    pace = Pace(step_seconds=0.5, row_seconds=0.05)
    fitted = fit_plan(plan, 320, 100, pace, params, spent=3.1)
    assert (plan.steps, plan.early_steps, fitted.steps, fitted.early_steps) == (120, 80, 120, 80)
    # 45.1 s, with two validations, are 56.375 steps.
    fitted = fit_plan(plan, 320, 100, Pace(step_seconds=0.8, row_seconds=0.05), params, spent=3.1)
    assert (fitted.steps, fitted.early_steps) == (72, 32)


PLAN = TrainingPlan(steps_per_epoch=10, steps=40, warmup_steps=4, early_cost=1.0)


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
    assert rates(Schedule(PLAN), 40) == rates(None, 40)


def test_a_moved_end_still_decays_to_zero_without_a_jump():
    moved = rates(Schedule(PLAN), 30, move=(20, 30))
    assert moved[:20] == rates(None, 20)
    assert moved[20] == pytest.approx(moved[19] - moved[19] / 10)
    assert moved[-1] == 0


def test_clock_and_schedule_go_on_where_they_were():
    clock = Clock(Pace(step_seconds=1.0, row_seconds=0.1), Schedule(PLAN), 10, time.perf_counter() - 100)
    clock.on_train_begin(None, TrainerState(), TrainerControl())
    clock.on_step_end(None, TrainerState(global_step=1), TrainerControl())
    clock.on_evaluate(None, TrainerState(), TrainerControl())
    later = Clock(Pace(step_seconds=9.0, row_seconds=9.0), Schedule(PLAN), 10, time.perf_counter())
    later.restore(clock.state())
    assert later.elapsed == pytest.approx(100, abs=1)
    assert later.remaining(10) == clock.remaining(10)

    schedule, other = Schedule(PLAN), Schedule(PLAN)
    schedule.end_at(20, 30)
    other.restore(schedule.state())
    assert rates(other, 30)[20:] == rates(Schedule(PLAN), 30, move=(20, 30))[20:]


def test_early_steps_cost_less():
    plan = TrainingPlan(steps_per_epoch=10, steps=30, warmup_steps=0, early_cost=0.5)
    clock = Clock(Pace(step_seconds=1.0, row_seconds=0.0), Schedule(plan), 10, time.perf_counter())
    assert clock.remaining(0) == 20
    assert clock.remaining(15) == 12.5
    assert clock.step_seconds == 0.5
    assert [clock.last_step(0, seconds) for seconds in (-1, 3, 10, 13.5, 20)] == [0, 3, 10, 17, 30]
    assert clock.last_step(25, 2) == 27

    clock.restore(clock.state() | {"step": 20})
    assert clock.step_seconds == 1.0


@pytest.mark.parametrize("slower", [1.5, 3.0, 6.0])
def test_a_run_that_is_cut_on_the_way_still_ends_with_an_epoch_at_full_length(slower):
    """150 steps planned, 128 tokens at a third of the cost; after 20 steps each takes longer."""
    plan = TrainingPlan(steps_per_epoch=50, steps=150, warmup_steps=0, early_cost=0.3)
    schedule = Schedule(plan)
    clock = Clock(Pace(step_seconds=1.0, row_seconds=0.0), schedule, 10, time.perf_counter())
    budget = TimeBudget(90 / 60, clock, schedule, Workers())
    state, control, full = TrainerState(max_steps=150), TrainerControl(), 0
    elapsed, clock._lap = 0.0, lambda: seconds  # a machine's time, without waiting for it
    while state.global_step < state.max_steps:
        full += state.global_step >= schedule.plan.early_steps
        seconds = plan_cost(schedule, state.global_step) * (slower if state.global_step >= 20 else 1.0)
        elapsed += seconds
        clock._start = time.perf_counter() - elapsed
        state.global_step += 1
        clock.on_step_end(None, state, control)
        budget.on_step_end(None, state, control)
    assert state.global_step < 150
    assert full >= min(10, state.global_step - 20)
    assert elapsed <= 90


def plan_cost(schedule: Schedule, step: int) -> float:
    """Seconds of the next step on the machine as it was measured."""
    return schedule.plan.cost(step, step + 1)
