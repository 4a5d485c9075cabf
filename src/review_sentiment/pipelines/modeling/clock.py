"""How long a run will take, corrected as it goes, and how to end it in time."""

import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from review_sentiment.distributed import Workers
from review_sentiment.pipelines.modeling.plan import RESERVE, Pace, TrainingPlan

logger = logging.getLogger(__name__)

# Batches differ in length, so the pace is a mean over all steps, and what was measured before counts as this many.
_STEPS = 50
# If the latest steps differ by more than batches do, the machine's speed has changed, and only they count.
_CHANGED = 1.25


class Clock(TrainerCallback):
    """Measures steps and validations apart, and says at any time how long the run will take in all.

    Args:
        pace: What was measured before the first step.
        plan: The run.
        validation_rows: Reviews in the validation split.
        start: `time.perf_counter` when the run began, probing included.
    """

    def __init__(self, pace: Pace, plan: TrainingPlan, validation_rows: int, start: float) -> None:
        self._start, self._plan = start, plan
        self._step = 0
        # Seconds are those of steps in the last epoch, which earlier ones are reckoned in.
        self._sum, self._count = _STEPS * pace.step_seconds, _STEPS
        self._latest = deque([pace.step_seconds] * _STEPS, maxlen=_STEPS)
        self.validation_seconds = validation_rows * pace.row_seconds
        self._validations = 0

    def state(self) -> dict[str, Any]:
        """What was measured; the time between a crash and the training that goes on does not count."""
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
        """Go on as if the time since `state` had not passed."""
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
        return self._late_seconds * self._plan.cost(self._step, self._step + 1)

    @property
    def _late_seconds(self) -> float:
        overall, latest = self._sum / self._count, sum(self._latest) / _STEPS
        return overall if overall / _CHANGED < latest < overall * _CHANGED else latest

    def validation_left(self, last_step: int) -> float:
        """Seconds of the validations that are still to come if the run ends at `last_step`."""
        return self.validation_seconds * (math.ceil(last_step / self._plan.steps_per_epoch) - self._validations)

    def remaining(self, step: int, last_step: int) -> float:
        """Seconds from now to the end of a run that is at `step` and ends at `last_step`."""
        return self._plan.cost(step, last_step) * self._late_seconds + self.validation_left(last_step)

    def last_step(self, step: int, last_step: int, seconds: float) -> int:
        """The last step that a run at `step` gets to in some seconds, if it keeps the validations up to `last_step`."""
        left = seconds - self.validation_left(last_step)
        return self._plan.last_step(step, left / self._late_seconds) if left > 0 else step

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start to measure."""
        self._mark = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure a step."""
        seconds = self._lap() / self._plan.cost(self._step, self._step + 1)
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


class Schedule:
    """A learning rate schedule whose end can be moved: what is left of it is squeezed into the steps that are left.

    Args:
        steps: Steps of the run, which the schedule was made for.
    """

    def __init__(self, steps: int) -> None:
        self._steps, self._since, self._at, self._end = steps, 0, 0.0, steps

    def drive(self, scheduler: LambdaLR) -> None:
        """Take over a scheduler; while the end is not moved, its rates stay as they were."""
        scheduler.lr_lambdas = [lambda step, rate=rate: rate(self._position(step)) for rate in scheduler.lr_lambdas]

    def end_at(self, step: int, end: int) -> None:
        """Let the run that is at `step` end at `end`."""
        self._at, self._since, self._end = self._position(step), step, end

    def state(self) -> dict[str, Any]:
        """Where the end is now."""
        return {"since": self._since, "at": self._at, "end": self._end}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put the end where it was."""
        self._since, self._at, self._end = state["since"], state["at"], state["end"]

    def _position(self, step: int) -> float:
        """Where in the schedule a step stands, in steps of the schedule."""
        if step >= self._end:
            return self._steps
        return self._at + (step - self._since) * ((self._steps - self._at) / (self._end - self._since))


class TimeBudget(TrainerCallback):
    """Ends a run in time: when it falls behind, it gets fewer steps, and the learning rate still decays to its end.

    Args:
        seconds: Time from the start of the clock.
        clock: Of the run.
        schedule: Of the run.
        workers: Those that train together; the first one's clock counts.
    """

    def __init__(self, seconds: float, clock: Clock, schedule: Schedule, workers: Workers) -> None:
        self._workers = workers
        # A reserve of the whole budget, not of what is left: late in a run the latter would be no reserve at all.
        self._seconds, self._clock, self._schedule = seconds * (1 - RESERVE), clock, schedule

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the end if it has become too late."""
        step, last = state.global_step, state.max_steps
        end = self._workers.of_first(self._end(step, last))
        if end == last:
            return
        state.max_steps = end
        self._schedule.end_at(step, end)
        control.should_training_stop = state.max_steps == step
        logger.warning(
            "Slower than forecast (%.2f s/step): to end in time, the run ends at step %d instead of %d",
            *(self._clock.step_seconds, state.max_steps, last),
        )

    def _end(self, step: int, last: int) -> int:
        """The last step that fits."""
        left = self._seconds - self._clock.elapsed
        if step >= last or self._clock.remaining(step, last) <= left:
            return last
        return self._clock.last_step(step, last, left)
