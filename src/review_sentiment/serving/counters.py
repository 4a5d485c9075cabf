"""What Prometheus reads at /metrics."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from review_sentiment.scoring.answers import Answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)
# A client that hung up before there was an answer; no standard code, but the one that nginx logs for it.
_CLIENT_GONE = 499
_CONFIDENCE = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Counters:
    """Counts since the server started."""

    def __init__(self, run: str, waiting: Callable[[], int]) -> None:
        # A registry of its own: two servers in one process must not count together.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        names: Any = {"namespace": "review_sentiment", "registry": self._registry}
        Info("classifier", "What answers", **names).info({"run": run})
        self.requests = Counter("requests", "Requests answered", ["path", "code"], **names)
        self.seconds = Histogram("request_seconds", "From request to answer", ["path"], buckets=_SECONDS, **names)
        self._batches = Histogram("batch_texts", "Texts scored together", buckets=_TEXTS, **names)
        self._answers = Counter("predictions", "Texts scored", ["label", "confident"], **names)
        self._confidence = Histogram("confidence", "Probability of the label", buckets=_CONFIDENCE, **names)
        Gauge("waiting_texts", "Texts in the queue", **names).set_function(waiting)

    def count_batch(self, answers: Sequence[Answer | None]) -> None:
        """Count what was scored together.

        Args:
            answers: None where there was nothing to read.
        """
        self._batches.observe(len(answers))
        for answer in answers:
            if answer is not None:
                self._answers.labels(answer.label, str(answer.confident).lower()).inc()
                self._confidence.observe(answer.confidence)

    def text(self) -> bytes:
        """All counts in Prometheus' text format."""
        return generate_latest(self._registry)


class CountRequests:
    """Counts every request with its path, code and time.

    Args:
        paths: Paths that are counted by name; an unknown one would let any client add a series.
    """

    def __init__(self, app: "ASGIApp", counters: Counters, paths: frozenset[str]) -> None:
        self._app, self._counters, self._paths = app, counters, paths

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, and look at the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        begin, code = time.perf_counter(), _CLIENT_GONE

        async def look(message: "Message") -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, look)
        except Exception:
            code = 500  # what the outermost layer answers
            raise
        finally:
            self._counters.requests.labels(path, code).inc()
            self._counters.seconds.labels(path).observe(time.perf_counter() - begin)
