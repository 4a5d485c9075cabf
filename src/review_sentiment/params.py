"""Typed models of every parameter block; the YAML in `conf/` is the full record of their values.

The models have no defaults: a value that the YAML does not name is an error, so a lost key can't change a run in
silence. Kedro hands each node its block as one of these models; `parse_parameters` checks all of them before anything
runs, whichever pipelines were asked for.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from difflib import get_close_matches
from itertools import groupby
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from review_sentiment.errors import UserError, fault_list

# Today's name of each renamed parameter; None: it was removed.
FORMER_NAMES: dict[str, str | None] = {
    "training.precision": "training.dtype",
    "training.engine": "training.executor",
    "training.adversarial_distance": None,
    "training.keep_freed_memory": None,
    "inference.engine": "inference.backend",
    **dict.fromkeys(
        (
            "diagnosis.grad_norm_low",
            "diagnosis.grad_norm_high",
            "diagnosis.overfit_severe",
            "diagnosis.slow_factor",
            "diagnosis.learning_rate_low",
            "diagnosis.learning_rate_high",
            "readiness.fair_min",
            "readiness.good_min",
            "readiness.very_good_min",
            "readiness.excellent_min",
            "readiness.outstanding_min",
            "report.seed",
            "monitoring.seed",
        )
    ),
}


def _split_names(value: Any) -> Any:
    """Let the command line, where a value can't hold a comma, name classes as `bad/good`."""
    return tuple(name.strip() for name in value.split("/")) if isinstance(value, str) else value


LabelNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_split_names)]


def _split_columns(value: Any) -> Any:
    """As `_split_names`; nothing after the equals sign, which Kedro reads as null, means no column."""
    return () if value is None or value == "" else _split_names(_number_as_text(value))


ColumnNames = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_split_columns)]


def _number_as_text(value: Any) -> Any:
    """Let what the command line makes a number of be a name: a year that begins a run's name, a column called 1."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# A bound on its length also makes pydantic refuse half a character, which no file could hold.
Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as far as every library takes one


class Block(BaseModel):
    """A block of parameters: frozen, and closed to names that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ColumnName = Annotated[Text, BeforeValidator(_number_as_text)]


class DataParams(Block):
    """How to read the reviews: the YAML block `data`."""

    text_column: ColumnName = Field(description="column that holds the review")
    label_column: ColumnName = Field(description="column that holds the label")
    label_names: LabelNames = Field(min_length=2, description="class names")
    empty_texts: Literal["stop", "drop"] = Field(description="rows without text")
    min_rows_per_class: PositiveInt = Field(description="a class with fewer rows stops the run")

    @model_validator(mode="after")
    def _check(self) -> Self:
        lowered = [name.casefold() for name in self.label_names]
        if len(set(lowered)) < len(lowered):
            raise ValueError(f"label_names must differ by more than case, got {list(self.label_names)}")
        if any(name.lstrip("-").isdigit() for name in lowered):
            raise ValueError(f"label_names can't be numbers, got {list(self.label_names)}: name what 0, 1, … mean")
        if any("/" in name or "," in name for name in self.label_names):
            raise ValueError(f"label_names can hold no '/' or ',', which part names, got {list(self.label_names)}")
        if self.text_column == self.label_column:
            raise ValueError(f"text_column and label_column are both '{self.text_column}'")
        return self


Rows = PositiveInt | Literal["all"]


class SubsetParams(Block):
    """How many reviews go where: the YAML block `subset`."""

    seed: Seed = Field(description="another seed draws other rows")
    sampling: Literal["balanced", "stratified"] = Field(description="class shares of each split")
    train_rows: Rows = Field(description="rows to learn from")
    validation_rows: PositiveInt = Field(description="rows that choose the epoch")
    test_rows: Rows = Field(description="rows to judge by, or `all` of the test side")
    validation_from: Literal["train", "test"] = Field(description="side that validation rows come from")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.validation_from == "test" and self.validation_rows != self.test_rows:
            raise ValueError(
                f"validation_from: test takes the test rows for validation, so validation_rows ({self.validation_rows})"
                f" must equal test_rows ({self.test_rows})"
            )
        return self


