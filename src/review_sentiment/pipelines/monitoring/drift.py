"""Compare the distributions of two groups of reviews, signal by signal, and say in words what differs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import MonitoringParams
from review_sentiment.pipelines.monitoring.measures import with_tokens_per_word
from review_sentiment.reference import kind_shares

logger = logging.getLogger(__name__)

# Below it, the two tests together see only the coarsest changes.
_MIN_ROWS = 50
_BINS = 10
_BARS = 24
_IN_FULL = 3  # changes that the sentence describes in full


@dataclass(frozen=True)
class Signal:
    """A number that every review has.

    Attributes:
        more: What it means where it rises.
        less: What it means where it falls.
        digits: How a figure is written, as `format` takes it.
        of: What the new reviews are compared with, as the sentence calls it.
        typical: The figure that is shown: `median`, or `mean` where most reviews have none of it.
        far: What a rise far beyond the range of training means.
    """

    title: str
    more: str
    less: str
    unit: str
    digits: str
    of: str = "training"
    typical: str = "median"
    far: str = ""


_SIGNALS = {
    "words": Signal("length", "reviews are {much}longer", "reviews are {much}shorter", " words", ",.0f"),
    "character_surprise": Signal(
        "character pairs", "character pairs are unusual", "character pairs are more usual", " bits a pair", ".2f",
        far=", as in another language",
    ),
    "common_pairs": Signal(
        "word pairs", "word pairs are more usual", "word pairs are unusual, as in another subject or order",
        " are common ones", ".1%",
    ),
    "tokens_per_word": Signal(
        "tokens per word", "words break into more tokens", "words break into fewer tokens", " a word", ".2f",
        far=", as foreign words do",
    ),
    "unknown_share": Signal(
        "unknown tokens", "more tokens are unknown to the encoder", "fewer tokens are unknown to the encoder", "",
        ".1%", typical="mean",
    ),
    "confidence": Signal(
        "confidence", "the classifier is surer", "the classifier is less sure", "", ".1%", of="test reviews"
    ),
}  # fmt: skip
_CLASSES = "predicted"


def find_drift(
    review_measures: pd.DataFrame,
    review_counts: dict[str, Any],
    reference: dict[str, Any],
    monitoring: MonitoringParams,
) -> dict[str, Any]:
    """Compare scored reviews with training, signal by signal, and sum up in one sentence.

    Returns:
        `drifted` (None where there are too few rows), `sentence`, `rows`, `rows_without_answer`, `rows_compared`,
        `runs`, `character_kinds` (shares, of training and new), `signals`, the most telling first (`name`, `title`,
        `drifted`, `psi`, `p_value`, `change` in words where it drifted, figures of `reference` and `new`, `histogram`),
        and `not_checked` (reasons by signal).
    """
    statistics = reference["statistics"]
    kinds = {"training": kind_shares(np.array(statistics["character_pairs"])), "new": review_counts["character_kinds"]}
    trained = with_tokens_per_word(pd.DataFrame(statistics["reviews"], dtype=np.float64))
    tested = pd.DataFrame(reference["predictions"])
    signals, not_checked = [], {}
    for name in [*_SIGNALS, _CLASSES]:
        old, new = (trained if name in trained else tested)[name].dropna(), review_measures[name].dropna()
        why_not = _why_not(old, new, len(review_measures))
        if why_not:
            not_checked[name] = why_not
        elif name == _CLASSES:
            signals.append(_compare_classes(old, new, reference["classes"]))
        else:
            note = _kinds_note(**kinds) if name == "character_surprise" else ""
            signals.append(_compare_numbers(name, old.to_numpy(), new.to_numpy(), note))
    for signal in signals:
        chance = monitoring.p_max / len(signals)  # Bonferroni: p_max is for the run
        signal["drifted"] = bool(signal["psi"] > monitoring.psi_max and signal["p_value"] < chance)
        signal["change"] = signal["change"] if signal["drifted"] else ""
    signals.sort(key=lambda signal: (not signal["drifted"], -signal["psi"]))
    return {
        "drifted": any(signal["drifted"] for signal in signals) if signals else None,
        "sentence": _sentence(signals, not_checked, len(review_measures), review_counts["rows_without_answer"]),
        "rows": review_counts["rows"],
        "rows_without_answer": review_counts["rows_without_answer"],
        "rows_compared": len(review_measures),
        "runs": dict(reference["runs"]),
        "character_kinds": kinds,
        "signals": signals,
        "not_checked": not_checked,
    }


def population_stability(old: np.ndarray, new: np.ndarray) -> float:
    """Population stability index of two groups counted in the same bins, less what chance alone gives.

    Args:
        old: Counts of the group that the other is compared with, shape (B,).
        new: Counts of the other, shape (B,).

    Returns:
        The index, at least 0. Above 0.1 is customarily called a small shift, above 0.25 a large one.

    Source: Siddiqi 2006, Credit Risk Scorecards (index and bounds); Yurdakul 2018, Statistical Properties of Population

    Stability Index (of two samples from one source it is (1/n + 1/m) times a chi-square of B - 1 degrees of freedom).
    """
    # Half a count more, since an empty bin would make the index infinite.
    shares = [(counts + 0.5) / (counts + 0.5).sum() for counts in (old, new)]
    index = ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()
    chance = (len(old) - 1) * (1 / old.sum() + 1 / new.sum())
    return max(0.0, float(index - chance))


def _why_not(old: pd.Series, new: pd.Series, rows: int) -> str:
    """Why a signal can't be checked; empty if it can."""
    if rows and not len(new):
        return "the reviews come without their texts"
    few = [f"{name} {len(side)}" for side, name in ((new, "new"), (old, "of training")) if len(side) < _MIN_ROWS]
    return f"too few reviews ({', '.join(few)}), {_MIN_ROWS} are needed" if few else ""


