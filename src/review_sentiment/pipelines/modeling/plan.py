"""The steps of a fine-tuning run: planned before the first one, forecast as it goes, and cut to a time budget."""

import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import TrainingParams

logger = logging.getLogger(__name__)

# Share of a time budget that is kept back: batches differ, and the last steps can't be shortened.
_RESERVE = 0.03
# Batches differ in length, so the pace is a mean over all steps, and the benchmark before them counts as this many.
_STEPS = 50
# If the latest steps differ by more than batches do, the machine's speed has changed, and only they count.
_CHANGED = 1.25


@dataclass(frozen=True)
class Pace:
    """Seconds that a machine needs.

    Attributes:
        step_seconds: One optimizer step on batches of mean size, at full length.
    """

    step_seconds: float
    row_seconds: float


@dataclass(frozen=True)
class TrainingPlan:
    """The optimizer steps of a run.

    Attributes:
        warmup_steps: Steps in which the learning rate rises.
        early_cost: Time of a step at the shorter length of early epochs, as a share of one at full length.
    """

    steps_per_epoch: int
    steps: int
    warmup_steps: int
    early_cost: float

    @property
    def epochs(self) -> int:
        """Epochs that are begun, each with a validation at its end."""
        return math.ceil(self.steps / self.steps_per_epoch)

    @property
    def early_steps(self) -> int:
        """Steps on shortened reviews: all but those of the last epoch's number, however the run is cut."""
        return max(0, self.steps - self.steps_per_epoch)

    @property
    def peak_share(self) -> float:
        """Highest learning rate that the run reaches, as a share of the parameter; below 1 if warm-up never ends."""
        # The Trainer's warm-up rises from 0 at the first step, so the last of `steps` steps is number steps - 1.
        return 1.0 if self.warmup_steps < self.steps else (self.steps - 1) / self.warmup_steps

    def cost(self, step: int, last_step: int) -> float:
        """Time of the steps after `step` up to `last_step`, in steps at full length."""
        early = max(0, min(last_step, self.early_steps) - step)
        return early * self.early_cost + (last_step - step - early)

    def last_step(self, step: int, cost: float) -> int:
        """Where a run at `step` ends if its last epoch is at full length, and all steps left cost this much."""
        late = min(cost, self.steps_per_epoch)
        return step + int(late + (cost - late) / self.early_cost)


def plan_training(
    train_rows: int, validation_rows: int, classes: int, params: TrainingParams, early_cost: float
) -> TrainingPlan:
    """Work out the steps of a run without a time budget; they are those that the Trainer will take.

    Raises:
        UserError: Warm-up is not shorter than the run, or validation is smaller than the number of classes.
    """
    steps_per_epoch = math.ceil(math.ceil(train_rows / params.batch_size) / params.accumulation_steps)
    steps = steps_per_epoch * params.epochs
    plan = TrainingPlan(steps_per_epoch, steps, _warmup(steps, params), early_cost)
    faults = []
    if plan.warmup_steps >= steps and not params.allow_unfinished_warmup:
        faults.append(
            f"training.warmup_steps ({plan.warmup_steps}) is not shorter than the run ({steps} steps): the learning"
            f" rate would never reach {params.learning_rate:g}; give a share of the steps, such as 0.1"
        )
    if validation_rows < classes:
        faults.append(
            f"validation has {validation_rows} rows for {classes} classes: raise subset.validation_rows, so that it can"
            " choose the epoch"
        )
    if faults:
        raise UserError(fault_list("Training can't start", faults))
    return plan


def fit_plan(
    plan: TrainingPlan, train_rows: int, validation_rows: int, pace: Pace, params: TrainingParams, spent: float
) -> TrainingPlan:
    """Shorten a run to its time budget, of which `spent` seconds are gone; warm-up and decay shrink with it.

    Raises:
        UserError: There is no time for one epoch at full length, or warm-up is not shorter than what is left.
    """
    if params.time_budget_minutes is None:
        return plan
    seconds = 60 * params.time_budget_minutes * (1 - _RESERVE) - spent
    validation_seconds = validation_rows * pace.row_seconds
    steps = _fitting_steps(plan, 0, seconds / pace.step_seconds, validation_seconds / pace.step_seconds, 0)
    if steps < plan.steps_per_epoch:
        needed = (plan.steps_per_epoch * pace.step_seconds + validation_seconds + spent) / (1 - _RESERVE) / 60
        rows = train_rows * steps // plan.steps_per_epoch
        raise UserError(
            f"training.time_budget_minutes ({params.time_budget_minutes:g}) is too short for one epoch of"
            f" {train_rows:,} training reviews, which takes about {needed:.1f} minutes on this machine: allow these,"
            + (f" lower subset.train_rows to {rows:,}," if rows else "")
            + " or lower tokenize.max_tokens"
        )
    fitted = replace(plan, steps=steps, warmup_steps=_warmup(steps, params))
    if fitted.warmup_steps >= steps and not params.allow_unfinished_warmup:
        raise UserError(
            f"training.warmup_steps ({fitted.warmup_steps}) is not shorter than the {steps} steps that"
            " training.time_budget_minutes leaves: give a share of the steps, such as 0.1, or more time"
        )
    return fitted


def _warmup(steps: int, params: TrainingParams) -> int:
    """A share leaves at least one step at the peak."""
    if params.warmup_steps >= 1:
        return int(params.warmup_steps)
    return min(math.ceil(params.warmup_steps * steps), steps - 1)


