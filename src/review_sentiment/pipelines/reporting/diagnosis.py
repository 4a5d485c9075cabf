"""What a reader of the training log should have noticed: one pure rule a function."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from review_sentiment.headline import headline_row
from review_sentiment.health import (
    chance_loss,
    gradient_sign,
    is_slow,
    is_unstable,
    loss_sign,
    overfits_since,
    stretch_means,
    warm_up_never_ended,
)
from review_sentiment.params import DiagnosisParams
from review_sentiment.pipelines.reporting.evaluation import balance_gap

Severity = Literal["bad", "warning", "note", "good"]
# The parameter that suits most encoders; see conf/base.
_USUAL_RATE = 1e-4
_ORDER: tuple[Severity, ...] = ("bad", "warning", "note", "good")


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        name: Short key.
        severity: How much it matters.
        title: One short sentence.
        evidence: Numbers and steps.
        causes: Likely ones, most likely first.
        changes: Parameters to try, as `--params` takes them, or a sentence.
    """

    name: str
    severity: Severity
    title: str
    evidence: str
    causes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The finding as it is saved."""
        return {
            "name": self.name, "severity": self.severity, "title": self.title, "evidence": self.evidence,
            "causes": list(self.causes), "try": list(self.changes),
        }  # fmt: skip


class Record:
    """What the rules read, in the shapes that they need.

    Args:
        history: Of the fine-tuning.
        metrics: All figures of the run.
        data_profile: Of the data.
        evaluation: Figures on the test rows.
        params: The block `diagnosis`.
    """

    def __init__(
        self,
        history: pd.DataFrame,
        metrics: Mapping[str, Any],
        data_profile: Mapping[str, Any],
        evaluation: Mapping[str, Any],
        params: DiagnosisParams,
    ) -> None:
        self.metrics, self.profile, self.evaluation, self.params = metrics, data_profile, evaluation, params
        self.history = history
        self.train = history[history["split"] == "train"]
        self.validation = history[history["split"] == "validation"]
        self.classes = len(evaluation["label_names"])
        self.accuracy = headline_row(evaluation, "accuracy")
        self.kept = int(history.loc[history["best"], "step"].iloc[0])

    @property
    def losses(self) -> list[float]:
        """Mean training loss by epoch; of the two halves where there is only one epoch."""
        ends = self.validation["step"].tolist()
        if len(ends) < 2 and len(self.train) >= 2:
            last = int(self.train["step"].iloc[-1])
            ends = [last // 2, last]
        return stretch_means(self.train["step"].tolist(), self.train["loss"].tolist(), ends)

    @property
    def peak_rate(self) -> float:
        """Highest learning rate that was logged."""
        return float(self.train["learning_rate"].max())

    @property
    def given_rate(self) -> float:
        """The parameter that gave this rate; the encoder's width changes what it means."""
        scale = float(self.history["learning_rate_scale"].iloc[0]) if "learning_rate_scale" in self.history else 1.0
        return self.peak_rate / scale

    @property
    def right(self) -> int:
        """Test rows that the classifier gets right."""
        return round(self.accuracy["value"] * self.evaluation["rows"])

    @property
    def chance_p(self) -> float:
        """How often guessing the commonest class would do as well on the test rows."""
        from scipy.stats import binomtest

        chance = self.evaluation["versus_chance"]["accuracy"]
        return float(binomtest(self.right, self.evaluation["rows"], chance, alternative="greater").pvalue)

    def epoch_of(self, step: int) -> int:
        """The epoch, counted from 1, that ended at a step."""
        return int((self.validation["step"] <= step).sum())


def diagnose_run(record: Record) -> dict[str, Any]:
    """Apply every rule.

    Args:
        record: What was saved of the run.

    Returns:
        `worst` severity, and `findings`, bad ones first.
    """
    rules: Sequence[Callable[[Record], Finding | None]] = (
        find_exploding_loss, find_loss_trend, find_gradient_norm, find_chance, find_validation_trend, find_overfitting,
        find_learning_rate, find_warm_up, find_pace, find_balance, find_few_test_rows, find_selection_on_test,
        find_truncation, find_small_class, find_completion,
    )  # fmt: skip
    found = [finding for rule in rules if (finding := rule(record)) is not None]
    found.sort(key=lambda finding: _ORDER.index(finding.severity))
    return {"worst": found[0].severity if found else "good", "findings": [finding.as_dict() for finding in found]}