def _kinds_note(training: Mapping[str, float], new: Mapping[str, float]) -> str:
    """The kind of characters whose share rose most, if by a point or more."""
    kind = max(training, key=lambda name: new[name] - training[name])
    if new[kind] - training[kind] < 0.01:
        return ""
    return f"; {kind} {new[kind]:.1%}, training {training[kind]:.1%}"


def _compare_numbers(name: str, old: np.ndarray, new: np.ndarray, note: str) -> dict[str, Any]:
    from scipy.stats import ks_2samp

    edges = _edges(old)
    binned = [np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) for values in (old, new)]
    figures = [_figures(values) for values in (old, new)]
    return {
        "name": name,
        "title": _SIGNALS[name].title,
        "psi": population_stability(*binned),
        "p_value": float(ks_2samp(old, new, method="asymp").pvalue),
        "change": _change(_SIGNALS[name], figures[0], figures[1], note),
        "reference": figures[0],
        "new": figures[1],
        "histogram": _histogram(old, new),
    }


def _edges(old: np.ndarray) -> np.ndarray:
    """Upper edges of all bins but the last, ascending: deciles, and a value that many share in a bin of its own."""
    deciles, times = np.unique(np.quantile(old, np.arange(1, _BINS) / _BINS), return_counts=True)
    # Else a share that is 1 in all of training would be in one bin with everything below it.
    return np.unique([*deciles, *np.nextafter(deciles[times > 1], -np.inf)])


def _compare_classes(old: pd.Series, new: pd.Series, classes: Sequence[str]) -> dict[str, Any]:
    from scipy.stats import chi2_contingency

    counts = np.array([side.value_counts().reindex(list(classes), fill_value=0) for side in (old, new)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    seen = counts[:, counts.sum(axis=0) > 0]
    most = int((shares[1] - shares[0]).argmax())
    return {
        "name": _CLASSES,
        "title": "predicted classes",
        "psi": population_stability(*counts),
        "p_value": float(chi2_contingency(seen).pvalue) if seen.shape[1] > 1 else 1.0,
        "change": f"'{classes[most]}' is predicted more often ({shares[1, most]:.0%}, test reviews"
        f" {shares[0, most]:.0%})",
        "reference": {"rows": len(old)},
        "new": {"rows": len(new)},
        "histogram": {"classes": list(classes), "reference": shares[0].tolist(), "new": shares[1].tolist()},
    }


def _figures(values: np.ndarray) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.1, 0.5, 0.9))
    return {
        "rows": len(values), "mean": float(values.mean()), "p10": float(low), "median": float(median),
        "p90": float(high),
    }  # fmt: skip