class TokenizeParams(Block):
    """How texts become tokens: the YAML block `tokenize`."""

    max_tokens: int = Field(ge=8, description="tokens of a review, special ones included")
    scoring_max_tokens: int = Field(ge=8, description="tokens of a validation, test or new review")
    truncation: Literal["head", "tail", "head_tail"] = Field(description="which part of a longer review is kept")
    head_share: float = Field(gt=0, lt=1, description="share of the kept tokens taken from the start")


class TrainingParams(Block):
    """One fine-tuning run: the YAML block `training`."""

    seed: Seed = Field(description="seed of the new head, the data order and dropout")
    epochs: PositiveInt = Field(description="passes over the training split")
    batch_size: PositiveInt = Field(description="reviews per forward pass")
    accumulation_steps: PositiveInt = Field(description="forward passes per optimizer step")
    optimizer: Literal["adamw_torch_fused", "adamw_torch", "adafactor", "sgd"] = Field(description="Trainer's `optim`")
    learning_rate: float = Field(gt=0, le=1, description="peak rate")
    learning_rate_width: PositiveInt | None = Field(description="hidden size that learning_rate is for")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = Field(description="rate after warm-up")
    warmup_steps: float = Field(ge=0, description="below 1: share of all steps; from 1: steps")
    allow_unfinished_warmup: bool = Field(description="accept a warm-up that is not shorter than the run")
    weight_decay: float = Field(ge=0, lt=1, description="AdamW's decoupled decay")
    max_grad_norm: float = Field(gt=0, description="larger gradients are scaled down to this norm")
    average_decay: float = Field(ge=0, lt=1, description="decay per step of the running mean of weights")
    hidden_dropout: float | None = Field(ge=0, lt=1, description="of hidden states and in the head")
    attention_dropout: float | None = Field(ge=0, lt=1, description="of attention weights")
    pooling: Literal["auto", "first_token"] = Field(description="which of the encoder's outputs the head reads")
    early_max_tokens: Annotated[int, Field(ge=8)] | None = Field(description="tokens of a review before the last epoch")
    head_start: Literal["linear_probe", "random"] = Field(description="what the new last layer starts from")
    head_learning_rate_factor: float = Field(gt=0, description="the new last layer's rate, times the others'")
    freeze_word_embeddings: bool = Field(description="the vocabulary's vectors stay as published")
    freeze_layers: int = Field(ge=0, description="this many of the lowest layers stay as published")
    gradient_checkpointing: bool = Field(description="recompute activations instead of keeping them")
    first_token_only: bool = Field(description="the last layer computes no other token")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(description="auto: a CUDA accelerator where there is one")
    dtype: Literal["auto", "fp32", "bf16"] = Field(description="of matmuls")
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(description="CPU threads of one operation")
    attention: Literal["auto", "eager", "sdpa", "sdpa_fp32"] = Field(description="how attention is computed")
    time_budget_minutes: float | None = Field(gt=0, description="fine-tuning ends within it")
    padding: Literal["longest", "max_tokens"] = Field(description="length of each batch")
    group_by_length: bool = Field(description="batches of similar length")
    eval_batch_size: PositiveInt = Field(description="reviews per forward pass when scoring")
    logging_steps: PositiveInt = Field(description="optimizer steps between two rows of history")
    metric_for_best: Literal["accuracy", "f1", "loss"] = Field(description="validation figure that picks the epoch")
    early_stopping_patience: PositiveInt | None = Field(description="epochs without improvement before it stops")
    checkpoint_minutes: float | None = Field(ge=0, description="training between two checkpoints")
    executor: Literal["local", "ray"] = Field(description="local: this process")
    workers: PositiveInt = Field(description="ray's processes; each computes its share of every batch")

    @model_validator(mode="after")
    def _check(self) -> Self:
        patience = self.early_stopping_patience
        if patience is not None and patience >= self.epochs:
            raise ValueError(
                f"early_stopping_patience ({patience}) must be below epochs ({self.epochs}), or it can never act"
            )
        if self.warmup_steps >= 1 and self.warmup_steps != int(self.warmup_steps):
            raise ValueError(f"warmup_steps from 1 up is a number of steps, got {self.warmup_steps}")
        if self.executor == "local" and self.workers > 1:
            raise ValueError(f"workers ({self.workers}) above 1 need executor ray, got local")
        if self.batch_size % self.workers:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of workers ({self.workers}), which share each batch"
                " evenly"
            )
        return self