def _numbers(values: Sequence[float]) -> str:
    """A series in words; a long one is shown by its ends."""
    shown = [f"{value:.3f}" for value in values]
    return " → ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]])


def _rate(value: float) -> str:
    return f"training.learning_rate={value:.1g}"


def find_exploding_loss(record: Record) -> Finding | None:
    """Training loss far above guessing in any epoch."""
    if not record.losses or not is_unstable(record.losses, record.classes, record.params):
        return None
    worst = int(np.argmax(record.losses))
    where = f" in epoch {worst + 1}" if len(record.validation) > 1 else ""
    return Finding(
        "loss_exploding",
        "bad",
        f"Training exploded{where}: its loss went far above guessing.",
        f"Mean training loss {_numbers(record.losses)}; guessing has {chance_loss(record.classes):.3f}. The learning"
        f" rate peaked at {record.peak_rate:.1e}.",
        ("learning rate too high", "no warm-up"),
        (_rate(min(record.given_rate / 10, _USUAL_RATE)), "training.warmup_steps=0.1", "training.max_grad_norm=0.5"),
    )


def find_loss_trend(record: Record) -> Finding | None:
    """Training loss falling, flat or rising, by means over epochs."""
    if len(record.losses) < 2:
        return None
    losses = record.losses
    evidence = f"Mean training loss {_numbers(losses)}; guessing has {chance_loss(record.classes):.3f}."
    sign = loss_sign(losses, record.classes, record.params)
    if sign == "falling":
        return Finding("loss_falling", "good", "Training loss falls.", evidence)
    if sign == "flat":
        fell = losses[-1] < losses[0] * (1 - record.params.loss_change)
        is_low = record.given_rate < _USUAL_RATE / 2
        return Finding(
            "loss_flat",
            "bad",
            f"Training loss does not fall{' below guessing' if fell else ''}: the model is not learning.",
            evidence,
            (
                f"learning rate too {'low' if is_low else 'high'}",
                "too many layers frozen",
                "labels that do not fit the texts",
            ),
            (
                _rate(min(record.given_rate * 10, _USUAL_RATE) if is_low else record.given_rate / 10),
                "training.freeze_layers=0",
            ),
        )
    return Finding(
        "loss_rising",
        "bad",
        "Training loss rises: the model is getting worse.",
        evidence,
        ("learning rate too high", "numbers out of range"),
        (_rate(record.given_rate / 10), "training.max_grad_norm=0.5"),
    )


def find_gradient_norm(record: Record) -> Finding | None:
    """Gradient norm exploding, vanishing or healthy, by medians over epochs."""
    rows = record.train
    if rows.empty:
        return None
    epochs = np.searchsorted(record.validation["step"], rows["step"])
    groups = [group for _, group in rows.groupby(epochs)]
    signs = [
        gradient_sign(group["grad_norm"].tolist(), float(group["loss"].mean()), record.classes, record.params)
        for group in groups
    ]
    medians = [float(group["grad_norm"].median()) for group in groups]
    worst = rows.iloc[int(rows["grad_norm"].argmax())]
    evidence = (
        f"Median by epoch {_numbers(medians)}, largest {worst['grad_norm']:.1f} at step {int(worst['step'])}; healthy"
        f" is {record.params.grad_norm_low:g} to {record.params.grad_norm_high:g}."
    )
    if "exploding" in signs:
        return Finding(
            "gradient_exploding",
            "bad",
            f"Gradients explode in epoch {signs.index('exploding') + 1}.",
            evidence,
            ("learning rate too high", "too little clipping", "numbers out of range"),
            (_rate(record.given_rate / 10), "training.max_grad_norm=0.5", "training.dtype=fp32"),
        )
    if "vanishing" in signs:
        return Finding(
            "gradient_vanishing",
            "bad",
            f"Gradients vanish in epoch {signs.index('vanishing') + 1}, before anything was learned.",
            evidence,
            ("frozen weights", "a head that is saturated after too high a learning rate"),
            ("training.freeze_layers=0", _rate(record.given_rate / 10)),
        )
    # The first steps on a new head often have small gradients, so only a whole run of them is worth a note.
    if set(signs) <= {"small", "large"}:
        return Finding("gradient_unusual", "note", "Gradient norms are outside the usual range.", evidence)
    if set(signs) != {"healthy"}:
        return Finding("gradient_healthy", "good", "Gradients neither exploded nor vanished too soon.", evidence)
    return Finding("gradient_healthy", "good", "Gradient norms are in a healthy range.", evidence)


