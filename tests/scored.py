"""Scored reviews as monitoring reads them: in parts."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from review_sentiment.datasets.files import ParquetDataset


@dataclass
class InParts:
    table: pd.DataFrame
    rows: int = 40

    def chunks(self) -> Iterator[pd.DataFrame]:
        for start in range(0, len(self.table), self.rows):
            yield self.table.iloc[start : start + self.rows]


class InPartsDataset(ParquetDataset):
    def load(self) -> InParts:
        return InParts(super().load())
