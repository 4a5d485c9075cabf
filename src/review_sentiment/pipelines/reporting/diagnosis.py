"""What a reader of the training log should have noticed: one pure rule a function."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from review_sentiment import health
from review_sentiment.headline import headline_row
from review_sentiment.params import DiagnosisParams
from review_sentiment.pipelines.reporting.evaluation import balance_gap

logger = logging.getLogger(__name__)

Severity = Literal["bad", "warning", "note", "good"]
# The parameter that suits most encoders; see conf/base.
_USUAL_RATE = 1e-4
# Peak learning rates beyond these explain a model that does not learn.
_LOW_RATE, _HIGH_RATE = 1e-6, 1e-3
# A kept epoch whose calibrated loss is this share above the lowest is bad, not a warning.
_SEVERE = 0.5
_ORDER: tuple[Severity, ...] = ("bad", "warning", "note", "good")


@dataclass(frozen=True)
class Finding:
    """What a rule found, with likely causes and what to try: a parameter as `--params` takes it, or a sentence."""

    name: str
    severity: Severity
    title: str
    evidence: str
    causes: Sequence[str] = ()
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class Record:
    """What the rules read, in the shapes that they need."""

    history: pd.DataFrame
    metrics: Mapping[str, Any]
    profile: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    params: DiagnosisParams

    @cached_property
    def train(self) -> pd.DataFrame:
        """The logged training steps."""
        return self.history[self.history["split"] == "train"]

    @cached_property
    def validation(self) -> pd.DataFrame:
        """The validations, one an epoch."""
        return self.history[self.history["split"] == "validation"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.evaluation["label_names"])

    @cached_property
    def losses(self) -> list[float]:
        """Mean training loss by epoch; of the two halves where there is only one epoch."""
        ends = self.validation["step"].tolist()
        if len(ends) < 2 and len(self.train) >= 2:
            last = int(self.train["step"].iloc[-1])
            ends = [last // 2, last]
        return health.stretch_means(self.train["step"].tolist(), self.train["loss"].tolist(), ends)

    @property
    def peak_rate(self) -> float:
        """Highest learning rate that was logged."""
        return float(self.train["learning_rate"].max())

    @property
    def given_rate(self) -> float:
        """`training.learning_rate`: the peak before it was scaled to the encoder's width."""
        return self.peak_rate / float(self.history.get("learning_rate_scale", pd.Series([1.0])).iloc[0])


def diagnose(
    history: pd.DataFrame,
    metrics: dict[str, Any],
    data_profile: dict[str, Any],
    evaluation: dict[str, Any],
    diagnosis: DiagnosisParams,
) -> dict[str, Any]:
    """Apply every rule to what was saved of the training.

    Returns:
        `worst` (severity), and `findings`, bad ones first: `name`, `severity` (bad, warning, note or good), `title`,
        `evidence`, `causes`, `try`.
    """
    rules: Sequence[Callable[[Record], Finding | None]] = (
        find_exploding_loss, find_loss_trend, find_gradient_norm, find_chance, find_validation_trend, find_overfitting,
        find_learning_rate, find_warm_up, find_pace, find_balance, find_few_test_rows, find_selection_on_test,
        find_truncation, find_small_class, find_completion,
    )  # fmt: skip
    record = Record(history, metrics, data_profile, evaluation, diagnosis)
    found = [finding for rule in rules if (finding := rule(record)) is not None]
    found.sort(key=lambda finding: _ORDER.index(finding.severity))
    for finding in found:
        if finding.severity in ("bad", "warning"):
            logger.warning("%s %s", finding.title, finding.evidence)
    rows = [
        {"name": finding.name, "severity": finding.severity, "title": finding.title, "evidence": finding.evidence,
         "causes": list(finding.causes), "try": list(finding.changes)}
        for finding in found
    ]  # fmt: skip
    return {"worst": found[0].severity, "findings": rows}


def _series(values: Sequence[float]) -> str:
    """A series as text; a long one is shown by its ends."""
    shown = [f"{value:.3f}" for value in values]
    return " → ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]])