def find_chance(record: Record) -> Finding | None:
    """Test accuracy that guessing reaches too, with the case of one predicted class."""
    chance = record.evaluation["versus_chance"]["accuracy"]
    p_value = record.chance_p
    evidence = (
        f"{record.right} of {record.evaluation['rows']:,} test reviews right ({record.accuracy['value']:.1%}); always"
        f" answering the commonest class gives {chance:.1%}"
    )
    given = np.asarray(record.evaluation["confusion_matrix"]).sum(axis=0)
    if p_value <= record.params.chance_p:
        return Finding("above_chance", "good", "The classifier is better than guessing.", f"{evidence}.")
    causes = ["labels that do not fit the texts (mixed up, or mapped to the wrong class)", "learning rate too low"]
    title = "The classifier is no better than guessing, as far as the test reviews can tell."
    if (given > 0).sum() == 1:
        only = record.evaluation["label_names"][int(given.argmax())]
        title = f"The classifier answers '{only}' to every review."
        causes.insert(0, "a learning rate so high that the head is saturated")
    return Finding(
        "chance",
        "bad",
        title,
        f"{evidence}, and would do as well in {f'one of {1 / p_value:,.0f}' if p_value < 2 / 3 else 'most'} draws.",
        (*causes, "a wrong number of classes"),
        (
            "Look at twenty reviews with their labels",
            "Check that data.label_names stand in the order of the labels' numbers",
            _rate(_USUAL_RATE),
        ),
    )


def find_validation_trend(record: Record) -> Finding | None:
    """Validation accuracy improving from epoch to epoch, or not."""
    accuracy = record.validation["accuracy"].tolist()
    if len(accuracy) < 2 or accuracy[0] == 1:
        return None
    evidence = f"Validation accuracy {_numbers(accuracy)}."
    if max(accuracy[1:]) > accuracy[0]:
        return Finding("validation_improves", "good", "Validation accuracy improves.", evidence)
    return Finding(
        "validation_stuck",
        "note",
        "No epoch after the first improved validation accuracy.",
        evidence,
        ("the first epoch learned all there is", "learning rate too low or too high"),
        ("training.epochs=1",),
    )


