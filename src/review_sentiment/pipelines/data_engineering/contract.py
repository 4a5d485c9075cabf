"""The data contract: what reviews must be like, what is mended, and what stops the run.

The reviews are read twice, a chunk at a time: once to find all faults and to choose rows by numbers alone, and once to
give the chosen rows.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from review_sentiment.chunks import ChunkedTable, RawTable
from review_sentiment.errors import UserError, fault_list
from review_sentiment.params import DataParams
from review_sentiment.pipelines.data_engineering.further_columns import OURS, FurtherColumns, one_type
from review_sentiment.pipelines.data_engineering.repeats import find_repeats
from review_sentiment.pipelines.data_engineering.survey import SHOWN, Fault, Survey, read_rows, survey_side
from review_sentiment.text import row_id_of

logger = logging.getLogger(__name__)


def apply_contract(reviews: Mapping[str, RawTable], params: DataParams) -> tuple[ChunkedTable, dict[str, int | bool]]:
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
    found = {side: survey_side(table, params) for side, table in reviews.items()}
    _refuse(_column_faults(found, params))
    _refuse([*_label_faults(found, params), *_text_faults(found, params)])
    kept, counts = _choose_rows(found)
    _refuse(_size_faults(found, kept, params))
    _log_counts(counts)
    types: dict[str, pa.DataType] = {}
    for survey in found.values():
        types |= {name: one_type(types.get(name, kind), kind) for name, kind in survey.further.types.items()}
    schema = pa.schema([*OURS.items(), *types.items()])
    further = {side: survey.further for side, survey in found.items()}
    return ChunkedTable(
        schema, counts["rows_kept"], lambda: _read_kept(reviews, kept, further, types, schema, params)
    ), counts


def _choose_rows(found: Mapping[str, Survey]) -> tuple[dict[str, np.ndarray], dict[str, int | bool]]:
    """Which rows of each side are usable, and how many are not for what reason."""
    keys, label_ids, empty = (
        np.concatenate([getattr(survey, name) for survey in found.values()]) for name in ("keys", "label_ids", "empty")
    )
    in_test = np.repeat([side == "test" for side in found], [survey.rows for survey in found.values()])
    repeats = find_repeats(keys[~empty], label_ids[~empty], in_test[~empty])
    kept = ~empty
    kept[kept] = ~(repeats.two_labels | repeats.again | repeats.in_both_sides)
    counts = {
        "rows_read": len(keys),
        "texts_cleaned": sum(survey.cleaned for survey in found.values()),
        "sorted_by_label": any(_is_sorted(survey.label_ids) for survey in found.values()),
        "empty_dropped": int(empty.sum()),
        "two_labels_dropped": int(repeats.two_labels.sum()),
        "duplicates_dropped": int(repeats.again.sum()),
        "in_both_sides_dropped": int(repeats.in_both_sides.sum()),
        "rows_kept": int(kept.sum()),
    }
    ends = np.cumsum([survey.rows for survey in found.values()])
    return dict(zip(found, np.split(kept, ends[:-1]), strict=True)), counts


def _read_kept(
    reviews: Mapping[str, RawTable],
    kept: Mapping[str, np.ndarray],
    further: Mapping[str, FurtherColumns],
    types: dict[str, pa.DataType],
    schema: pa.Schema,
    params: DataParams,
) -> Iterator[pa.RecordBatch]:
    names = np.array(params.label_names, dtype=object)
    for side, table in reviews.items():
        start = 0
        for frame in table.chunks():
            end = start + len(frame)
            rows = np.flatnonzero(kept[side][start:end])
            chosen = frame.iloc[rows]
            texts, label_ids = read_rows(chosen, params)
            ours = {
                "row_id": [row_id_of(text or "") for text in texts],
                "text": texts,
                "label": names[label_ids],
                "label_id": label_ids,
                "side": [side] * len(chosen),
                "source_row": start + 1 + rows,
            }
            arrays = [pa.array(values, OURS[name]) for name, values in ours.items()]
            yield pa.RecordBatch.from_arrays([*arrays, *further[side].take(chosen, types).values()], schema=schema)
            start = end
        if start != len(kept[side]):
            raise UserError("the reviews changed while they were read: run again when nothing writes them any more")


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        raise UserError(fault_list("The reviews can't be used", list(faults)))


def _column_faults(found: Mapping[str, Survey], params: DataParams) -> list[str]:
    faults = [
        f"two columns are named '{name}' on the {side} side: rename or drop one"
        for side, survey in found.items()
        for name in survey.repeated
    ]
    return faults + [
        f"there is no column '{name}' ({side} side has: {', '.join(map(str, survey.columns))}): name it with"
        f" --params data.{key}=COLUMN"
        for side, survey in found.items()
        for key, name in (("text_column", params.text_column), ("label_column", params.label_column))
        if survey.columns and name not in survey.columns
    ]


def _rows(faults: Mapping[str, Fault]) -> str:
    """Name rows that have a fault, by side: where several have it, with the side's name."""
    sides = [side for side, fault in faults.items() if fault.rows]
    names = [f"{side} {name}" if len(sides) > 1 else name for side in sides for name in faults[side].first]
    total = sum(fault.rows for fault in faults.values())
    return f"row{'s' if total > 1 else ''} {', '.join(names[:SHOWN])}{', …' if total > SHOWN else ''}"


