"""What happens beside the steps of a training: each callback owns one thing."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import rich
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from review_sentiment.distributed import Workers
from review_sentiment.health import is_slow, latest_signs, loss_sign, overfits_since, stretch_means
from review_sentiment.params import DiagnosisParams, TrainingParams
from review_sentiment.pipelines.modeling.benchmark import (
    Batch,
    ComputeSettings,
    choose_threads_again,
    measure_pace,
)
from review_sentiment.pipelines.modeling.checkpointing import trained_weights
from review_sentiment.pipelines.modeling.failures import DivergedError
from review_sentiment.pipelines.modeling.plan import Clock, Pace

logger = logging.getLogger(__name__)

_EVAL = "eval_"
_ROW_ID = "row_id"
# Macro recall is exactly 1 / classes where every review gets the same answer.
_CHANCE_MARGIN = 0.02
# Steps this many times as long as forecast are no matter of batches.
_MUCH_SLOWER = 1.5


class History(TrainerCallback):
    """One row for each logged step and each validation, in the log and as a table."""

    def __init__(self, clock: Clock) -> None:
        self.rows: list[dict[str, Any]] = []
        self._clock = clock

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.rows = list(state["rows"])

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the forecast that was made before the first step."""
        if not self.rows:
            self.rows.append({**self._row(state), "split": "forecast"})

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log an epoch's last steps too: a short run would have no row, and a row would mix two epochs."""
        control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Keep and print a row."""
        row = self._row(state)
        if "loss" in logs:
            self.rows.append(
                {**row, "split": "train", **{name: logs[name] for name in ("loss", "grad_norm", "learning_rate")}}
            )
            logger.info(
                "step %d/%d  epoch %.2f  loss %.4f  grad norm %.2f  learning rate %.2e  %.2f s/step  %s elapsed, about"
                " %s left",
                *(state.global_step, state.max_steps, state.epoch, logs["loss"], logs["grad_norm"]),
                *(logs["learning_rate"], self._clock.step_seconds, _minutes(row["seconds"])),
                _minutes(row["forecast_seconds"] - row["seconds"]),
            )
        elif f"{_EVAL}loss" in logs:
            figures = {name.removeprefix(_EVAL): value for name, value in logs.items() if name.startswith(_EVAL)}
            self.rows.append({**row, "split": "validation", **figures})
            logger.info(
                "epoch %g done: validation %s",
                round(state.epoch or 0, 2),
                "  ".join(f"{name} {value:.4f}" for name, value in figures.items()),
            )

    def _row(self, state: TrainerState) -> dict[str, Any]:
        seconds = self._clock.elapsed
        return {
            "step": state.global_step,
            "epoch": state.epoch,
            "seconds": seconds,
            "forecast_seconds": seconds + self._clock.remaining(state.global_step),
            "planned_steps": state.max_steps,
        }


class WeightAverage(TrainerCallback):
    """A running mean of the weights: validation scores it, and the classifier gets it instead of the last step's.

    Args:
        decay: Share of the mean that each step keeps, in [0, 1); 0 for no mean.

    Source: Polyak and Juditsky 1992, doi 10.1137/0330046, in the exponential form usual for neural networks.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._mean: list[torch.Tensor] = []

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"mean": self._mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._mean = state["mean"]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        """Put a mean that was read from disk where the model is."""
        device = next(model.parameters()).device
        self._mean = [mean.to(device) for mean in self._mean]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        """Move the mean towards the new weights."""
        if self._decay == 0:
            return
        weights = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        if self._mean:
            # At first a plain mean of the steps so far, so that it does not cling to the untrained head.
            torch._foreach_lerp_(self._mean, weights, max(1 - self._decay, 1 / state.global_step))
        else:
            self._mean = [weight.clone() for weight in weights]

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[None]:
        """Let `model` have the mean inside the context."""
        if not self._mean:
            yield
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        own = [parameter.data for parameter in parameters]
        for parameter, mean in zip(parameters, self._mean, strict=True):
            parameter.data = mean
        try:
            yield
        finally:
            for parameter, weight in zip(parameters, own, strict=True):
                parameter.data = weight