def _try_rate(value: float) -> str:
    return f"training.learning_rate={value:.1g}"


def find_exploding_loss(record: Record) -> Finding | None:
    """Training loss far above guessing in any epoch."""
    if not record.losses or not health.is_unstable(record.losses, record.classes, record.params):
        return None
    worst = int(np.argmax(record.losses))
    where = f" in epoch {worst + 1}" if len(record.validation) > 1 else ""
    return Finding(
        "loss_exploding", "bad", f"Training exploded{where}: its loss went far above guessing.",
        f"Mean training loss {_series(record.losses)}; guessing gives {health.chance_loss(record.classes):.3f}. The"
        f" learning rate peaked at {record.peak_rate:.1e}.",
        ["learning rate too high", "no warm-up"],
        [_try_rate(min(record.given_rate / 10, _USUAL_RATE)), "training.warmup_steps=0.1",
         "training.max_grad_norm=0.5"],
    )  # fmt: skip


def find_loss_trend(record: Record) -> Finding | None:
    """Training loss falling, flat or rising, by means over epochs."""
    losses, rate = record.losses, record.given_rate
    if len(losses) < 2:
        return None
    evidence = f"Mean training loss {_series(losses)}; guessing gives {health.chance_loss(record.classes):.3f}."
    sign = health.loss_sign(losses, record.classes, record.params)
    if sign == "falling":
        return Finding("loss_falling", "good", "Training loss falls.", evidence)
    if sign == "flat":
        fell = losses[-1] < losses[0] * (1 - record.params.loss_change)
        is_low = rate < _USUAL_RATE / 2
        return Finding(
            "loss_flat", "bad",
            f"Training loss does not fall{' below guessing' if fell else ''}: the model is not learning.", evidence,
            [f"learning rate too {'low' if is_low else 'high'}", "too many layers frozen",
             "labels that do not fit the texts"],
            [_try_rate(min(rate * 10, _USUAL_RATE) if is_low else rate / 10), "training.freeze_layers=0"],
        )  # fmt: skip
    return Finding(
        "loss_rising", "bad", "Training loss rises: the model is getting worse.", evidence,
        ["learning rate too high", "NaN or infinite values"],
        [_try_rate(rate / 10), "training.max_grad_norm=0.5"],
    )  # fmt: skip


def find_gradient_norm(record: Record) -> Finding | None:
    """Gradient norm exploding, vanishing or healthy, by medians over epochs."""
    rows = record.train
    if rows.empty:
        return None
    groups = [group for _, group in rows.groupby(np.searchsorted(record.validation["step"], rows["step"]))]
    signs = [
        health.gradient_sign(group["grad_norm"].tolist(), float(group["loss"].mean()), record.classes, record.params)
        for group in groups
    ]
    medians = [float(group["grad_norm"].median()) for group in groups]
    worst = rows.iloc[int(rows["grad_norm"].argmax())]
    evidence = (
        f"Median by epoch {_series(medians)}, largest {worst['grad_norm']:.1f} at step {int(worst['step'])}; healthy"
        f" is {health.HEALTHY_NORMS[0]:g} to {health.HEALTHY_NORMS[1]:g}."
    )
    if "exploding" in signs:
        return Finding(
            "gradient_exploding", "bad", f"Gradients explode in epoch {signs.index('exploding') + 1}.", evidence,
            ["learning rate too high", "too little clipping", "NaN or infinite values"],
            [_try_rate(record.given_rate / 10), "training.max_grad_norm=0.5", "training.dtype=fp32"],
        )  # fmt: skip
    if "vanishing" in signs:
        return Finding(
            "gradient_vanishing", "bad",
            f"Gradients vanish in epoch {signs.index('vanishing') + 1}, before anything was learned.", evidence,
            ["frozen weights", "a head that is saturated after too high a learning rate"],
            ["training.freeze_layers=0", _try_rate(record.given_rate / 10)],
        )  # fmt: skip
    # The first steps on a new head often have small gradients, so only a run of nothing else is worth a note.
    if set(signs) <= {"small", "large"}:
        return Finding("gradient_unusual", "note", "Gradient norms are outside the usual range.", evidence)
    healthy = set(signs) == {"healthy"}
    title = "Gradient norms are in a healthy range." if healthy else "Gradients neither exploded nor vanished too soon."
    return Finding("gradient_healthy", "good", title, evidence)


