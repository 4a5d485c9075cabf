"""Checkpoints of a training, without pickle: when they are made, what they hold, and how a training resumes."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from review_sentiment.chunks import CHUNK_ROWS
from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import flatten
from review_sentiment.pipelines.modeling.plan import Clock
from review_sentiment.runs.interrupts import Interrupted, Pending

if TYPE_CHECKING:
    from review_sentiment.datasets.checkpoints import Checkpoint, Checkpoints

logger = logging.getLogger(__name__)

# Whoever interrupts a training waits this long for its last checkpoint, not longer; seconds.
_PATIENCE = 5.0


class Stateful(Protocol):
    """Something beside the Trainer that a checkpoint keeps."""

    def state(self) -> dict[str, Any]:
        """Its state: JSON types and tensors, nested."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the state that `state` gave."""


def identity(tokenized: Mapping[str, Any], encoder_sha256: str, **blocks: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides the result of a training, by dotted name; to resume one, it must be the same."""
    return {
        **flatten(json.loads(json.dumps(blocks))),
        "encoder": encoder_sha256,
        **{f"{split} rows": _rows_hash(tokenized[split]) for split in ("train", "validation")},
        # Another version may compute otherwise, and may not know the other's state.
        **{name: version(name) for name in ("torch", "transformers")},
    }


def _rows_hash(rows: Any) -> str:
    digest = hashlib.sha256()
    # A part at a time: as Python's numbers, all tokens would take ten times their memory.
    for part in rows.select_columns(["row_id", "label_id", "input_ids"]).iter(CHUNK_ROWS):
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def refuse_another(checkpoint: "Checkpoint", now: Mapping[str, Any]) -> None:
    """Refuse to resume a training whose `identity` was another.

    Raises:
        UserError: The message names all differences.
    """
    then = checkpoint.state["identity"]
    faults = [
        f"{name} was {_shown(then.get(name))}, and is {_shown(now.get(name))}"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]
    if faults:
        raise UserError(
            fault_list(
                f"The run {checkpoint.run} can't be resumed with other parameters or data (name the same `--env` and"
                " `--params` again, or train from the start without `resume`)",
                faults,
            )
        )


def _shown(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) == 64 else str(value)


def how_to_go_on(checkpoints: "Checkpoints") -> str:
    """How to continue a training that was interrupted."""
    step = checkpoints.newest_step()
    if step is None:
        return "it had no checkpoint, so training must start again"
    return f"the same command with resume=true among its --params continues from step {step}"


class Checkpointing(TrainerCallback):
    """Asks for a checkpoint every few minutes and when the run is interrupted, and writes it between two steps.

    Args:
        checkpoints: Keeps them.
        parts: By name, everything beside model and Trainer that has a state.
        begun: What was measured before the first step, and must not be measured again.
        clock: Of the run.
        minutes: Between two checkpoints; None for none but that of an interrupt.
    """

    def __init__(
        self,
        checkpoints: "Checkpoints",
        parts: Mapping[str, Stateful],
        begun: Mapping[str, Any],
        clock: Clock,
        minutes: float | None,
    ) -> None:
        self._checkpoints, self._parts, self._begun, self._clock = checkpoints, parts, begun, clock
        self._seconds = None if minutes is None else 60 * minutes
        self._mark = time.perf_counter()
        self._took = 0.0
        self._validating = self._saving = False
        self._pending = Pending(self._may_wait)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let an interrupt wait for a checkpoint, and say how to continue."""
        try:
            with self._pending.collected():
                yield
        except Interrupted as error:
            raise Interrupted(error.number, how_to_go_on(self._checkpoints)) from None

    def _may_wait(self) -> bool:
        if self._saving:
            return True
        wait = self._clock.validation_seconds if self._validating else self._clock.step_seconds
        return wait + self._took < _PATIENCE

    def _is_due(self) -> bool:
        if self._pending.number is not None:
            return True
        return self._seconds is not None and time.perf_counter() - self._mark >= self._seconds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint if it is time, but not before the validation of an epoch that is over."""
        if float(state.epoch or 0).is_integer() or control.should_training_stop:
            self._validating = True
            if self._pending.number is not None and not self._may_wait():
                raise Interrupted(self._pending.number)
        elif self._is_due():
            control.should_save = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint if it is time; it is made after the validation."""
        self._validating = True
        control.should_save = not control.should_training_stop and self._is_due()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for one if an interrupt came during the validation."""
        self._validating = False
        control.should_save = control.should_save or self._pending.number is not None

    def save(self, trainer: "ResumableTrainer") -> None:
        """Write a checkpoint, and end the run if it was interrupted.

        Raises:
            Interrupted: The checkpoint was made for it.
        """
        if trainer.control.should_training_stop:  # what is left takes no training; nothing would be gained
            return
        start = time.perf_counter()
        self._saving = True
        try:
            self._checkpoints.save(
                trainer.state.global_step,
                {
                    **self._begun,
                    "trainer": trainer.own_state(),
                    **{name: part.state() for name, part in self._parts.items()},
                },
            )
        except (OSError, SafetensorError) as error:  # a full disk: the training itself can go on
            logger.warning("No checkpoint could be written: %s", error)
        self._saving = False
        self._mark = time.perf_counter()
        self._took = self._mark - start
        if self._pending.number is not None:
            raise Interrupted(self._pending.number)
        logger.info("Checkpoint at step %d, in %.1f s", trainer.state.global_step, self._took)


class ResumableTrainer(Trainer):
    """The Trainer, with checkpoints that are safetensors and JSON instead of pickles.

    Its own way of resuming stays: it skips the batches that were seen, and asks the methods below for the rest.

    Args:
        checkpointing: Makes the checkpoints.
        resumed: State to continue from, as `own_state` gave it; None for a new training.
        kwargs: The Trainer's own.
    """

    def __init__(self, *, checkpointing: Checkpointing, resumed: Mapping[str, Any] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._checkpointing = checkpointing
        self._resumed: Any = resumed  # the loaders below are called only if there is one
        self.add_callback(checkpointing)

    def run(self) -> None:
        """Train to the end, from the first step or the one after the checkpoint's."""
        folder = None
        if self._resumed is not None:
            folder = self.args.output_dir  # the Trainer reads its counters from a file of its own
            Path(folder, TRAINER_STATE_NAME).write_text(json.dumps(self._resumed["counters"]), "utf-8")
        with self._checkpointing.interruptible():
            self.train(resume_from_checkpoint=folder)

    def own_state(self) -> dict[str, Any]:
        """State of the Trainer, its model and its optimizer."""
        optimizer, scheduler = self.optimizer.state_dict(), self.lr_scheduler.state_dict()
        return {
            "counters": {**asdict(self.state), "stateful_callbacks": {}},
            "weights": trained_weights(self.model),
            "optimizer": optimizer["state"],
            "rates": [group["lr"] for group in optimizer["param_groups"]],
            "scheduler": {name: value for name, value in scheduler.items() if name != "lr_lambdas"},
            # What was added up since the last row of the history.
            "loss": self._tr_loss.item(),
            "logged_step": self._globalstep_last_logged,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """The stock one pickles the optimizer, and lets a half-written folder stand."""
        self._checkpointing.save(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The stock one wants the weights in a file of its own."""
        self.model.load_state_dict(self._resumed["weights"], strict=False)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The stock one reads pickles."""
        fresh = self.optimizer.state_dict()
        for group, rate in zip(fresh["param_groups"], self._resumed["rates"], strict=True):
            group["lr"] = rate
        state = {int(place): values for place, values in self._resumed["optimizer"].items()}
        self.optimizer.load_state_dict({**fresh, "state": state})
        self.lr_scheduler.load_state_dict({**self.lr_scheduler.state_dict(), **self._resumed["scheduler"]})
        # The Trainer takes it from its arguments, but a time budget may have moved it.
        self.state.max_steps = self._resumed["counters"]["max_steps"]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """The stock one reads a pickle. It is called when the first batch is ready; the sums are at 0 by then."""
        self._tr_loss += self._resumed["loss"]
        self._globalstep_last_logged = self._resumed["logged_step"]
        if self.args.process_index == 0:  # whose state it is; another's dropout must not become the same
            torch.set_rng_state(self._resumed["random"])
            if self._resumed["random_cuda"] is not None:
                torch.cuda.set_rng_state(self._resumed["random_cuda"])


def trained_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Weights that training changes, and buffers, by name; frozen ones are the encoder's, whose hash is checked."""
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    return {name: weight for name, weight in model.state_dict().items() if name not in frozen}
