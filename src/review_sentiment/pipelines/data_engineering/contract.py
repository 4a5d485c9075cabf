"""The data contract: what reviews must be like, what is mended, and what stops the run."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import DataParams
from review_sentiment.text import clean_text, parse_label, row_id_of

logger = logging.getLogger(__name__)

_OURS = ("row_id", "text", "label", "label_id", "side", "source_row")
_FOR_THE_CHECK = ("_cleaned", "_label_found")


def apply_contract(
    reviews: Mapping[str, pd.DataFrame], params: DataParams
) -> tuple[pd.DataFrame, dict[str, int | bool]]:
    """Check labelled reviews, mend what can be mended, and count it.

    Args:
        reviews: Tables by side, `train` and maybe `test`, with all columns of the source.
        params: The block `data`.

    Returns:
        The checked table (`row_id`, `text`, `label`, `label_id`, `side`, `source_row` from 1 within its side, extra
        columns), and the counts: `rows_read`, `texts_cleaned`, `empty_dropped`, `duplicates_dropped`,
        `two_labels_dropped`, `in_both_sides_dropped`, `rows_kept`, `sorted_by_label`.

    Raises:
        UserError: Something can't be mended; the message lists all faults.
    """
    _check_columns(reviews, params)
    table = pd.concat([_read_side(side, frame, params) for side, frame in reviews.items()], ignore_index=True)
    faults = [*_label_faults(table, params), *_text_faults(table, params)]
    if faults:
        raise UserError(fault_list("The reviews can't be used", faults))
    counts: dict[str, int | bool] = {
        "rows_read": len(table),
        "texts_cleaned": int(table["_cleaned"].sum()),
        "sorted_by_label": any(_is_sorted(side["label_id"]) for _, side in table.groupby("side")),
    }
    table = table.drop(columns=list(_FOR_THE_CHECK))
    table = _drop(table, table["text"] == "", "empty_dropped", counts)
    table["row_id"] = [row_id_of(text) for text in table["text"]]
    labels_of_text = table.groupby("row_id")["label_id"].transform("nunique")
    table = _drop(table, labels_of_text > 1, "two_labels_dropped", counts)
    table = _drop(table, table.duplicated(["side", "row_id"]), "duplicates_dropped", counts)
    in_test = table["row_id"].isin(table.loc[table["side"] == "test", "row_id"])
    table = _drop(table, in_test & (table["side"] == "train"), "in_both_sides_dropped", counts)
    faults = _size_faults(table, reviews, params)
    if faults:
        raise UserError(fault_list("The reviews can't be used", faults))
    counts["rows_kept"] = len(table)
    _log_counts(counts)
    return table[[*_OURS, *(column for column in table if column not in _OURS)]].reset_index(drop=True), counts


def _check_columns(reviews: Mapping[str, pd.DataFrame], params: DataParams) -> None:
    faults = [
        f"two columns are named '{name}' on the {side} side: rename or drop one"
        for side, frame in reviews.items()
        for name in frame.columns[frame.columns.duplicated()].unique()
    ]
    faults += [
        f"there is no column '{name}' ({side} side has: {', '.join(map(str, frame))}): name it with"
        f" --params data.{key}=COLUMN"
        for side, frame in reviews.items()
        for key, name in (("text_column", params.text_column), ("label_column", params.label_column))
        if name not in frame
    ]
    if faults:
        raise UserError(fault_list("The reviews can't be used", faults))


def _read_side(side: str, frame: pd.DataFrame, params: DataParams) -> pd.DataFrame:
    """One side in our columns; texts that are not text become None, labels that name no class -1."""
    raw = frame[params.text_column]
    texts = [clean_text(value) if isinstance(value, str) else _missing_or_none(value) for value in raw]
    label_ids = [parse_label(value, params.label_names) for value in frame[params.label_column]]
    ours = pd.DataFrame(
        {
            "text": pd.array(texts, dtype="object"),
            "label": [params.label_names[label_id] if label_id is not None else None for label_id in label_ids],
            "label_id": np.array([-1 if label_id is None else label_id for label_id in label_ids], dtype=np.int64),
            "side": side,
            "source_row": np.arange(1, len(frame) + 1),
            "_cleaned": [isinstance(value, str) and text != value for text, value in zip(texts, raw, strict=True)],
            "_label_found": [str(value) for value in frame[params.label_column]],
        }
    )
    extras = frame.drop(columns=[params.text_column, params.label_column]).reset_index(drop=True)
    names: list[str] = []
    for name in map(str, extras):
        while name in (*_OURS, *_FOR_THE_CHECK, *names):
            name = f"source_{name}"
        names.append(name)
    extras.columns = names
    return pd.concat([ours, extras.apply(_one_type)], axis=1)


def _missing_or_none(value: Any) -> str | None:
    """A missing value is an empty text; a number or anything else is no text."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return "" if value is None or value is pd.NA or is_nan else None