def find_chance(record: Record) -> Finding | None:
    """Test accuracy that guessing reaches too, with the case of one predicted class."""
    from scipy.stats import binomtest

    accuracy, rows = headline_row(record.evaluation, "accuracy")["value"], record.evaluation["rows"]
    chance = record.evaluation["versus_chance"]["accuracy"]
    right = round(accuracy * rows)
    p_value = float(binomtest(right, rows, chance, alternative="greater").pvalue)
    evidence = (
        f"{right} of {rows:,} test reviews classified correctly ({accuracy:.1%}); always answering the commonest class"
        f" gives {chance:.1%}"
    )
    if p_value <= record.params.chance_p:
        return Finding("above_chance", "good", "The classifier is better than guessing.", f"{evidence}.")
    causes = ["labels that do not fit the texts (mixed up, or mapped to the wrong class)", "learning rate too low"]
    title = "The classifier is no better than guessing, as far as the test reviews can tell."
    given = np.asarray(record.evaluation["confusion_matrix"]).sum(axis=0)
    if (given > 0).sum() == 1:
        only = record.evaluation["label_names"][int(given.argmax())]
        title = f"The classifier answers '{only}' to every review."
        causes.insert(0, "a learning rate so high that the head is saturated")
    often = f"one of {1 / p_value:,.0f}" if p_value < 2 / 3 else "most"
    return Finding(
        "chance", "bad", title, f"{evidence}, and would do as well in {often} draws.",
        [*causes, "a wrong number of classes"],
        ["Look at twenty reviews with their labels",
         "Check that data.label_names are in the order of the labels' numbers", _try_rate(_USUAL_RATE)],
    )  # fmt: skip


def find_validation_trend(record: Record) -> Finding | None:
    """Validation accuracy improving from epoch to epoch, or not."""
    accuracy = record.validation["accuracy"].tolist()
    if len(accuracy) < 2 or accuracy[0] == 1:
        return None
    evidence = f"Validation accuracy {_series(accuracy)}."
    if max(accuracy[1:]) > accuracy[0]:
        return Finding("validation_improves", "good", "Validation accuracy improves.", evidence)
    return Finding(
        "validation_stuck", "note", "No epoch after the first improved validation accuracy.", evidence,
        ["the first epoch learned all there is", "learning rate too low or too high"], ["training.epochs=1"],
    )  # fmt: skip


def find_overfitting(record: Record) -> Finding | None:
    """Validation loss rising while training loss falls: since which epoch, and whether the kept one suffers."""
    validation, train = record.validation["loss"].tolist(), record.losses
    if len(validation) < 2 or not train:
        return None
    if health.loss_sign(train, record.classes, record.params) != "falling":
        return None  # a model that has not learned its training rows can't overfit them
    since = health.overfits_since(train, validation, record.params)
    if since is None:
        title = "Validation loss does not rise while training loss falls."
        return Finding("no_overfitting", "good", title, f"Validation loss {_series(validation)}.")
    kept = int(record.validation["best"].to_numpy().argmax()) + 1
    # Most of a rising loss is overconfidence, which the temperature corrects; what it can't correct is severe.
    calibrated = record.validation["calibrated_loss"].tolist()
    evidence = (
        f"From epoch {since} on, validation loss rises from {min(validation):.3f} to {validation[-1]:.3f}, while"
        f" training loss falls from {train[since - 2]:.3f} to {train[-1]:.3f}. Epoch {kept} was kept, with"
        f" {validation[kept - 1]:.3f}, after calibration {calibrated[kept - 1]:.3f} (lowest {min(calibrated):.3f})."
    )
    if kept >= since and calibrated[kept - 1] == min(calibrated):
        return Finding(
            "overfitting", "note", f"Overconfident since epoch {since}, which calibration corrects.", evidence,
            ["too few training reviews"], ["More training reviews"],
        )  # fmt: skip
    severe = kept >= since and calibrated[kept - 1] > min(calibrated) * (1 + _SEVERE)
    return Finding(
        "overfitting", "bad" if severe else "warning", f"Overfitting since epoch {since}.", evidence,
        ["more epochs than the training reviews can feed", "too few training reviews", "too little regularization"],
        [f"training.epochs={since - 1}", "training.metric_for_best=loss", "training.weight_decay=0.1",
         "training.hidden_dropout=0.1", "More training reviews"],
    )  # fmt: skip