class BaselineParams(Block):
    """TF-IDF with logistic regression: the YAML block `baseline`."""

    ngram_max: int = Field(ge=1, le=5, description="longest word sequence that is a feature")
    min_rows: PositiveInt = Field(description="a feature must be in this many reviews")
    inverse_regularization: float = Field(gt=0, description="scikit-learn's C; larger fits closer")


class DiagnosisParams(Block):
    """From where on a sign of training is called good or bad: the YAML block `diagnosis`."""

    grad_norm_exploding: float = Field(gt=0, description="median gradient norm above it: exploding")
    grad_norm_vanishing: float = Field(gt=0, description="median gradient norm")
    loss_exploding: float = Field(gt=1, description="training loss this many times that of guessing explodes")
    loss_change: float = Field(gt=0, lt=1, description="training loss that moves by less than this share is flat")
    chance_p: float = Field(gt=0, lt=1, description="accuracy that guessing reaches more often is called chance")
    overfit_rise: float = Field(gt=0, description="validation loss this share above its lowest is overfitting")
    balance_gap: float = Field(gt=0, lt=1, description="precision and recall of a class that lie further apart")
    interval_width: float = Field(gt=0, lt=1, description="a wider accuracy interval asks for more test rows")
    tokens_cut: float = Field(ge=0, lt=1, description="a larger share of the training tokens cut off is noted")
    smallest_class: float = Field(ge=0, lt=1, description="a class with a smaller share of the training rows is noted")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.grad_norm_vanishing >= self.grad_norm_exploding:
            raise ValueError(
                f"grad_norm_vanishing ({self.grad_norm_vanishing:g}) must be below grad_norm_exploding"
                f" ({self.grad_norm_exploding:g})"
            )
        return self


class ReadinessParams(Block):
    """What a classifier must reach to be used: the YAML block `readiness`."""

    enforce: bool = Field(description="a check that fails makes the run fail")
    accuracy_min: float = Field(ge=0, le=1, description="lowest test accuracy")
    f1_min: float = Field(ge=0, le=1, description="lowest macro F1 on the test rows")
    balance_gap_max: float = Field(gt=0, le=1, description="between precision and recall of any class")
    validation_loss_max: float = Field(gt=0, description="highest validation loss")
    calibration_error_max: float = Field(gt=0, le=1, description="highest expected calibration error")


class ReportingParams(Block):
    """What the report shows: the YAML block `report`."""

    slice_columns: ColumnNames = Field(description="further columns to slice accuracy by")
    previous_accuracy: float | None = Field(ge=0, le=1, description="of the model in use today")
    mistakes: PositiveInt = Field(description="reviews in each list of mistakes")
    sure: float = Field(gt=0.5, lt=1, description="probability from which a model counts as sure")
    resamples: int = Field(ge=100, description="of the bootstrap")


class InferenceParams(Block):
    """How new reviews are scored: the YAML block `inference`."""

    max_error: float = Field(gt=0, lt=1, description="confident answers may be wrong this often on validation rows")
    batch_size: PositiveInt = Field(description="reviews per forward pass")
    backend: Literal["auto", "torch", "onnx", "onnx_int8"] = Field(description="what computes")
    workers: PositiveInt = Field(description="processes that score")


class ExportParams(Block):
    """How much worse an exported classifier may be: the YAML block `export`."""

    max_accuracy_drop: float = Field(ge=0, le=1, description="right on this much less of the test rows")
    max_disagreement: float = Field(ge=0, le=1, description="share of test rows that may get another answer")


class MonitoringParams(Block):
    """When reviews count as unlike the training rows: the YAML block `monitoring`."""

    enforce: bool = Field(description="drift makes the run fail")
    rows: int = Field(ge=50, description="at most this many scored reviews are compared")
    psi_max: float = Field(gt=0, description="a signal drifts above this population stability index")
    p_max: float = Field(gt=0, lt=1, description="chance of a false alarm in a run, over all signals")


class ServingParams(Block):
    """What the server takes at once: the YAML block `serving`."""

    max_texts: PositiveInt = Field(description="texts in one request")
    max_characters: PositiveInt = Field(description="of one text")
    max_body_bytes: PositiveInt = Field(description="of one request")
    max_waiting: PositiveInt = Field(description="texts in the queue")
    batch_texts: PositiveInt = Field(description="of several requests, scored together")
    batch_size: PositiveInt = Field(description="texts per forward pass")
    log_seconds: float = Field(gt=0, description="time between two files of the prediction log")
    timeout_seconds: float = Field(gt=0, description="a request that waits longer gets status 503")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_waiting < self.max_texts:
            raise ValueError(
                f"max_waiting ({self.max_waiting}) must be at least max_texts ({self.max_texts}), or no request of that"
                " many texts is ever taken"
            )
        return self


