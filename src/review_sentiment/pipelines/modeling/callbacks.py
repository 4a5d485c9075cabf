"""What happens beside training: history, the best epoch, and a progress bar."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import rich
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from review_sentiment.params import TrainingParams
from review_sentiment.pipelines.modeling.checkpointing import trained_weights
from review_sentiment.pipelines.modeling.clock import Clock

logger = logging.getLogger(__name__)

_EVAL = "eval_"


class History(TrainerCallback):
    """One row for each logged step and each validation, in the log and as a table."""

    def __init__(self, clock: Clock) -> None:
        self.rows: list[dict[str, Any]] = []
        self._clock = clock

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the forecast that was made before the first step."""
        if not self.rows:
            self.rows.append({**self._row(state), "split": "forecast"})

    def state(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on below these rows."""
        self.rows = list(state["rows"])

    def _row(self, state: TrainerState) -> dict[str, Any]:
        seconds = self._clock.elapsed
        forecast = seconds + self._clock.remaining(state.global_step, state.max_steps)
        return {
            "step": state.global_step,
            "epoch": state.epoch,
            "seconds": seconds,
            "forecast_seconds": forecast,
            "planned_steps": state.max_steps,
        }

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


class WeightAverage(TrainerCallback):
    """A running mean of the weights, which validation scores and the classifier gets instead of the last step's.

    Source: Polyak and Juditsky 1992, doi 10.1137/0330046, in the exponential form usual for neural networks.
    """

    def __init__(self, params: TrainingParams) -> None:
        self._decay = params.average_decay
        self._mean: list[torch.Tensor] = []

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Move the mean towards the new weights."""
        if self._decay == 0:
            return
        weights = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        if self._mean:
            # Early on the mean is over few steps, so that it does not hold on to the untrained head.
            share = max(1 - self._decay, 1 / (state.global_step + 1))
            torch._foreach_lerp_(self._mean, weights, share)
        else:
            self._mean = [weight.clone() for weight in weights]

    def state(self) -> dict[str, Any]:
        """The mean so far."""
        return {"mean": self._mean}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with this mean."""
        self._mean = state["mean"]

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module,
        **_: Any,
    ) -> None:
        """Put a mean that was read from disk where the model is."""
        device = next(model.parameters()).device
        self._mean = [mean.to(device) for mean in self._mean]

    @contextmanager
    def applied(self, model: torch.nn.Module) -> Iterator[None]:
        """Let `model` have the mean for a while, then its own weights again."""
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
    """Keep the trained weights of the best epoch in memory, and stop when it is not beaten for long enough.

    Whoever scores the validation rows leaves their scores in `latest_logits` (N, K); those of the best epoch are kept.
    """

    def __init__(self, params: TrainingParams) -> None:
        self.step = self.epoch = 0
        self.temperature = 1.0
        self.weights: dict[str, torch.Tensor] = {}
        self.logits = self.latest_logits = np.empty((0, 0))
        self._params = params
        self._best = math.inf
        self._waited = self._passes = 0

    def state(self) -> dict[str, Any]:
        """The best epoch so far, and how long it has not been beaten."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "temperature": self.temperature,
            "weights": self.weights,
            "logits": torch.from_numpy(self.logits),
            "best": self._best,
            "waited": self._waited,
            "passes": self._passes,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from this best epoch."""
        self.step, self.epoch, self.temperature = state["step"], state["epoch"], state["temperature"]
        self.weights, self.logits = state["weights"], state["logits"].numpy()
        self._best, self._waited, self._passes = state["best"], state["waited"], state["passes"]

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
        self._passes += 1
        if cost < self._best:
            self._best, self._waited = cost, 0
            self.step, self.epoch = state.global_step, self._passes
            self.temperature = metrics[_EVAL + "temperature"]
            self.weights = {name: tensor.detach().clone() for name, tensor in trained_weights(model).items()}
            self.logits = self.latest_logits
            return
        self._waited += 1
        patience = self._params.early_stopping_patience
        if patience is not None and self._waited >= patience:
            logger.info("Stopping early: no better epoch for %d", self._waited)
            control.should_training_stop = True


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

    def _fields(self, state: TrainerState) -> dict[str, Any]:
        left = self._clock.remaining(state.global_step, state.max_steps)
        return {"total": state.max_steps, "left": _minutes(left), "pace": self._clock.step_seconds}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move it."""
        self._bar.update(self._task, completed=state.global_step, **self._fields(state))

    def stop(self) -> None:
        """Take it away, also after a failure."""
        if hasattr(self, "_bar"):
            self._bar.stop()


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
