"""Texts of many requests, scored together by one thread."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class QueueFullError(Exception):
    """There is no room for a request's texts."""


class ClosedError(Exception):
    """The server is not running, or is about to stop."""


@dataclass(frozen=True)
class _Request(Generic[T]):
    texts: list[str]
    answers: "asyncio.Future[list[T]]"


class Batcher(Generic[T]):
    """A queue of texts before one thread, which always takes as many as are waiting, up to a bound.

    Nothing waits for company: a text that comes alone is scored at once, and what comes meanwhile is scored together.

    Args:
        work: Gives an answer for each of some texts; called in one thread only.
        batch_texts: Most texts of several requests that are scored together.
    """

    def __init__(self, work: Callable[[list[str]], list[T]], batch_texts: int, max_waiting: int) -> None:
        self._work, self._batch_texts, self._max_waiting = work, batch_texts, max_waiting
        self._queue: deque[_Request[T]] = deque()
        self._came = asyncio.Event()
        self._open = False
        self.waiting = 0

    def has_room(self, texts: int) -> bool:
        """Whether the queue takes that many more texts."""
        return self._open and self.waiting + texts <= self._max_waiting

    async def submit(self, texts: list[str]) -> list[T]:
        """Wait for the answers to some texts; who stops to wait takes them out of the queue.

        Raises:
            QueueFullError: There are too many in the queue.
            ClosedError: It does not run.
        """
        if not self._open:
            raise ClosedError
        if not self.has_room(len(texts)):
            raise QueueFullError
        request: _Request[T] = _Request(texts, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self.waiting += len(texts)
        self._came.set()
        try:
            return await request.answers
        except asyncio.CancelledError:
            if request in self._queue:
                self._queue.remove(request)
                self.waiting -= len(texts)
            raise

    async def run(self) -> None:
        """Answer until `close` is called and the queue is empty."""
        self._open = True
        with ThreadPoolExecutor(1, thread_name_prefix="scorer") as thread:
            while self._open or self._queue:
                if self._queue:
                    await self._answer(self._take(), thread)
                else:
                    self._came.clear()
                    await self._came.wait()

    def close(self) -> None:
        """Take no more texts."""
        self._open = False
        self._came.set()

    def _take(self) -> list[_Request[T]]:
        taken = [self._queue.popleft()]
        rows = len(taken[0].texts)
        while self._queue and rows + len(self._queue[0].texts) <= self._batch_texts:
            taken.append(self._queue.popleft())
            rows += len(taken[-1].texts)
        self.waiting -= rows
        return taken

    async def _answer(self, requests: list[_Request[T]], thread: ThreadPoolExecutor) -> None:
        texts = [text for request in requests for text in request.texts]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(thread, self._work, texts)
        except Exception as error:
            for request in requests:
                if not request.answers.done():
                    request.answers.set_exception(error)
            return
        start = 0
        for request in requests:
            if not request.answers.done():  # else nobody waits for it any more
                request.answers.set_result(answers[start : start + len(request.texts)])
            start += len(request.texts)
