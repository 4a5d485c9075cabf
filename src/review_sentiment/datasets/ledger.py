"""The ledger of all runs: a folder to which each run adds a small file, so that runs never get in each other's way."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pandas as pd
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from review_sentiment.runs.atomic import replace_atomically
from review_sentiment.runs.former_names import former_names, with_current_names
from review_sentiment.runs.table import with_changes

_TEXT = ("run", "classifier_run", "env", "reviews", "encoder", "data_hash", "commit")
_NUMBERS = (
    "minutes", "test_rows", "accuracy", "accuracy_low", "accuracy_high", "f1", "f1_low", "f1_high", "loss", "roc_auc",
    "baseline_accuracy",
)  # fmt: skip


class LedgerDataset(AbstractDataset[pd.DataFrame, pd.DataFrame]):
    """One Parquet file a row; saving adds files and rewrites none, loading gives all rows as one table."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._filepath = filepath

    def load(self) -> pd.DataFrame:
        """Read all rows, sorted by `run`, with `changed`: what differs from the row before. No rows before a run."""
        import pyarrow as pa
        from pyarrow import dataset

        former = former_names("run_ledger")
        # A column that some rows lack is empty in them.
        fields = [
            *((name, pa.string()) for name in (*_TEXT, *former)),
            ("dirty", pa.bool_()),
            *((name, pa.int64() if name == "test_rows" else pa.float64()) for name in _NUMBERS),
            ("ready", pa.bool_()),
            ("parameters", pa.string()),
        ]
        files = [str(path) for path in Path(self._filepath).glob("[!.]*.parquet")]
        schema = pa.schema(fields)
        table = (dataset.dataset(files, schema=schema).to_table() if files else schema.empty_table()).to_pandas()
        for old, new in former.items():
            table[new] = table[new].fillna(table.pop(old))
        table["parameters"] = table["parameters"].map(_with_current_names)
        return with_changes(table.sort_values("run", kind="stable").reset_index(drop=True))

    def save(self, data: pd.DataFrame) -> None:
        """Add rows of new runs, each as a file of its own."""
        for position in range(len(data)):
            row = data.iloc[[position]].reset_index(drop=True)
            # The random end keeps two runs that start in the same millisecond apart.
            name = f"{row['run'].iloc[0]}-{uuid4().hex[:8]}.parquet"
            with replace_atomically(Path(self._filepath) / name) as staged:
                row.to_parquet(staged, index=False)

    def preview(self, nrows: int = 20) -> TablePreview:
        """Show the newest rows in Kedro-Viz, newest first."""
        rows = self.load().drop(columns="parameters").iloc[::-1].head(nrows)
        return TablePreview(rows.astype(str).to_dict(orient="split"))

    def _exists(self) -> bool:
        return any(Path(self._filepath).glob("[!.]*.parquet"))

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


def _with_current_names(parameters: str) -> str:
    return json.dumps(with_current_names("parameters", json.loads(parameters)), ensure_ascii=False)