def _change(signal: Signal, old: Mapping[str, float], new: Mapping[str, float], note: str) -> str:
    """What changed: the typical value, or only how much it varies."""
    before, after, spread = old[signal.typical], new[signal.typical], old["p90"] - old["p10"]
    if signal.typical == "mean" or abs(after - before) > spread / 8:
        meaning = signal.more if after > before else signal.less
        meaning += signal.far if after - before > 2 * spread else ""
        much = "much " if max(after, before) >= 1.5 * min(after, before) else ""
        figures = f"{after:{signal.digits}}{signal.unit}, {signal.of} {before:{signal.digits}}"
        return f"{meaning.format(much=much)} ({signal.typical} {figures}{note})"
    wider = new["p90"] - new["p10"] > spread
    spans = [f"{side['p10']:{signal.digits}} to {side['p90']:{signal.digits}}" for side in (new, old)]
    return (
        f"the spread of {signal.title} is {'wider' if wider else 'narrower'} (four in five {spans[0]}, {signal.of}"
        f" {spans[1]}{note})"
    )


def _histogram(old: np.ndarray, new: np.ndarray) -> dict[str, list[float]]:
    """Shares of both groups in bars of equal width; what lies outside is in the first and the last bar."""
    both = np.concatenate([np.quantile(side, (0.01, 0.99)) for side in (old, new)])
    low, high = float(both.min()), float(both.max())
    edges = np.linspace(low, high if high > low else low + 1, _BARS + 1)
    shares = [np.histogram(side.clip(edges[0], edges[-1]), edges)[0] / len(side) for side in (old, new)]
    return {"edges": edges.tolist(), "reference": shares[0].tolist(), "new": shares[1].tolist()}


def _sentence(signals: list[dict[str, Any]], not_checked: Mapping[str, str], rows: int, without_answer: int) -> str:
    """The outcome, the most telling signals first, and what it can't say."""
    left_out = f"; {without_answer:,} rows without text were left out" if without_answer else ""
    if not signals:
        return f"Nothing is decided: {next(iter(not_checked.values()))}{left_out}."
    drifted = [signal for signal in signals if signal["drifted"]]
    if drifted:
        changes = [signal["change"] for signal in drifted[:_IN_FULL]]
        changes += [f"also {', '.join(signal['title'] for signal in drifted[_IN_FULL:])}"] if drifted[_IN_FULL:] else []
        many = f"{len(drifted)} of {len(signals)} signals"
        start = f"Drift: {rows:,} reviews differ from training in {many}: {'; '.join(changes)}"
    else:
        start = f"No drift: {rows:,} reviews look like those of training in all {len(signals)} signals"
    titles = [_SIGNALS[name].title if name in _SIGNALS else "predicted classes" for name in not_checked]
    unchecked = f"; not checked: {', '.join(titles)}" if titles else ""
    return f"{start}{unchecked}{left_out}."


def enforce_drift(drift_report: dict[str, Any], drift: Any, monitoring: MonitoringParams) -> None:
    """Log the outcome, and fail the run on drift if `monitoring.enforce` asks for it; last, once all is written.

    Raises:
        UserError: The reviews drifted and `enforce` is true; the message lists every change.
    """
    level = logging.WARNING if drift_report["drifted"] else logging.INFO
    logger.log(level, "%s", drift_report["sentence"])
    if monitoring.enforce and drift_report["drifted"]:
        head = "The reviews are unlike those of training, and monitoring.enforce is true; everything was written"
        raise UserError(fault_list(head, [signal["change"] for signal in drift_report["signals"] if signal["drifted"]]))