class KeepBest(TrainerCallback):
    """Keeps the trained weights of the best epoch in memory, and stops when it is not beaten for long enough.

    Whoever scores the validation rows leaves their logits in `latest_logits` (N, K); those of the best epoch are kept.
    """

    def __init__(self, params: TrainingParams) -> None:
        self.step = self.epoch = 0
        self.temperature = 1.0
        self.weights: dict[str, torch.Tensor] = {}
        self.logits = self.latest_logits = np.empty((0, 0))
        self._params = params
        self._best = math.inf
        self._waited = self._validations = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "temperature": self.temperature,
            "weights": self.weights,
            "logits": torch.from_numpy(self.logits),
            "best": self._best,
            "waited": self._waited,
            "validations": self._validations,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.step, self.epoch, self.temperature = state["step"], state["epoch"], state["temperature"]
        self.weights, self.logits = state["weights"], state["logits"].numpy()
        self._best, self._waited, self._validations = state["best"], state["waited"], state["validations"]

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        model: PreTrainedModel,
        **_: Any,
    ) -> None:
        """Compare the epoch that just ended with the best so far; of equals the first is kept."""
        value = metrics[_EVAL + self._params.metric_for_best]
        cost = value if self._params.metric_for_best == "loss" else -value
        self._validations += 1
        if cost < self._best:
            self._best, self._waited = cost, 0
            self.step, self.epoch = state.global_step, self._validations
            self.temperature = metrics[_EVAL + "temperature"]
            self.weights = {name: tensor.detach().clone() for name, tensor in trained_weights(model).items()}
            self.logits = self.latest_logits
            return
        self._waited += 1
        patience = self._params.early_stopping_patience
        if patience is not None and self._waited >= patience:
            logger.info("Stopping early: no better epoch for %d", self._waited)
            control.should_training_stop = True


class HealthWatch(TrainerCallback):
    """Stops at the step where a number becomes NaN, and logs other bad signs once, by the diagnosis' own rules."""

    def __init__(
        self, history: History, classes: int, diagnosis: DiagnosisParams, learning_rate: float, workers: Workers
    ) -> None:
        self._history, self._classes, self._diagnosis = history, classes, diagnosis
        self._learning_rate, self._workers = learning_rate, workers
        self._step_rows: list[str] = []
        self._step = 0
        self._logged: set[str] = set()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"step": self._step, "logged": sorted(self._logged)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._step, self._logged = state["step"], set(state["logged"])

    def take_row_ids(self, inputs: dict[str, Any]) -> None:
        """Remember which reviews a batch holds, and take their names out of it, which the model does not know."""
        self._step_rows += inputs.pop(_ROW_ID)

    def check(self, name: str, value: float) -> None:
        """Stop training at a loss or norm that is NaN or infinite.

        Raises:
            DivergedError: It is.
        """
        if math.isfinite(value):
            return
        rows = [row for share in self._workers.of_all(self._step_rows) for row in share]
        raise DivergedError(
            f"the {name} became {value} at step {self._step + 1}, on the reviews {', '.join(rows)}: training"
            f" diverged; lower training.learning_rate (now {self._learning_rate:g}), or look at these reviews."
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget the reviews of the step that went well."""
        self._step, self._step_rows = state.global_step, []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the row that the history just got."""
        rows = self._history.rows
        train, validation = ([row for row in rows if row["split"] == split] for split in ("train", "validation"))
        if rows[-1]["split"] == "train":
            self._look_at_steps(train)
        elif rows[-1]["split"] == "validation":
            self.check("validation loss", rows[-1]["loss"])
            self._look_at_epochs(train, validation)

    def _look_at_steps(self, train: Sequence[Mapping[str, Any]]) -> None:
        norms, losses = [row["grad_norm"] for row in train], [row["loss"] for row in train]
        sign, unstable = latest_signs(norms, losses, self._classes, self._diagnosis) or (None, False)
        if unstable:
            self._warn("loss", "training explodes (loss %.3f): lower training.learning_rate", losses[-1])
        if sign == "exploding":
            self._warn(sign, "gradients explode (norm %.1f): lower training.learning_rate", norms[-1])
        elif sign == "vanishing":
            self._warn(sign, "gradients vanish (norm %.4f) before anything was learned", norms[-1])
        forecast, seconds = self._history.rows[0]["forecast_seconds"], train[-1]["forecast_seconds"]
        if is_slow(seconds, forecast):
            self._warn("slow", "far slower than forecast: %.1f minutes instead of %.1f", seconds / 60, forecast / 60)

    def _look_at_epochs(self, train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]) -> None:
        ends = [row["step"] for row in validation]
        losses = stretch_means([row["step"] for row in train], [row["loss"] for row in train], ends)
        if len(losses) < 2:
            return
        sign = loss_sign(losses, self._classes, self._diagnosis)
        if sign != "falling":
            self._warn("trend", "training loss is %s: %.3f in the first epoch, %.3f now", sign, losses[0], losses[-1])
        elif since := overfits_since(losses, [row["loss"] for row in validation], self._diagnosis):
            calibrated = [row["calibrated_loss"] for row in validation]
            if calibrated[-1] > min(calibrated):  # else it is only overconfident, which calibration fixes
                self._warn(
                    "overfitting", "overfitting since epoch %d: validation loss rises while training falls", since
                )
        if all(abs(row["recall"] - 1 / self._classes) < _CHANCE_MARGIN for row in validation):
            self._warn("chance", "validation is stuck at chance (accuracy %.3f)", validation[-1]["accuracy"])

    def _warn(self, name: str, message: str, *figures: object) -> None:
        if name not in self._logged:
            self._logged.add(name)
            logger.warning(f"Step %d: {message}", self._history.rows[-1]["step"], *figures)