class Parameters(Block):
    """All parameters of a run: the top level of the YAML."""

    reviews: Text
    encoder: Text
    train_split: Text
    test_split: Text | None
    new_reviews: Text | None
    run: Annotated[Text | None, BeforeValidator(_number_as_text)]
    resume: Annotated[bool | Text, BeforeValidator(_number_as_text)]
    data: DataParams
    subset: SubsetParams
    tokenize: TokenizeParams
    training: TrainingParams
    baseline: BaselineParams
    diagnosis: DiagnosisParams
    readiness: ReadinessParams
    report: ReportingParams
    inference: InferenceParams
    monitoring: MonitoringParams
    export: ExportParams
    serving: ServingParams


def _known_names(path: tuple[Any, ...]) -> list[str]:
    """Names that are allowed beside the last part of a path into `Parameters`."""
    model: Any = Parameters
    for part in path[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return list(getattr(model, "model_fields", {}))


def _by_value(errors: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """One error for each value; pydantic has one for each branch of a union, and adds the branch to the path."""

    def value(error: Mapping[str, Any]) -> tuple[Any, ...]:
        return *error["loc"][:2], *(part for part in error["loc"][2:] if isinstance(part, int))

    for _, (first, *others) in groupby(errors, value):
        expected = [error["msg"].removeprefix("Input should be ") for error in others]
        yield {**first, "msg": ", or ".join([first["msg"], *expected])}


def _describe(error: Mapping[str, Any]) -> str:
    """One pydantic error as one line: where, what was got, what was expected."""
    path = tuple(error["loc"])
    # A union's branches ("int", "literal['all']") are appended to the path; the user never wrote them.
    where = ".".join(str(part) for part in path[:2])
    if error["type"] == "extra_forbidden":
        if "." in str(path[-1]):
            block, _, name = str(path[-1]).partition(".")
            return f"{where} is not a parameter; in YAML, '{name}' goes indented on a line below '{block}:'"
        if where in FORMER_NAMES and FORMER_NAMES[where] is None:
            return f"{where} was removed; leave it out"
        prefix = where.removesuffix(str(path[-1]))
        close = [f"{prefix}{name}" for name in get_close_matches(str(path[-1]), _known_names(path), n=1)]
        meant = FORMER_NAMES.get(where) or next(iter(close), None)
        hint = f"did you mean '{meant}'?" if meant else f"known: {', '.join(_known_names(path))}"
        return f"{where} is not a parameter; {hint}"
    if error["type"] == "missing":
        return f"{where} is missing; conf/base names its usual value"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]}, got {error['input']!r}"


def parse_parameters(raw: Mapping[str, Any]) -> Parameters:
    """Check a run's merged parameters, all blocks at once.

    Raises:
        UserError: A name is unknown or missing, or a value out of range; the message lists every fault.
    """
    try:
        return Parameters.model_validate(dict(raw))
    except ValidationError as error:
        faults = list(dict.fromkeys(_describe(item) for item in _by_value(error.errors())))
        raise UserError(fault_list("The parameters are not valid", faults)) from None


def load_parameters(config: MutableMapping[str, Any]) -> Parameters:
    """Merge and check a run's parameters; Kedro's loader keeps the merged ones, so that asking again reads no files.

    Raises:
        UserError: As `parse_parameters`; or there is a list in the place of a block of names, or a block for a list.
    """
    try:
        raw = config["parameters"] = config["parameters"]
    except TypeError as error:  # OmegaConf 2.4 says only that two containers differ
        raise UserError(
            "The parameters can't be put together: --params or a file of the environment has a list where conf/base has"
            " a block of names, or names where it has a list; give single values, such as training.epochs=2"
        ) from error
    return parse_parameters(raw)


def parameter_text(value: Any) -> str:
    """Write a value as `--params` takes it; several names are joined by slashes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "/".join(map(str, value))
    return str(value)


def flatten(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested parameters into one level with dotted names, as `--params` takes them; lists stay values."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": item for inner, item in flatten(value).items()}
        else:
            flat[name] = value
    return flat
