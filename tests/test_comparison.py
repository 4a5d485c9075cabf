import time
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from review_sentiment.comparison import compare_predictions, paired_interval, rows_to_settle
from review_sentiment.errors import UserError


def table(right: list[bool]) -> pd.DataFrame:
    """Predictions of as many rows, right where asked."""
    labels = ["negative", "positive"] * len(right)
    return pd.DataFrame(
        {
            "row_id": [f"r{number}" for number in range(len(right))],
            "label": labels[: len(right)],
            "predicted": [
                label if hit else {"negative": "positive"}.get(label, "negative")
                for label, hit in zip(labels, right, strict=False)
            ],
        }
    )


def pair(both: int, only_first: int, only_second: int, neither: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    first = [True] * both + [True] * only_first + [False] * only_second + [False] * neither
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return table(first), table(second)


@cache
def p_value(lost: int, gained: int) -> float:
    """Of a fair coin; the same few counts are drawn again and again."""
    return binomtest(lost, lost + gained).pvalue


def test_a_comparison_counted_by_hand():
    result = compare_predictions(*pair(5, 1, 3, 1))

    assert (result["rows"], result["accuracy_first"], result["accuracy_second"]) == (10, 0.6, 0.8)
    assert [result[key] for key in ("both_right", "only_first", "only_second", "both_wrong")] == [5, 1, 3, 1]
    assert result["difference"] == pytest.approx(0.2)
    assert result["p_value"] == pytest.approx(2 * (1 + 4) / 16)  # a fair coin: 3 or 4 heads of 4, both sides
    assert not result["proven"]


def test_the_published_interval_of_the_consolidation_trial():
    """Cavo et al. 2012: 59, 6, 16 and 80 patients; R's contingencytables gives -0.0621 (-0.1240 to -0.0054)."""
    low, high = paired_interval(16, 6, 161, correction=0)
    assert (low, high) == pytest.approx((-0.1240, -0.0054), abs=5e-5)

    corrected = compare_predictions(*pair(59, 16, 6, 80))
    assert corrected["low"] < low
    assert corrected["low"] < corrected["difference"] < 0 < corrected["high"]
    assert corrected["p_value"] == pytest.approx(binomtest(6, 22).pvalue)
    assert not corrected["proven"]


def test_the_interval_and_the_test_agree_but_for_a_hair():
    disagree = []
    for lost in range(60):
        for gained in range(lost + 1, 60):
            low, _ = paired_interval(lost, gained, 200)
            p_value = binomtest(lost, lost + gained).pvalue
            if (low > 0) != (p_value < 0.05):
                disagree.append((p_value, low))
    assert len(disagree) <= 4  # of 1,770
    assert all(p_value > 0.0485 and -0.005 < low <= 0 for p_value, low in disagree)


@pytest.mark.parametrize("counts", [(0, 0, 4, 0), (0, 4, 0, 0), (4, 0, 0, 0), (0, 0, 0, 1), (1, 0, 0, 0), (3, 2, 2, 3)])
def test_limits_of_few_or_equal_rows_are_sane(counts):
    result = compare_predictions(*pair(*counts))

    assert -1 <= result["low"] <= result["difference"] <= result["high"] <= 1
    assert result["low"] < result["high"]


def test_changing_places_mirrors_the_result():
    first, second = pair(50, 5, 14, 11)
    there, back = compare_predictions(first, second), compare_predictions(second, first)

    assert there["difference"] == -back["difference"]
    assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]))
    assert there["p_value"] == back["p_value"]
    assert there["rows_to_settle"] == back["rows_to_settle"]


def test_only_common_rows_count_in_any_order_and_inputs_stay():
    first, second = pair(50, 5, 14, 11)
    shuffled = second.sample(frac=1, random_state=0)
    kept = first.copy()

    assert compare_predictions(first, shuffled) == compare_predictions(first, second)
    assert compare_predictions(first, second[:60])["rows"] == 60
    pd.testing.assert_frame_equal(first, kept)


@pytest.mark.parametrize("counts", [(20, 15, 160), (2, 9, 60), (0, 5, 5)])
def test_the_rows_that_settle_it_give_the_power_that_they_promise(counts):
    lost, gained, rows = counts
    needed = rows_to_settle(*counts)
    draw = np.random.default_rng(0)
    cells = draw.multinomial(needed, [lost / rows, gained / rows, 1 - (lost + gained) / rows], size=4000)
    proven = [
        one != two and (one > two) == (lost > gained) and p_value(one, two) < 0.05 for one, two, _ in cells.tolist()
    ]
    assert needed > rows
    assert np.mean(proven) == pytest.approx(0.8, abs=0.03) or (needed == 6 and np.mean(proven) == 1)


def test_the_rows_that_settle_it_agree_with_the_usual_approximation():
    """Connor 1987, Biometrics 43:207, which has no continuity correction and so asks for a little less."""
    discordant, difference = 35 / 160, 5 / 160
    connor = (1.959964 * discordant**0.5 + 0.841621 * (discordant - difference**2) ** 0.5) ** 2 / difference**2
    assert connor < rows_to_settle(20, 15, 160) < 1.06 * connor


@pytest.mark.parametrize("counts", [(6000, 6001, 25_000), (600, 601, 12_500)])
def test_one_row_of_difference_takes_no_time(counts):
    start = time.perf_counter()
    needed = rows_to_settle(*counts)
    assert time.perf_counter() - start < 3  # 0.3 seconds when nothing else runs; every count took 8 and more

    lost, gained, rows = counts
    discordant, difference = (lost + gained) / rows, (gained - lost) / rows
    connor = (1.959964 * discordant**0.5 + 0.841621 * (discordant - difference**2) ** 0.5) ** 2 / difference**2
    assert needed == pytest.approx(connor, rel=0.01)


@pytest.mark.parametrize(
    ("counts", "needed"), [((20, 15, 160), 1824), ((2, 9, 60), 111), ((400, 420, 12_500), 202_752)]
)
def test_rows_to_settle_are_those_of_the_sum_over_every_count(counts, needed):
    assert rows_to_settle(*counts) == pytest.approx(needed, rel=0.01)


def test_the_sentence_follows_the_evidence():
    assert compare_predictions(*pair(50, 0, 40, 10))["sentence"] == (
        "Better: accuracy 90.0% against 50.0% on the same 100 test rows (+40.0 points, 95 % interval +30.0 to +50.8;"
        " exact McNemar test, p < 0.001)."
    )
    assert compare_predictions(*pair(50, 40, 0, 10))["sentence"].startswith("Worse: accuracy 50.0% against 90.0%")
    assert compare_predictions(*pair(8, 0, 0, 2))["sentence"] == (
        "No difference: both reach 80.0% accuracy on the same 10 test rows, and are right on the same ones."
    )
    assert "each 2 that the other misclassifies" in compare_predictions(*pair(8, 2, 2, 2))["sentence"]
    unsure = compare_predictions(*pair(190, 10, 15, 25))
    more = unsure["rows_to_settle"] - 240
    assert unsure["sentence"].startswith(
        "Not proven: accuracy 85.4% against 83.3% on the same 240 test rows (+2.1 points"
    )
    assert f"really better by as much, about {more:,} more test rows would settle it" in unsure["sentence"]


def test_predictions_that_can_not_be_compared():
    first, second = pair(5, 1, 3, 1)
    with pytest.raises(UserError, match="no test row in common"):
        compare_predictions(first, second.assign(row_id=second["row_id"] + "x"))
    with pytest.raises(UserError, match=r"label 10 of 10 common test rows differently \(row r0: 'negative' and 'x'\)"):
        compare_predictions(first, second.assign(label="x"))