class SpeedCheck(TrainerCallback):
    """Compares numbers of threads again after the first epoch, where the benchmark before it may have been wrong.

    That is where the machine was busy then, fewer threads were chosen than there are, or steps take much longer than
    forecast.
    """

    def __init__(
        self,
        compute: ComputeSettings,
        pace: Pace,
        params: TrainingParams,
        batch: Callable[[], Batch],
        clock: Clock,
        workers: Workers,
    ) -> None:
        self.threads, self.reason = compute.threads, compute.reason
        self._compute, self._pace, self._params, self._batch = compute, pace, params, batch
        self._clock, self._workers = clock, workers
        self._most_threads = torch.get_num_threads()
        self._checked = params.threads != "auto" or compute.device != "cpu" or self._most_threads == 1

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"threads": self.threads, "reason": self.reason, "checked": self._checked}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.threads, self.reason, self._checked = state["threads"], state["reason"], state["checked"]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Use the threads that the training before a crash had come to."""
        if self.threads != self._compute.threads:
            torch.set_num_threads(self.threads)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PreTrainedModel, **_: Any
    ) -> None:
        """Compare, and change the number of threads if that pays."""
        if self._checked:
            return
        self._checked = True
        is_doubtful = self._compute.busy or self._compute.threads < self._most_threads
        is_slow = self._clock.full_step_seconds > _MUCH_SLOWER * self._pace.step_seconds
        if not self._workers.of_first(is_doubtful or is_slow):
            return
        found = choose_threads_again(model, self._batch(), self._compute, self._most_threads)
        threads, measured = self._workers.of_first(found)
        logger.info("Threads compared again after the first epoch: %s; going on with %d", measured, threads)
        torch.set_num_threads(threads)
        self.threads, self.reason = threads, f"{self.reason}, after the first epoch {measured}"
        now = replace(self._compute, threads=threads)
        self._clock.restart(measure_pace(model, self._batch(), now, self._params).step_seconds)


class ProgressBar(TrainerCallback):
    """A live bar on the console that the log uses too, so that lines appear above it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the bar."""
        self._bar = Progress(
            TextColumn("Training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("•"),
            TimeElapsedColumn(),
            TextColumn("elapsed •"),
            TextColumn("{task.fields[left]} left • {task.fields[pace]:.2f} s/step"),
            console=rich.get_console(),
            transient=True,
        )
        self._task = self._bar.add_task("", completed=state.global_step, **self._fields(state))
        self._bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move it."""
        self._bar.update(self._task, completed=state.global_step, **self._fields(state))

    def stop(self) -> None:
        """Take it away, also after a failure."""
        if hasattr(self, "_bar"):
            self._bar.stop()

    def _fields(self, state: TrainerState) -> dict[str, Any]:
        left = self._clock.remaining(state.global_step)
        return {"total": state.max_steps, "left": _minutes(left), "pace": self._clock.step_seconds}


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