def find_overfitting(record: Record) -> Finding | None:
    """Validation loss rising while training loss falls: since which epoch, and whether the kept one suffers."""
    validation, train = record.validation["loss"].tolist(), record.losses
    if len(validation) < 2 or not train:
        return None
    if loss_sign(train, record.classes, record.params) != "falling":
        return None  # what learned nothing learned nothing by heart
    since = overfits_since(train, validation, record.params)
    if since is None:
        return Finding(
            "no_overfitting",
            "good",
            "Validation loss does not rise while training loss falls.",
            f"Validation loss {_numbers(validation)}.",
        )
    kept = record.epoch_of(record.kept)
    lowest = min(validation)
    # Most of a rising loss is too much confidence, which the temperature mends; what it can't mend is severe.
    calibrated = record.validation["calibrated_loss"].tolist()
    severe = kept >= since and calibrated[kept - 1] > min(calibrated) * (1 + record.params.overfit_severe)
    evidence = (
        f"From epoch {since} on, validation loss rises from {lowest:.3f} to {validation[-1]:.3f}, while training"
        f" loss falls from {train[since - 2]:.3f} to {train[-1]:.3f}. Epoch {kept} was kept, with"
        f" {validation[kept - 1]:.3f}, after calibration {calibrated[kept - 1]:.3f} (lowest {min(calibrated):.3f})."
    )
    if kept >= since and calibrated[kept - 1] == min(calibrated):
        return Finding(
            "overfitting",
            "note",
            f"Too sure of itself since epoch {since}, which calibration mends.",
            evidence,
            ("too few training reviews",),
            ("More training reviews",),
        )
    return Finding(
        "overfitting",
        "bad" if severe else "warning",
        f"Overfitting since epoch {since}.",
        evidence,
        ("more epochs than the training reviews can feed", "too few training reviews", "too little regularization"),
        (f"training.epochs={since - 1}", "training.metric_for_best=loss", "training.weight_decay=0.1",
         "training.hidden_dropout=0.1", "More training reviews"),
    )  # fmt: skip


def find_learning_rate(record: Record) -> Finding | None:
    """A peak learning rate that explains why the model does not learn."""
    if len(record.losses) < 2:
        return None
    sign = loss_sign(record.losses, record.classes, record.params)
    rate, params = record.peak_rate, record.params
    if rate < params.learning_rate_low and sign == "flat":
        return Finding(
            "learning_rate_low",
            "bad",
            "The learning rate is too low: the model is not learning.",
            f"It peaked at {rate:.1e}, and the training loss stayed at {_numbers(record.losses)}.",
            ("training.learning_rate far below what fine-tuning needs",),
            (_rate(_USUAL_RATE),),
        )
    gradients = find_gradient_norm(record)
    explodes = find_exploding_loss(record) or (gradients is not None and gradients.name == "gradient_exploding")
    if rate > params.learning_rate_high and (sign != "falling" or explodes):
        return Finding(
            "learning_rate_high",
            "bad",
            "The learning rate is too high: training is unstable.",
            f"It peaked at {rate:.1e}; training loss {_numbers(record.losses)}.",
            ("training.learning_rate far above what fine-tuning bears",),
            (_rate(_USUAL_RATE), "training.warmup_steps=0.1"),
        )
    return None


def find_warm_up(record: Record) -> Finding | None:
    """A learning rate that rose to the very end."""
    rates = record.train["learning_rate"].tolist()
    if not warm_up_never_ended(rates):
        return None
    return Finding(
        "warm_up_unfinished",
        "warning",
        "Warm-up never ended: the learning rate rose to the last step.",
        f"It was {rates[0]:.1e} at step {int(record.train['step'].iloc[0])} and {rates[-1]:.1e} at step"
        f" {int(record.train['step'].iloc[-1])}, and never decayed.",
        ("training.warmup_steps is more than the run has steps",),
        ("training.warmup_steps=0.1",),
    )


def find_pace(record: Record) -> Finding | None:
    """Fine-tuning time against its forecast."""
    seconds, forecast = record.metrics["seconds"]["fine_tune"], record.metrics["seconds"]["forecast"]
    evidence = f"Fine-tuning took {seconds / 60:.1f} minutes; {forecast / 60:.1f} were foreseen."
    if not is_slow(seconds, forecast, record.params):
        title = "It took about as long as foreseen, or less."
        if seconds > 1.1 * forecast:
            title = f"It took {seconds / forecast:.1f} times as long as foreseen, which busy machines do."
        return Finding("pace_as_forecast", "good", title, evidence)
    return Finding(
        "slow",
        "warning",
        f"Fine-tuning took {seconds / forecast:.1f} times its forecast.",
        evidence,
        ("other work on this machine", "a processor that slowed down when hot", "too little memory"),
        (
            f"training.time_budget_minutes={max(1, round(forecast / 60))}",
            "tokenize.max_tokens=128",
            "training.threads=auto",
        ),
    )


