"""How a training fails: it diverges, or memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from review_sentiment.errors import UserError
from review_sentiment.params import TokenizeParams, TrainingParams

if TYPE_CHECKING:
    from review_sentiment.model.encoder import Classifier


class DivergedError(UserError):
    """A loss or gradient norm became NaN or infinite.

    Attributes:
        rescued: The classifier of the best finished epoch, None if none was finished; a hook saves it.
    """

    rescued: "Classifier | None" = None

    def keep(self, classifier: "Classifier | None") -> Self:
        """The same error, with what could be rescued."""
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


@contextmanager
def out_of_memory_explained(training: TrainingParams, tokenize: TokenizeParams | None) -> Iterator[None]:
    """Turn an out-of-memory error into a message that says what to lower.

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
