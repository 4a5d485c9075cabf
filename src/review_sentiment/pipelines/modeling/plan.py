"""What a fine-tuning run will do, worked out and checked before its first step."""

import math
from dataclasses import dataclass

from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import TrainingParams


@dataclass(frozen=True)
class TrainingPlan:
    """The steps of a run and its learning rate.

    Attributes:
        steps_per_epoch: Optimizer steps in one pass over the training rows.
        steps: Optimizer steps in all.
        warmup_steps: Steps in which the learning rate rises.
        peak_learning_rate: Highest rate that the run reaches; below the parameter's if warm-up never ends.
    """

    steps_per_epoch: int
    steps: int
    warmup_steps: int
    peak_learning_rate: float


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


def plan_training(train_rows: int, validation_rows: int, classes: int, params: TrainingParams) -> TrainingPlan:
    """Work out the schedule, and refuse one that can't do what it says.

    Args:
        train_rows: Reviews in the training split.
        validation_rows: Reviews in the validation split.
        classes: How many classes there are.
        params: The block `training`.

    Returns:
        The plan; its steps are those that the Trainer will take.

    Raises:
        UserError: Warm-up is not shorter than the run, or validation is smaller than the number of classes; the message
            lists all faults.
    """
    steps_per_epoch = math.ceil(math.ceil(train_rows / params.batch_size) / params.accumulation_steps)
    steps = steps_per_epoch * params.epochs
    warmup = math.ceil(params.warmup_steps * steps) if params.warmup_steps < 1 else int(params.warmup_steps)
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
    # The Trainer's warm-up rises from 0 at the first step, so the last of `steps` steps is number steps - 1.
    peak = params.learning_rate * (1.0 if warmup < steps else (steps - 1) / warmup)
    return TrainingPlan(steps_per_epoch, steps, warmup, peak)
