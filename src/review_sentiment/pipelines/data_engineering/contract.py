"""The data contract: what reviews must be like, what is cleaned or dropped, and what stops the run.

The reviews are read twice, a chunk at a time: once to find all faults and to choose rows by numbers alone, and once to
write the chosen rows.
"""

import logging
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from review_sentiment.chunks import ChunkedTable, RawTable
from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import DataParams
from review_sentiment.pipelines.data_engineering.survey import (
    SHOWN,
    STANDARD_COLUMNS,
    Faults,
    Survey,
    clean_rows,
    common_type,
    survey_side,
)
from review_sentiment.text import row_id_of

logger = logging.getLogger(__name__)


def check_reviews(reviews: dict[str, RawTable], data: DataParams) -> tuple[ChunkedTable, dict[str, int | bool]]:
    """Check labeled reviews of the sides `train` and maybe `test`; clean or drop what is not usable, and count it.

    Returns:
        The usable rows, read while they are being saved, and how many rows were cleaned or dropped for what reason.

    Raises:
        UserError: The reviews are not usable; the message lists all faults.
    """
    faults = Faults()
    found = {
        side: survey_side(table, side if len(reviews) > 1 else "", faults, data) for side, table in reviews.items()
    }
    _refuse(_column_faults(found, data))
    _refuse(_row_faults(faults, sum(survey.rows for survey in found.values()), data))
    kept, counts = _choose_rows(found)
    _refuse(_size_faults(found, kept, data))
    _log_counts(counts)
    types: dict[str, pa.DataType] = {}
    for survey in found.values():
        types |= {name: common_type(types.get(name, kind), kind) for name, kind in survey.extra.types.items()}
    schema = pa.schema([*STANDARD_COLUMNS.items(), *types.items()])

    def read() -> Iterator[pa.RecordBatch]:
        for side, table in reviews.items():
            yield from _read_kept(table, side, found[side], kept[side], schema, data)

    return ChunkedTable(schema, int(counts["rows_kept"]), read), counts


def _choose_rows(found: Mapping[str, Survey]) -> tuple[dict[str, np.ndarray], dict[str, int | bool]]:
    """Which rows of each side are usable, and how many are not for what reason."""
    surveys = list(found.values())
    keys, label_ids, empty = (
        np.concatenate([getattr(survey, name) for survey in surveys]) for name in ("keys", "label_ids", "empty")
    )
    in_test = np.repeat([side == "test" for side in found], [survey.rows for survey in surveys])
    repeats = find_repeats(keys[~empty], label_ids[~empty], in_test[~empty])
    kept = ~empty
    kept[kept] = ~np.logical_or.reduce(list(repeats.values()))
    counts = {
        "rows_read": len(keys),
        "texts_cleaned": sum(survey.cleaned for survey in surveys),
        "sorted_by_label": any(_is_sorted(survey.label_ids) for survey in surveys),
        "empty_dropped": int(empty.sum()),
        **{name: int(mask.sum()) for name, mask in repeats.items()},
        "rows_kept": int(kept.sum()),
    }
    ends = np.cumsum([survey.rows for survey in surveys])
    return dict(zip(found, np.split(kept, ends[:-1]), strict=True)), counts


def find_repeats(keys: np.ndarray, label_ids: np.ndarray, in_test: np.ndarray) -> dict[str, np.ndarray]:
    """Find texts that occur more than once among N reviews, training rows first.

    Args:
        keys: Each text as a number, uint64, shape (N,).
        label_ids: Shape (N,).
        in_test: Whether a row is on the test side, bool, shape (N,).

    Returns:
        Three masks, bool, shape (N,), of which no row is in two: texts under two labels, texts that came before on the
        same side, and training texts that are also in the test side.
    """
    # Equal texts side by side; within such a group training rows first, each side in its order.
    order = np.argsort(keys, kind="stable")
    keys, label_ids, in_test = keys[order], label_ids[order], in_test[order]
    is_new = np.diff(keys, prepend=keys[:1] + np.uint64(1)) != 0
    starts = np.flatnonzero(is_new)
    sizes = np.diff(np.append(starts, len(keys)))
    ends = starts + sizes - 1
    if len(keys):
        differ = np.minimum.reduceat(label_ids, starts) != np.maximum.reduceat(label_ids, starts)
    else:
        differ = np.zeros(0, np.bool_)  # reduceat takes no empty array
    two_labels = np.repeat(differ, sizes)
    first_of_side = is_new | np.diff(in_test, prepend=in_test[:1])
    also_in_test = np.repeat(in_test[ends], sizes) & ~in_test
    masks = {
        "two_labels_dropped": two_labels,
        "duplicates_dropped": ~two_labels & ~first_of_side,
        "in_both_sides_dropped": ~two_labels & first_of_side & also_in_test,
    }
    back = np.argsort(order)
    return {name: mask[back] for name, mask in masks.items()}