def find_learning_rate(record: Record) -> Finding | None:
    """A peak learning rate that explains why the model does not learn."""
    if len(record.losses) < 2:
        return None
    sign = health.loss_sign(record.losses, record.classes, record.params)
    rate = record.peak_rate
    if rate < _LOW_RATE and sign == "flat":
        return Finding(
            "learning_rate_low", "bad", "The learning rate is too low: the model is not learning.",
            f"It peaked at {rate:.1e}, and the training loss stayed at {_series(record.losses)}.",
            ["training.learning_rate far below what fine-tuning needs"], [_try_rate(_USUAL_RATE)],
        )  # fmt: skip
    gradients = find_gradient_norm(record)
    explodes = find_exploding_loss(record) or (gradients is not None and gradients.name == "gradient_exploding")
    if rate > _HIGH_RATE and (sign != "falling" or explodes):
        return Finding(
            "learning_rate_high", "bad", "The learning rate is too high: training is unstable.",
            f"It peaked at {rate:.1e}; training loss {_series(record.losses)}.",
            ["training.learning_rate far above what fine-tuning tolerates"],
            [_try_rate(_USUAL_RATE), "training.warmup_steps=0.1"],
        )  # fmt: skip
    return None


def find_warm_up(record: Record) -> Finding | None:
    """A learning rate that rose to the very end."""
    rates, steps = record.train["learning_rate"].tolist(), record.train["step"].tolist()
    if not health.warm_up_never_ended(rates):
        return None
    return Finding(
        "warm_up_unfinished", "warning", "Warm-up never ended: the learning rate rose to the last step.",
        f"It was {rates[0]:.1e} at step {steps[0]} and {rates[-1]:.1e} at step {steps[-1]}, and never decayed.",
        ["training.warmup_steps is more than the run has steps"], ["training.warmup_steps=0.1"],
    )  # fmt: skip


def find_pace(record: Record) -> Finding:
    """Fine-tuning time against its forecast."""
    seconds, forecast = record.metrics["seconds"]["fine_tune"], record.metrics["seconds"]["forecast"]
    evidence = f"Fine-tuning took {seconds / 60:.1f} minutes; the forecast was {forecast / 60:.1f}."
    if health.is_slow(seconds, forecast):
        return Finding(
            "slow", "warning", f"Fine-tuning took {seconds / forecast:.1f} times its forecast.", evidence,
            ["other work on this machine", "a processor that slowed down when hot", "too little memory"],
            [f"training.time_budget_minutes={max(1, round(forecast / 60))}", "tokenize.max_tokens=128",
             "training.threads=auto"],
        )  # fmt: skip
    title = "It took about as long as forecast, or less."
    if seconds > 1.1 * forecast:
        title = f"It took {seconds / forecast:.1f} times as long as forecast, which is usual on a busy machine."
    return Finding("pace_as_forecast", "good", title, evidence)


