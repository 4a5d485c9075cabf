"""The description of a training, which each step completes: `Prepared`, `Measured`, then `Planned`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from review_sentiment.distributed import Workers
from review_sentiment.model.encoder import Pretrained
from review_sentiment.params import DiagnosisParams, TokenizeParams, TrainingParams
from review_sentiment.pipelines.modeling.batches import Batches, preview_batches
from review_sentiment.pipelines.modeling.benchmark import Batch, ComputeSettings
from review_sentiment.pipelines.modeling.plan import Pace, TrainingPlan

if TYPE_CHECKING:
    from review_sentiment.datasets.checkpoints import Checkpoint, Checkpoints


@dataclass(frozen=True)
class Job:
    """What to train.

    Attributes:
        tokenized: Splits `train` and `validation` with `row_id`, `input_ids`, `length` and `label_id`.
        label_names: Class names in the order of label_id.
        tokenize: The block `tokenize`, kept with the classifier so that new texts are cut the same way.
        diagnosis: The block `diagnosis`: bounds of the signs that are logged while it trains.
    """

    tokenized: Mapping[str, Any]
    label_names: Sequence[str]
    pretrained: Pretrained
    training: TrainingParams
    tokenize: TokenizeParams
    diagnosis: DiagnosisParams


@dataclass(frozen=True)
class Prepared:
    """A run whose model has a head, and whose parameters and data fit together.

    Attributes:
        resumed: The checkpoint to continue from, if any.
        identity: Everything that decides the result; a resumed training must have the same.
        model: The classifier, with a new head.
        full_plan: The steps without a time budget.
    """

    job: Job
    workers: Workers
    checkpoints: "Checkpoints"
    resumed: "Checkpoint | None"
    identity: dict[str, Any]
    start: float
    model: PreTrainedModel
    batches: Batches
    learning_rate_scale: float
    full_plan: TrainingPlan

    @property
    def pads_to_limit(self) -> bool:
        """Whether each batch is padded to the length limit."""
        return self.job.training.padding == "max_tokens"

    def typical_batch(self, params: TrainingParams) -> tuple[Batch, float]:
        """This worker's share of a batch of about the mean size, and the share of padding in an epoch."""
        train = self.job.tokenized["train"]
        to_length = self.batches.max_length.full if self.pads_to_limit else None
        rows, padding_share = preview_batches(train["length"][:], params, to_length)
        return self.batches.at_full_length([train[row] for row in self.workers.share(rows)]), padding_share


@dataclass(frozen=True)
class Measured(Prepared):
    """A run whose computation was chosen and timed."""

    compute: ComputeSettings
    pace: Pace
    padding_share: float

    @property
    def sized_params(self) -> TrainingParams:
        """The block `training` with the batch sizes that this device computes."""
        return with_sizes(self.job.training, self.compute)


@dataclass(frozen=True)
class Planned(Measured):
    """A run whose steps are settled."""

    plan: TrainingPlan


def with_sizes(params: TrainingParams, compute: ComputeSettings) -> TrainingParams:
    """The block `training` with the batch sizes that a device computes."""
    names = ("batch_size", "accumulation_steps", "eval_batch_size")
    return params.model_copy(update={name: getattr(compute, name) for name in names})