def find_balance(record: Record) -> Finding:
    """Precision and recall of each class."""
    gap, worst = balance_gap(record.evaluation["per_class"])
    evidence = (
        f"Largest gap: '{worst['label']}' has precision {worst['precision']:.1%} and recall {worst['recall']:.1%} on"
        f" {worst['rows']:,} test reviews."
    )
    if gap <= record.params.balance_gap:
        return Finding("balanced", "good", "Precision and recall are balanced.", evidence)
    missed = worst["precision"] > worst["recall"]
    return Finding(
        "unbalanced",
        "warning",
        f"Precision and recall of '{worst['label']}' are out of balance: it is {'missed' if missed else 'seen'} too"
        " often.",
        evidence,
        ("unequal classes in training", "training ended on a lopsided step"),
        ("subset.sampling=balanced", "training.average_decay=0.95", "training.metric_for_best=f1"),
    )


def find_few_test_rows(record: Record) -> Finding | None:
    """An interval too wide for the claim."""
    from scipy.stats import norm

    value, low, high = (record.accuracy[name] for name in ("value", "low", "high"))
    if high - low <= record.params.interval_width:
        return None
    # The widest case, half right, would ask for more than needed; all right, for none.
    share = min(max(value, 0.5), 0.95)
    needed = int(np.ceil((2 * norm.isf(0.025) / record.params.interval_width) ** 2 * share * (1 - share)))
    return Finding(
        "few_test_rows",
        "warning",
        f"{record.evaluation['rows']:,} test reviews are too few to say how good the classifier is.",
        f"Accuracy is somewhere between {low:.1%} and {high:.1%}; about {needed:,} test reviews would narrow that to"
        f" {100 * record.params.interval_width:g} points.",
        ("subset.test_rows is small",),
        (f"subset.test_rows={needed}",),
    )


def find_selection_on_test(record: Record) -> Finding | None:
    """Test rows that chose the epoch."""
    if not record.evaluation["selected_on_test"]:
        return None
    return Finding(
        "selected_on_test",
        "warning",
        "The epoch was chosen on the test reviews, so all figures flatter the classifier.",
        "Validation and test hold the same reviews.",
        ("subset.validation_from is test",),
        ("subset.validation_from=train",),
    )


def find_truncation(record: Record) -> Finding | None:
    """Much text that the encoder never saw."""
    train = record.profile["splits"]["train"]
    if train["tokens_cut"] <= record.params.tokens_cut:
        return None
    return Finding(
        "truncation",
        "note",
        "Much of the training text is cut off.",
        f"{train['texts_truncated']:.1%} of the training reviews are longer than the limit; {train['tokens_cut']:.1%}"
        " of all tokens are not seen.",
        ("tokenize.max_tokens is short for these reviews",),
        ("tokenize.max_tokens=512", "tokenize.truncation=head_tail"),
    )


def find_small_class(record: Record) -> Finding | None:
    """A class with few training rows."""
    shares = record.profile["splits"]["train"]["class_shares"]
    name = min(shares, key=lambda label: shares[label])
    # With many classes an equal share is small too.
    if shares[name] >= min(record.params.smallest_class, 0.5 / len(shares)):
        return None
    return Finding(
        "small_class",
        "note",
        f"'{name}' is rare in training.",
        f"{shares[name]:.1%} of {record.profile['splits']['train']['rows']:,} training reviews.",
        ("the source holds few of them",),
        (
            "subset.sampling=balanced",
            "A number for subset.train_rows, since 'all' takes all there are",
            f"More reviews of '{name}'",
        ),
    )


def find_completion(record: Record) -> Finding:
    """Training that ran to its end."""
    steps, planned = record.metrics["steps"], record.metrics["planned_steps"]
    evidence = f"{steps:,} steps, {len(record.validation)} validations, no number out of range."
    if steps < planned:
        return Finding(
            "ended_early",
            "note",
            f"Training ended after {steps:,} of {planned:,} planned steps.",
            evidence,
            ("a time budget", "early stopping"),
        )
    return Finding("completed", "good", "Training ran to its end.", evidence)