def find_balance(record: Record) -> Finding:
    """Precision and recall of each class."""
    gap, worst = balance_gap(record.evaluation["per_class"])
    evidence = (
        f"Largest gap: '{worst['label']}' has precision {worst['precision']:.1%} and recall {worst['recall']:.1%} on"
        f" {worst['rows']:,} test reviews."
    )
    if gap <= record.params.balance_gap:
        return Finding("balanced", "good", "Precision and recall are balanced.", evidence)
    fault = "missed" if worst["precision"] > worst["recall"] else "predicted"
    return Finding(
        "unbalanced", "warning",
        f"Precision and recall of '{worst['label']}' are out of balance: it is {fault} too often.", evidence,
        ["unequal classes in training", "training ended on a lopsided step"],
        ["subset.sampling=balanced", "training.average_decay=0.95", "training.metric_for_best=f1"],
    )  # fmt: skip


def find_few_test_rows(record: Record) -> Finding | None:
    """An interval of accuracy that is too wide."""
    from scipy.stats import norm

    accuracy = headline_row(record.evaluation, "accuracy")
    value, low, high = (accuracy[name] for name in ("value", "low", "high"))
    width = record.params.interval_width
    if high - low <= width:
        return None
    # An accuracy of 0.5, the widest case, would ask for more rows than needed; of 1, for none.
    share = min(max(value, 0.5), 0.95)
    needed = int(np.ceil((2 * norm.isf(0.025) / width) ** 2 * share * (1 - share)))
    return Finding(
        "few_test_rows", "warning",
        f"{record.evaluation['rows']:,} test reviews are too few to say how good the classifier is.",
        f"Accuracy is somewhere between {low:.1%} and {high:.1%}; about {needed:,} test reviews would narrow that to"
        f" {100 * width:g} points.",
        ["subset.test_rows is small"], [f"subset.test_rows={needed}"],
    )  # fmt: skip


def find_selection_on_test(record: Record) -> Finding | None:
    """An epoch that was chosen on the test rows."""
    if not record.evaluation["selected_on_test"]:
        return None
    return Finding(
        "selected_on_test", "warning",
        "The epoch was chosen on the test reviews, so all metrics flatter the classifier.",
        "Validation and test hold the same reviews.",
        ["subset.validation_from is test"], ["subset.validation_from=train"],
    )  # fmt: skip


def find_truncation(record: Record) -> Finding | None:
    """Many tokens that the encoder never saw."""
    train = record.profile["splits"]["train"]
    if train["tokens_cut"] <= record.params.tokens_cut:
        return None
    return Finding(
        "truncation", "note", "Much of the training text is truncated.",
        f"{train['texts_truncated']:.1%} of the training reviews are longer than the limit; {train['tokens_cut']:.1%}"
        " of all tokens are not seen.",
        ["tokenize.max_tokens is short for these reviews"],
        ["tokenize.max_tokens=512", "tokenize.truncation=head_tail"],
    )  # fmt: skip


def find_small_class(record: Record) -> Finding | None:
    """A class with few training rows."""
    train = record.profile["splits"]["train"]
    shares = train["class_shares"]
    name = min(shares, key=lambda label: shares[label])
    # With many classes an equal share is small too.
    if shares[name] >= min(record.params.smallest_class, 0.5 / len(shares)):
        return None
    return Finding(
        "small_class", "note", f"'{name}' is rare in training.",
        f"{shares[name]:.1%} of {train['rows']:,} training reviews.", ["the source holds few of them"],
        ["subset.sampling=balanced", "A number for subset.train_rows, since 'all' takes all there are",
         f"More reviews of '{name}'"],
    )  # fmt: skip


def find_completion(record: Record) -> Finding:
    """Training that ran to its end."""
    steps, planned = record.metrics["steps"], record.metrics["planned_steps"]
    evidence = f"{steps:,} steps, {len(record.validation)} validations, no NaN or infinite value."
    if steps < planned:
        return Finding(
            "ended_early", "note", f"Training ended after {steps:,} of {planned:,} planned steps.", evidence,
            ["a time budget", "early stopping"],
        )  # fmt: skip
    return Finding("completed", "good", "Training ran to its end.", evidence)
