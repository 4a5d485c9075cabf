"""Scoring by the workers of a Ray cluster: read here, scored there, and in the same order here again."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from review_sentiment.runs.cluster import place_workers, ray_cluster

Score = Callable[[pa.RecordBatch], pa.RecordBatch]

# Batches that are with Ray at once, for each worker: one is scored while the next one waits beside it.
_UNDER_WAY = 2


def score_on_ray(score: Score, batches: Iterable[pa.RecordBatch], workers: int) -> Iterator[pa.RecordBatch]:
    """Score a stream of batches, of which a few are in memory at once; what a lost worker had is scored again.

    Ray Data (2.60) would read the stream too, but gives all that was read at once to one worker, and waits forever for
    a core to cut it up where the workers have them all.

    Args:
        score: Scores a batch; it is sent to the workers, with the model in it.
        batches: The stream.
        workers: Processes that score.

    Yields:
        The scored batches, in the order of the stream.

    Raises:
        UserError: Ray is not installed, or the cluster is too small.
    """
    with ray_cluster(workers, "inference.workers=1") as nodes:
        import ray

        cpus, _ = place_workers(nodes, workers, "cpu", "inference.workers")
        work = ray.remote(_work).options(num_cpus=cpus)
        sent = ray.put(score)
        under_way: deque[Any] = deque()
        for batch in batches:
            if len(under_way) == _UNDER_WAY * workers:
                yield ray.get(under_way.popleft())
            under_way.append(work.remote(sent, batch))
        while under_way:
            yield ray.get(under_way.popleft())


def _work(score: Score, batch: pa.RecordBatch) -> pa.RecordBatch:
    return score(batch)
