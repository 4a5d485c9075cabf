"""The processes that train one model together: one on its own, or several that share each batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Workers:
    """This process among those that train together; they are connected by torch.distributed.

    Attributes:
        rank: Number of this one; 0 is the first, which writes down what happens.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes down what happens."""
        return self.rank == 0

    def share(self, rows: Sequence[Any]) -> Sequence[Any]:
        """This worker's part of some rows: every `count`-th, so that sorted rows are as long for each.

        Args:
            rows: Rows that all workers know.
        """
        return rows[self.rank :: self.count]

    def of_first(self, value: Any) -> Any:
        """What the first worker found, where each may have found something else.

        Args:
            value: Of this worker.
        """
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def of_all(self, value: Any) -> list[Any]:
        """What each worker has, in the order of their ranks.

        Args:
            value: Of this worker.
        """
        if self.count == 1:
            return [value]
        box: list[Any] = [None] * self.count
        dist.all_gather_object(box, value)
        return box

    def gather(self, share: np.ndarray, rows: int) -> np.ndarray:
        """Put together what each worker computed of its share of some rows, one vector a row, shape (rows, D)."""
        whole = np.empty((rows, share.shape[1]), dtype=np.float32)
        for rank, part in enumerate(self.of_all(share)):
            whole[rank :: self.count] = part
        return whole

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a number that each worker has; no number where one of them is none.

        Args:
            value: Of this worker.
        """
        if self.count == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.count