def _read_kept(
    table: RawTable, side: str, survey: Survey, kept: np.ndarray, schema: pa.Schema, data: DataParams
) -> Iterator[pa.RecordBatch]:
    names = np.array(data.label_names, dtype=object)
    start = 0
    for frame in table.chunks():
        rows = np.flatnonzero(kept[start : start + len(frame)])
        chosen = frame.iloc[rows]
        texts, label_ids = clean_rows(chosen, data)
        standard = {
            "row_id": [row_id_of(text or "") for text in texts],
            "text": texts,
            "label": names[label_ids],
            "label_id": label_ids,
            "side": [side] * len(chosen),
            "source_row": start + 1 + rows,
        }
        arrays = [pa.array(values, STANDARD_COLUMNS[name]) for name, values in standard.items()]
        extra = list(schema)[len(standard) :]
        yield pa.RecordBatch.from_arrays([*arrays, *survey.extra.arrays(chosen, extra)], schema=schema)
        start += len(frame)
    if start != len(kept):
        raise UserError("the reviews changed while they were read: run again when nothing writes to them")


def _refuse(faults: list[str]) -> None:
    if faults:
        raise UserError(fault_list("The reviews can't be used", faults))


def _column_faults(found: Mapping[str, Survey], data: DataParams) -> list[str]:
    faults = [
        f"two columns are named '{name}' on the {side} side: rename or drop one"
        for side, survey in found.items()
        for name in survey.repeated
    ]
    return faults + [
        f"there is no column '{name}' ({side} side has: {', '.join(map(str, survey.columns))}): name it with"
        f" --params data.{key}=COLUMN"
        for side, survey in found.items()
        for key, name in (("text_column", data.text_column), ("label_column", data.label_column))
        if survey.columns and name not in survey.columns
    ]


def _row_faults(faults: Faults, rows: int, data: DataParams) -> list[str]:
    messages = []
    if faults.no_class.rows:
        values = ", ".join(f"'{label}'" for label in list(faults.labels)[:SHOWN])
        ids = ", ".join(f"{index} or {name}" for index, name in enumerate(data.label_names))
        messages.append(
            f"{faults.no_class.rows:,} of {rows:,} labels name no class ({faults.no_class}; found {values}): expected"
            f" {ids}; name your classes in the order of their numbers with --params data.label_names=FIRST/SECOND"
        )
    if faults.not_text.rows:
        messages.append(
            f"{faults.not_text.rows:,} of {rows:,} values in column '{data.text_column}' are not text"
            f" ({faults.not_text}): name the column that holds the reviews with --params data.text_column=COLUMN"
        )
    if faults.no_text.rows and data.empty_texts == "stop":
        messages.append(
            f"{faults.no_text.rows:,} of {rows:,} reviews have no text, or nothing but HTML ({faults.no_text}): fill"
            " them in or delete them, or leave them out with --params data.empty_texts=drop"
        )
    return messages


def _size_faults(found: Mapping[str, Survey], kept: Mapping[str, np.ndarray], data: DataParams) -> list[str]:
    faults = []
    for side, survey in found.items():
        sizes = np.bincount(survey.label_ids[kept[side]], minlength=len(data.label_names))
        for name, rows in zip(data.label_names, sizes.tolist(), strict=True):
            if rows < data.min_rows_per_class:
                faults.append(
                    f"class '{name}' has {rows} usable {'row' if rows == 1 else 'rows'} on the {side} side, and"
                    f" {data.min_rows_per_class} are needed: add reviews, or lower data.min_rows_per_class"
                )
    return faults


def _is_sorted(label_ids: np.ndarray) -> bool:
    steps = np.diff(label_ids)
    return bool((steps != 0).any() and ((steps >= 0).all() or (steps <= 0).all()))


def _log_counts(counts: Mapping[str, int | bool]) -> None:
    names = {
        "texts_cleaned": "cleaned of HTML, control characters or extra spaces",
        "empty_dropped": "dropped: no text",
        "two_labels_dropped": "dropped: the same text under two labels",
        "duplicates_dropped": "dropped: the same text again",
        "in_both_sides_dropped": "dropped from training: the text is also in the test side",
    }
    notes = [f"{counts[name]:,} {what}" for name, what in names.items() if counts[name]]
    if counts["sorted_by_label"]:
        notes.append("rows are sorted by label, so they are drawn in random order")
    logger.info(
        "%s of %s reviews are usable%s",
        f"{counts['rows_kept']:,}",
        f"{counts['rows_read']:,}",
        "".join(f"; {note}" for note in notes),
    )