def _one_type(column: pd.Series) -> pd.Series:
    """Extra columns go into Parquet and Arrow, which hold one type a column; a mixed one becomes text."""
    mixed = column.dtype == object and pd.api.types.infer_dtype(column, skipna=True).startswith("mixed")
    return column.map(str, na_action="ignore") if mixed else column


def _rows(table: pd.DataFrame, limit: int = 5) -> str:
    """Name rows as a user finds them: counted from 1, without the header."""
    several_sides = table["side"].nunique() > 1
    first = table.head(limit)
    names = first["side"] + " " + first["source_row"].map(str) if several_sides else first["source_row"].map(str)
    return f"row{'s' if len(table) > 1 else ''} {', '.join(names)}{', …' if len(table) > limit else ''}"


def _label_faults(table: pd.DataFrame, params: DataParams) -> list[str]:
    unknown = table[table["label_id"] < 0]
    if unknown.empty:
        return []
    found = ", ".join(f"'{value}'" for value in unknown["_label_found"].unique()[:5])
    ids = ", ".join(f"{index} or {name}" for index, name in enumerate(params.label_names))
    return [
        f"{len(unknown):,} of {len(table):,} labels name no class ({_rows(unknown)}; found {found}): expected {ids};"
        " name your classes in the order of their numbers with --params data.label_names=FIRST/SECOND"
    ]


def _text_faults(table: pd.DataFrame, params: DataParams) -> list[str]:
    faults = []
    no_text = table[table["text"].isna()]
    if not no_text.empty:
        faults.append(
            f"{len(no_text):,} of {len(table):,} values in column '{params.text_column}' are not text"
            f" ({_rows(no_text)}): name the column that holds the reviews with --params data.text_column=COLUMN"
        )
    empty = table[table["text"] == ""]
    if not empty.empty and params.empty_texts == "stop":
        faults.append(
            f"{len(empty):,} of {len(table):,} reviews have no text, or nothing but HTML ({_rows(empty)}): fill them in"
            " or delete them, or leave them out with --params data.empty_texts=drop"
        )
    return faults


def _size_faults(table: pd.DataFrame, sides: Iterable[str], params: DataParams) -> list[str]:
    faults = []
    for side in sides:
        sizes = table.loc[table["side"] == side, "label"].value_counts()
        for name in params.label_names:
            rows = sizes.get(name, 0)
            if rows < params.min_rows_per_class:
                faults.append(
                    f"class '{name}' has {rows} usable {'row' if rows == 1 else 'rows'} on the {side} side, and"
                    f" {params.min_rows_per_class} are needed: add reviews, or lower data.min_rows_per_class"
                )
    return faults


def _is_sorted(label_ids: pd.Series) -> bool:
    return label_ids.nunique() > 1 and (label_ids.is_monotonic_increasing or label_ids.is_monotonic_decreasing)


def _drop(table: pd.DataFrame, mask: pd.Series, name: str, counts: dict[str, int | bool]) -> pd.DataFrame:
    counts[name] = int(mask.sum())
    return table[~mask].copy()


def _log_counts(counts: Mapping[str, int | bool]) -> None:
    names: Sequence[tuple[str, str]] = (
        ("texts_cleaned", "cleaned of HTML, control characters or extra spaces"),
        ("empty_dropped", "dropped: no text"),
        ("two_labels_dropped", "dropped: the same text under two labels"),
        ("duplicates_dropped", "dropped: the same text again"),
        ("in_both_sides_dropped", "dropped from training: the text is also in the test side"),
    )
    notes = [f"{counts[name]:,} {what}" for name, what in names if counts[name]]
    if counts["sorted_by_label"]:
        notes.append("rows are sorted by label, so they are drawn in random order")
    logger.info(
        "%s of %s reviews are usable%s",
        f"{counts['rows_kept']:,}",
        f"{counts['rows_read']:,}",
        "; " + "; ".join(notes) if notes else "",
    )