def _fitting_steps(plan: TrainingPlan, step: int, cost: float, validation_cost: float, validations: int) -> int:
    """The last step that a run at `step` can afford, with a validation after each epoch; costs in full-length steps."""
    for epochs in range(plan.epochs, step // plan.steps_per_epoch, -1):
        left = max(0.0, cost - (epochs - validations) * validation_cost)
        last = min(plan.steps, epochs * plan.steps_per_epoch, plan.last_step(step, left))
        if last > (epochs - 1) * plan.steps_per_epoch:
            return last
    return step


class Schedule:
    """The plan that counts now, and the learning-rate schedule: cutting the run squeezes what is left of both.

    Attributes:
        plan: As the run goes on; a time budget may shorten it.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = self.first_plan = plan
        self._since, self._at = 0, 0.0

    def drive(self, scheduler: LambdaLR) -> None:
        """Take over a scheduler; its rates change only once the run is cut."""
        scheduler.lr_lambdas = [lambda step, rate=rate: rate(self._position(step)) for rate in scheduler.lr_lambdas]

    def end_at(self, step: int, end: int) -> None:
        """Let the run that is at `step` end at `end`."""
        self._at, self._since = self._position(step), step
        self.plan = replace(self.plan, steps=end)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"plan": asdict(self.plan), "since": self._since, "at": self._at}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.plan, self._since, self._at = TrainingPlan(**state["plan"]), state["since"], state["at"]

    def _position(self, step: int) -> float:
        """Place of a step in the schedule as it was made, in steps."""
        steps, end = self.first_plan.steps, self.plan.steps
        if step >= end:
            return steps
        return self._at + (step - self._since) * ((steps - self._at) / (end - self._since))


class Clock(TrainerCallback):
    """Times steps and validations, and forecasts the whole run."""

    def __init__(self, pace: Pace, schedule: Schedule, validation_rows: int, start: float) -> None:
        self._start, self._schedule = start, schedule
        self._step = self._validations = 0
        # All in seconds of a step at full length.
        self._sum, self._count = _STEPS * pace.step_seconds, _STEPS
        self._latest = deque([pace.step_seconds] * _STEPS, maxlen=_STEPS)
        self.validation_seconds = validation_rows * pace.row_seconds

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "elapsed": self.elapsed,
            "step": self._step,
            "sum": self._sum,
            "count": self._count,
            "latest": list(self._latest),
            "validation": self.validation_seconds,
            "validations": self._validations,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint; the time between the crash and now does not count."""
        self._start = time.perf_counter() - state["elapsed"]
        self._step, self._sum, self._count = state["step"], state["sum"], state["count"]
        self._latest.extend(state["latest"])
        self.validation_seconds, self._validations = state["validation"], state["validations"]

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._start

    @property
    def step_seconds(self) -> float:
        """Seconds that the next step is expected to take."""
        return self.full_step_seconds * self._schedule.plan.cost(self._step, self._step + 1)

    @property
    def full_step_seconds(self) -> float:
        """Seconds that a step at full length is expected to take."""
        overall, latest = self._sum / self._count, sum(self._latest) / _STEPS
        return overall if overall / _CHANGED < latest < overall * _CHANGED else latest

    def restart(self, step_seconds: float) -> None:
        """Forget the steps so far: from here on a step at full length takes `step_seconds`."""
        self._sum, self._count = _STEPS * step_seconds, _STEPS
        self._latest.extend([step_seconds] * _STEPS)
        self._mark = time.perf_counter()

    @property
    def validation_left(self) -> float:
        """Seconds of the validations to come."""
        return self.validation_seconds * (self._schedule.plan.epochs - self._validations)

    def remaining(self, step: int) -> float:
        """Seconds from now to the end of a run that is at `step`."""
        plan = self._schedule.plan
        return plan.cost(step, plan.steps) * self.full_step_seconds + self.validation_left

    def last_step(self, step: int, seconds: float) -> int:
        """The last step that a run at `step` reaches in some seconds, validations included."""
        cost, validation_cost = seconds / self.full_step_seconds, self.validation_seconds / self.full_step_seconds
        return _fitting_steps(self._schedule.plan, step, cost, validation_cost, self._validations)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start to measure."""
        self._mark = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure a step."""
        seconds = self._lap() / self._schedule.plan.cost(self._step, self._step + 1)
        self._step = state.global_step
        self._sum, self._count = self._sum + seconds, self._count + 1
        self._latest.append(seconds)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure a validation."""
        self.validation_seconds = self._lap()
        self._validations += 1

    def _lap(self) -> float:
        now = time.perf_counter()
        lap, self._mark = now - self._mark, now
        return lap


class TimeBudget(TrainerCallback):
    """Cuts a run that falls behind its time budget; the learning rate still decays to its end.

    Args:
        workers: The clock of the first one counts for all.
    """

    def __init__(self, minutes: float, clock: Clock, schedule: Schedule, workers: Workers) -> None:
        # A reserve of the whole budget, not of what is left: late in a run the latter would be no reserve at all.
        self._seconds = 60 * minutes * (1 - _RESERVE)
        self._clock, self._schedule, self._workers = clock, schedule, workers

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the end if it has become too late."""
        step, last = state.global_step, state.max_steps
        end = self._workers.of_first(self._end(step, last))
        if end == last:
            return
        state.max_steps = end
        self._schedule.end_at(step, end)
        control.should_training_stop = end == step
        logger.warning(
            "Slower than forecast (%.2f s/step): to end in time, the run ends at step %d instead of %d",
            *(self._clock.step_seconds, end, last),
        )

    def _end(self, step: int, last: int) -> int:
        left = self._seconds - self._clock.elapsed
        if step >= last or self._clock.remaining(step) <= left:
            return last
        return self._clock.last_step(step, left)
