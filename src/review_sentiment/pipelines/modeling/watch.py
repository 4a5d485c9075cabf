"""Bad signs while they happen: a number out of range stops training at that step, the others are told once each."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.health import is_slow, latest_signs, loss_sign, overfits_since, stretch_means
from review_sentiment.params import DiagnosisParams, TokenizeParams, TrainingParams
from review_sentiment.pipelines.modeling.callbacks import History

if TYPE_CHECKING:
    from collections.abc import Iterator

    from review_sentiment.model.encoder import Classifier

logger = logging.getLogger(__name__)

Collator = Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

_ROW_ID = "row_id"
# Macro recall is exactly 1 / classes where every review gets the same answer.
_CHANCE_MARGIN = 0.02


class DivergedError(UserError):
    """Training came to a number that is none.

    Attributes:
        rescued: The classifier of the best epoch that was finished, None if none was; a hook saves it.
    """

    rescued: "Classifier | None" = None

    def keep(self, classifier: "Classifier | None") -> Self:
        """The same error, which says what is kept.

        Args:
            classifier: Of the best finished epoch, if any.
        """
        if classifier is None:
            kept = "No epoch was finished, so nothing is kept."
        else:
            kept = (
                f"The classifier of epoch {classifier.settings['best_epoch']} is kept as rescued_classifier, apart from"
                " those of complete runs; it was not scored on the test reviews."
            )
        error = type(self)(f"{self} {kept}")
        error.rescued = classifier
        return error


def with_row_ids(collator: Collator) -> Collator:
    """Let a batch carry the names of its reviews; `Watch` takes them out again before the model sees it.

    Args:
        collator: Makes a batch from rows.
    """
    return lambda rows: {**collator(rows), _ROW_ID: [row[_ROW_ID] for row in rows]}


class Watch(TrainerCallback):
    """Looks at every step and every row of the history, with the same predicates as the diagnosis.

    Args:
        history: Of the run; its rows are read as they come.
        classes: How many classes there are.
        diagnosis: From where on a sign counts.
        params: The block `training`.
        workers: Those that train together; all look at the same numbers.
    """

    def __init__(
        self, history: History, classes: int, diagnosis: DiagnosisParams, params: TrainingParams, workers: Workers
    ) -> None:
        self._history, self._classes, self._diagnosis, self._params = history, classes, diagnosis, params
        self._workers = workers
        self._step_rows: list[str] = []
        self._step = 0
        self._told: set[str] = set()

    def state(self) -> dict[str, Any]:
        """What was told already."""
        return {"step": self._step, "told": sorted(self._told)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Tell no sign twice."""
        self._step, self._told = state["step"], set(state["told"])

    def take_row_ids(self, inputs: dict[str, Any]) -> None:
        """Remember which reviews a batch holds, and take their names out of it."""
        self._step_rows += inputs.pop(_ROW_ID)

    def check(self, name: str, value: float) -> None:
        """Stop training at a number that is none.

        Args:
            name: What the number is.
            value: The number.

        Raises:
            DivergedError: It is NaN or infinite.
        """
        if math.isfinite(value):
            return
        rows = [row for share in self._workers.of_all(self._step_rows) for row in share]
        raise DivergedError(
            f"the {name} became {value} at step {self._step + 1}, on the reviews {', '.join(rows)}: training"
            f" diverged; lower training.learning_rate (now {self._params.learning_rate:g}), or look at these reviews."
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Forget the reviews of the step that went well."""
        self._step, self._step_rows = state.global_step, []

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look at the row that the history just got.

        Raises:
            DivergedError: Its loss is no number.
        """
        rows = self._history.rows
        if rows[-1]["split"] == "train":
            self._look_at_steps(rows)
        elif rows[-1]["split"] == "validation":
            self.check("validation loss", rows[-1]["loss"])
            self._look_at_epochs(rows)

    def _look_at_steps(self, rows: Sequence[Mapping[str, Any]]) -> None:
        train = [row for row in rows if row["split"] == "train"]
        norms, losses = [row["grad_norm"] for row in train], [row["loss"] for row in train]
        sign, unstable = latest_signs(norms, losses, self._classes, self._diagnosis) or (None, False)
        if unstable:
            self._tell("loss", "training explodes (loss %.3f): lower training.learning_rate", losses[-1])
        if sign == "exploding":
            self._tell(sign, "gradients explode (norm %.1f): lower training.learning_rate", norms[-1])
        elif sign == "vanishing":
            self._tell(sign, "gradients vanish (norm %.4f) before anything was learned", norms[-1])
        forecast, seconds = rows[0]["forecast_seconds"], rows[-1]["forecast_seconds"]
        if is_slow(seconds, forecast, self._diagnosis):
            self._tell("slow", "far slower than foreseen: %.1f minutes instead of %.1f", seconds / 60, forecast / 60)

    def _look_at_epochs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        train = [row for row in rows if row["split"] == "train"]
        validation = [row for row in rows if row["split"] == "validation"]
        ends = [row["step"] for row in validation]
        losses = stretch_means([row["step"] for row in train], [row["loss"] for row in train], ends)
        if len(losses) < 2:
            return
        sign = loss_sign(losses, self._classes, self._diagnosis)
        if sign != "falling":
            self._tell("trend", "training loss is %s: %.3f in the first epoch, %.3f now", sign, losses[0], losses[-1])
        elif since := overfits_since(losses, [row["loss"] for row in validation], self._diagnosis):
            calibrated = [row["calibrated_loss"] for row in validation]
            if calibrated[-1] > min(calibrated):  # else it is only too sure, which calibration mends
                self._tell(
                    "overfitting", "overfitting since epoch %d: validation loss rises while training falls", since
                )
        if all(abs(row["recall"] - 1 / self._classes) < _CHANCE_MARGIN for row in validation):
            self._tell("chance", "validation is stuck at chance (accuracy %.3f)", validation[-1]["accuracy"])

    def _tell(self, name: str, message: str, *figures: object) -> None:
        if name not in self._told:
            self._told.add(name)
            logger.warning(f"Step %d: {message}", self._history.rows[-1]["step"], *figures)


@contextmanager
def memory_told(training: TrainingParams, tokenize: TokenizeParams | None) -> "Iterator[None]":
    """Say in one message what to lower where memory runs out.

    Args:
        training: Sizes of the batches.
        tokenize: Length of the texts; None where nothing is trained, only scored.

    Raises:
        UserError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        scored = f"training.eval_batch_size (now {training.eval_batch_size})"
        if tokenize is None:
            raise UserError(f"memory ran out while scoring: lower {scored}") from error
        raise UserError(
            f"memory ran out: lower training.batch_size (now {training.batch_size}; raise training.accumulation_steps"
            f" as much, and an optimizer step sees as many reviews), tokenize.max_tokens (now {tokenize.max_tokens})"
            f" or {scored}, or set training.gradient_checkpointing=true"
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    """The CPU's allocator and the accelerators' have no error type in common, only words."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "can't allocate memory" in words or "out of memory" in words
