"""The table of all runs: what each changed, which report counts for a classifier, and the best run before another."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pandas as pd


def changed_parameters(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Parameters that differ between two runs, from values by dotted name.

    Returns:
        Name, value before, value after, as YAML writes them; `-` where a run's code did not know the parameter.
    """
    names = [*before, *(name for name in after if name not in before)]
    shown = [(name, _show(before, name), _show(after, name)) for name in names]
    return [row for row in shown if row[1] != row[2]]


def _show(parameters: Mapping[str, Any], name: str) -> str:
    if name not in parameters:
        return "-"
    value = parameters[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def with_changes(ledger: pd.DataFrame) -> pd.DataFrame:
    """Add the column `changed`: the parameters that differ from the row before, as `training.epochs 4 → 2`."""
    parameters = [json.loads(text) for text in ledger["parameters"]]
    texts = [""] * min(1, len(parameters))
    for before, after in pairwise(parameters):
        # A parameter that is new in the code was not changed by anybody.
        both = {name: value for name, value in before.items() if name in after}
        rows = changed_parameters(both, {name: after[name] for name in both})
        texts.append(", ".join(f"{name} {old} → {new}" for name, old, new in rows))
    return ledger.assign(changed=pd.Series(texts, index=ledger.index, dtype="str"))


def newest_reports(ledger: pd.DataFrame) -> pd.DataFrame:
    """Keep the newest report on each classifier, in the order in which the classifiers were trained."""
    newest = ledger.sort_values("run", kind="stable").drop_duplicates("classifier_run", keep="last")
    return with_changes(newest.sort_values("classifier_run", kind="stable").reset_index(drop=True))


def best_before(reports: pd.DataFrame, position: int) -> int:
    """Position of the most accurate run before the one at `position` (above 0), on the same data where there is one.

    The newest of several equals.
    """
    run, earlier = reports.iloc[position], reports.iloc[:position]
    alike = earlier[(earlier["data_hash"] == run["data_hash"]) & (earlier["test_rows"] == run["test_rows"])]
    candidates = alike if len(alike) else earlier
    best = candidates[candidates["accuracy"] == candidates["accuracy"].max()]
    return list(reports.index).index(best.index[-1])