def _share(faults: Mapping[str, Fault], found: Mapping[str, Survey]) -> str:
    faulty, rows = (sum(side.rows for side in sides.values()) for sides in (faults, found))
    return f"{faulty:,} of {rows:,}"


def _label_faults(found: Mapping[str, Survey], params: DataParams) -> list[str]:
    faults = {side: survey.no_class for side, survey in found.items()}
    if not any(fault.rows for fault in faults.values()):
        return []
    labels = dict.fromkeys(label for survey in found.values() for label in survey.labels)
    values = ", ".join(f"'{label}'" for label in list(labels)[:SHOWN])
    ids = ", ".join(f"{index} or {name}" for index, name in enumerate(params.label_names))
    return [
        f"{_share(faults, found)} labels name no class ({_rows(faults)}; found {values}): expected {ids};"
        " name your classes in the order of their numbers with --params data.label_names=FIRST/SECOND"
    ]


def _text_faults(found: Mapping[str, Survey], params: DataParams) -> list[str]:
    told = []
    faults = {side: survey.not_text for side, survey in found.items()}
    if any(fault.rows for fault in faults.values()):
        told.append(
            f"{_share(faults, found)} values in column '{params.text_column}' are not text"
            f" ({_rows(faults)}): name the column that holds the reviews with --params data.text_column=COLUMN"
        )
    faults = {side: survey.without_text for side, survey in found.items()}
    if any(fault.rows for fault in faults.values()) and params.empty_texts == "stop":
        told.append(
            f"{_share(faults, found)} reviews have no text, or nothing but HTML ({_rows(faults)}): fill them in"
            " or delete them, or leave them out with --params data.empty_texts=drop"
        )
    return told


def _size_faults(found: Mapping[str, Survey], kept: Mapping[str, np.ndarray], params: DataParams) -> list[str]:
    faults = []
    for side, survey in found.items():
        sizes = np.bincount(survey.label_ids[kept[side]], minlength=len(params.label_names))
        for name, rows in zip(params.label_names, sizes.tolist(), strict=True):
            if rows < params.min_rows_per_class:
                faults.append(
                    f"class '{name}' has {rows} usable {'row' if rows == 1 else 'rows'} on the {side} side, and"
                    f" {params.min_rows_per_class} are needed: add reviews, or lower data.min_rows_per_class"
                )
    return faults


def _is_sorted(label_ids: np.ndarray) -> bool:
    steps = np.diff(label_ids)
    return bool((steps != 0).any() and ((steps >= 0).all() or (steps <= 0).all()))


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
