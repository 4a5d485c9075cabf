"""Two sets of predictions on the same rows: which is better, how sure that is, and how many rows would settle it."""

import math
from typing import Any

import pandas as pd

from review_sentiment.errors import UserError

_ALPHA = 0.05
_POWER = 0.8
# Counts of discordant rows that the power is summed over; between neighbors it hardly changes where there are more.
_MOST_COUNTS = 500


def compare_predictions(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    """Compare two classifiers on the rows that both have scored.

    Args:
        first: Predictions with `row_id`, `label` and `predicted`.
        second: Those of the other classifier; differences are second minus first.

    Returns:
        `rows` in both, `accuracy_first`, `accuracy_second`, `difference` (a share) with its 95 % interval `low` and
        `high`, `p_value` (exact McNemar), the counts `both_right`, `only_first`, `only_second` and `both_wrong`,
        `proven` (p below 0.05), `rows_to_settle` (None if proven or without a difference) and `sentence`.

    Raises:
        UserError: The two share no rows, or label the same row differently.

    Source: McNemar 1947, Psychometrika 12:153 (the test, here with the exact binomial distribution).
    """
    from scipy.stats import binomtest

    first_right, second_right = _right_on_common_rows(first, second)
    rows = len(first_right)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_second, discordant).pvalue) if discordant else 1.0
    low, high = paired_interval(only_first, only_second, rows)
    proven = p_value < _ALPHA
    result = {
        "rows": rows,
        "accuracy_first": float(first_right.mean()),
        "accuracy_second": float(second_right.mean()),
        "difference": (only_second - only_first) / rows,
        "low": low,
        "high": high,
        "p_value": p_value,
        "both_right": int((first_right & second_right).sum()),
        "only_first": only_first,
        "only_second": only_second,
        "both_wrong": int((~first_right & ~second_right).sum()),
        "proven": proven,
        "rows_to_settle": None if proven else rows_to_settle(only_first, only_second, rows),
    }
    return {**result, "sentence": _sentence(result)}


def _right_on_common_rows(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    columns = ["row_id", "label", "predicted"]
    both = first[columns].merge(second[columns], on="row_id", suffixes=("_first", "_second"), validate="one_to_one")
    if both.empty:
        raise UserError("the two sets of predictions have no test row in common, so they can't be compared")
    differs = both[both["label_first"] != both["label_second"]]
    if len(differs):
        row = differs.iloc[0]
        raise UserError(
            f"the two sets of predictions label {len(differs):,} of {len(both):,} common test rows differently (row"
            f" {row['row_id']}: '{row['label_first']}' and '{row['label_second']}'), so they can't be compared"
        )
    label = both["label_first"]
    return both["predicted_first"] == label, both["predicted_second"] == label


def paired_interval(only_first: int, only_second: int, rows: int, correction: int = 1) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies on the same rows.

    The continuity correction makes it agree with the exact test: without it, it would leave out 0 where the test sees
    nothing proven (6 against 16 rows, for one).

    Args:
        only_first: Rows that only the first classifies correctly.
        only_second: Rows that only the second classifies correctly.
        rows: All rows, at least one.
        correction: Rows taken off the difference; 0 is the interval as first published.

    Returns:
        Lower and upper limit of second minus first, shares from -1 to 1.

    Source: Tango 1998, Statistics in Medicine 17:891 (asymptotic score interval), with the continuity correction of
    Edwards 1948, Psychometrika 13:185.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.isf(_ALPHA / 2))

    def lower_limit(gained: int, lost: int) -> float:
        def excess(delta: float) -> float:
            return gained - lost - correction - rows * delta - z * _score_deviation(delta, gained, lost, rows)

        if excess(-1) <= 0:
            return -1.0
        return float(brentq(excess, -1, (gained - lost) / rows, xtol=1e-10))

    return lower_limit(only_second, only_first), -lower_limit(only_first, only_second)


def _score_deviation(delta: float, gained: int, lost: int, rows: int) -> float:
    """Standard deviation of `gained - lost` if the true difference were `delta`, by Tango's constrained likelihood."""
    linear = -gained - lost + (2 * rows - gained + lost) * delta
    constant = -lost * delta * (1 - delta)
    share_lost = (math.sqrt(max(linear**2 - 8 * rows * constant, 0)) - linear) / (4 * rows)
    return math.sqrt(max(rows * (2 * share_lost + delta * (1 - delta)), 0))


def rows_to_settle(only_first: int, only_second: int, rows: int) -> int | None:
    """Test rows, those so far included, with which the exact McNemar test has a power of 80 %, to within 1 %.

    The difference is taken to be as large as it looks; None if there is none.

    Source: Duffy 1984, Biometrics 40:1005 (exact power of McNemar's test).
    """
    if only_first == only_second:
        return None
    discordant = only_first + only_second
    better = max(only_first, only_second) / discordant

    def is_enough(candidate: int) -> bool:
        return _power(candidate, discordant / rows, better) >= _POWER

    high = 1
    while not is_enough(high):
        high *= 2
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _power(rows: int, discordant_share: float, better_share: float) -> float:
    """Probability that the exact test finds the better one better, on that many rows."""
    import numpy as np
    from scipy.stats import binom

    low, high = binom.ppf([1e-7, 1 - 1e-7], rows, discordant_share)
    discordant = np.unique(np.linspace(low, high, int(min(high - low + 1, _MOST_COUNTS))).round())
    # The least wins with which half of the two-sided p-value, the tail of a fair coin, is below half of alpha.
    wins = binom.isf(_ALPHA / 2, discordant, 0.5) + 1
    weights = binom.pmf(discordant, rows, discordant_share)
    return float(weights @ binom.sf(wins - 1, discordant, better_share) / weights.sum())


def _sentence(result: dict[str, Any]) -> str:
    rows, difference = result["rows"], result["difference"]
    accuracies = f"accuracy {result['accuracy_second']:.1%} against {result['accuracy_first']:.1%}"
    same = f"on the same {rows:,} test rows"
    if difference == 0:
        changed = result["only_first"]
        which = f"each {changed:,} that the other misclassifies" if changed else "and are right on the same ones"
        return f"No difference: both reach {result['accuracy_second']:.1%} accuracy {same}, {which}."
    word = "better" if difference > 0 else "worse"
    figures = (
        f"{accuracies} {same} ({100 * difference:+.1f} points, 95 % interval {100 * result['low']:+.1f} to"
        f" {100 * result['high']:+.1f}; exact McNemar test, p {_p_text(result['p_value'])})"
    )
    if result["proven"]:
        return f"{word.capitalize()}: {figures}."
    more = result["rows_to_settle"] - rows
    return (
        f"Not proven: {figures}. If it is really {word} by as much, about {more:,} more test rows would settle it"
        f" ({result['rows_to_settle']:,} in all, for a power of 80 %)."
    )


def _p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
