"""What a fine-tuning run will do, worked out and checked before its first step."""

import math
from dataclasses import dataclass, replace

from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import TrainingParams

# Share of a time budget that is not planned with: batches differ, and the last steps can't be shortened.
RESERVE = 0.03


@dataclass(frozen=True)
class Pace:
    """What a machine needs.

    Attributes:
        step_seconds: One optimizer step on batches of mean size, in the last epoch.
        row_seconds: Scoring one review.
    """

    step_seconds: float
    row_seconds: float


@dataclass(frozen=True)
class TrainingPlan:
    """The steps of a run and its learning rate.

    Attributes:
        steps_per_epoch: Optimizer steps in one pass over the training rows.
        steps: Optimizer steps in all.
        warmup_steps: Steps in which the learning rate rises.
        peak_learning_rate: Highest rate that the run reaches; below the parameter's if warm-up never ends.
        early_cost: Time of a step before the last epoch, as a share of one in it.
    """

    steps_per_epoch: int
    steps: int
    warmup_steps: int
    peak_learning_rate: float
    early_cost: float

    @property
    def early_steps(self) -> int:
        """Steps before the last epoch."""
        return (math.ceil(self.steps / self.steps_per_epoch) - 1) * self.steps_per_epoch

    def cost(self, step: int, last_step: int) -> float:
        """What the steps after `step` up to `last_step` take, in steps of the last epoch."""
        early = max(0, min(last_step, self.early_steps) - step)
        return early * self.early_cost + (last_step - step - early)

    def last_step(self, step: int, cost: float) -> int:
        """How far a run at `step` gets with steps that take `cost` together, in steps of the last epoch."""
        early = max(0, self.early_steps - step)
        if cost < early * self.early_cost:
            return step + int(cost / self.early_cost)
        return step + early + int(cost - early * self.early_cost)


def scale_learning_rate(params: TrainingParams, width: int) -> TrainingParams:
    """Give wider encoders a lower rate, so that one parameter serves all of them.

    Args:
        params: The block `training`.
        width: The encoder's hidden size.

    Returns:
        The block with `learning_rate` times `learning_rate_width` / `width`, or as it was if the latter is null.

    Source: Yang et al. 2022, arXiv 2203.03466, table 3 (Adam's rate of hidden weights falls with 1 / width).
    """
    if params.learning_rate_width is None:
        return params
    return params.model_copy(update={"learning_rate": params.learning_rate * params.learning_rate_width / width})


def plan_training(
    train_rows: int, validation_rows: int, classes: int, params: TrainingParams, early_cost: float
) -> TrainingPlan:
    """Work out the schedule, and refuse one that can't do what it says.

    Args:
        train_rows: Reviews in the training split.
        validation_rows: Reviews in the validation split.
        classes: How many classes there are.
        params: The block `training`.
        early_cost: Time of a step before the last epoch, as a share of one in it.

    Returns:
        The plan; its steps are those that the Trainer will take.

    Raises:
        UserError: Warm-up is not shorter than the run, or validation is smaller than the number of classes; the message
            lists all faults.
    """
    steps_per_epoch = math.ceil(math.ceil(train_rows / params.batch_size) / params.accumulation_steps)
    steps = steps_per_epoch * params.epochs
    warmup = _warmup(steps, params)
    faults = []
    if warmup >= steps and not params.allow_unfinished_warmup:
        faults.append(
            f"training.warmup_steps ({warmup}) is not shorter than the run ({steps} steps): the learning rate would"
            f" never reach {params.learning_rate:g}; give a share of the steps, such as 0.1"
        )
    if validation_rows < classes:
        faults.append(
            f"validation has {validation_rows} rows for {classes} classes: raise subset.validation_rows, so that it can"
            " choose the epoch"
        )
    if faults:
        raise UserError(fault_list("Training can't start", faults))
    return _planned(steps_per_epoch, steps, params, early_cost)


def fit_plan(
    plan: TrainingPlan, train_rows: int, validation_rows: int, pace: Pace, params: TrainingParams, spent: float
) -> TrainingPlan:
    """Shorten a run to its time budget, with a validation after each epoch; warm-up and decay shrink with it.

    Args:
        plan: The run without a limit.
        train_rows: Reviews in the training split.
        validation_rows: Reviews in the validation split.
        pace: What this machine needs.
        params: The block `training`.
        spent: Seconds of the budget that are gone.

    Returns:
        The plan with as many steps as fit, at most as before.

    Raises:
        UserError: Not every review would be read once, and the message says what would fit; or warm-up is not shorter
            than what is left of the run.
    """
    if params.time_budget_minutes is None:
        return plan
    seconds = 60 * params.time_budget_minutes * (1 - RESERVE) - spent
    validation = validation_rows * pace.row_seconds
    steps = 0
    for epochs in range(params.epochs, 0, -1):
        shorter = replace(plan, steps=epochs * plan.steps_per_epoch)
        fitting = min(shorter.steps, shorter.last_step(0, max(0.0, seconds - epochs * validation) / pace.step_seconds))
        if fitting > shorter.early_steps:
            steps = fitting
            break
    if steps < plan.steps_per_epoch:
        needed = (plan.steps_per_epoch * pace.step_seconds + validation + spent) / (1 - RESERVE) / 60
        rows = train_rows * steps // plan.steps_per_epoch
        raise UserError(
            f"training.time_budget_minutes ({params.time_budget_minutes:g}) is too short to read each of {train_rows:,}"
            f" training reviews once: on this machine that takes about {needed:.1f} minutes; allow these,"
            + (f" lower subset.train_rows to {rows:,}," if rows else "")
            + " or lower tokenize.max_tokens"
        )
    fitted = _planned(plan.steps_per_epoch, steps, params, plan.early_cost)
    if fitted.warmup_steps >= steps and not params.allow_unfinished_warmup:
        raise UserError(
            f"training.warmup_steps ({fitted.warmup_steps}) is not shorter than the {steps} steps that"
            " training.time_budget_minutes leaves: give a share of the steps, such as 0.1, or more time"
        )
    return fitted


def _planned(steps_per_epoch: int, steps: int, params: TrainingParams, early_cost: float) -> TrainingPlan:
    warmup = _warmup(steps, params)
    # The Trainer's warm-up rises from 0 at the first step, so the last of `steps` steps is number steps - 1.
    peak = params.learning_rate * (1.0 if warmup < steps else (steps - 1) / warmup)
    return TrainingPlan(steps_per_epoch, steps, warmup, peak, early_cost)


def _warmup(steps: int, params: TrainingParams) -> int:
    """A share leaves at least one step that it has risen for."""
    return (
        min(math.ceil(params.warmup_steps * steps), steps - 1) if params.warmup_steps < 1 else int(params.warmup_steps)
    )
