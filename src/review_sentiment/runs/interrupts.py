"""Ctrl-C and SIGTERM end a run in good order; training may delay them until a checkpoint is written."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Interrupted(KeyboardInterrupt):
    """The user or the system asked the run to end; not an `Exception`, so that nothing takes it for a failure."""

    def __init__(self, number: int, hint: str = "") -> None:
        self.number = number
        super().__init__(f"interrupted by {_NAMES[signal.Signals(number)]}{hint and f'; {hint}'}")

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended."""
        return 128 + self.number


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
        yield
        return
    before = {number: signal.signal(number, handler) for number in _NAMES}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Let both signals raise `Interrupted` in the block."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handled(interrupt):
        yield


class Pending:
    """A signal that waits for a better moment, as `number`; `may_wait` is asked whether one comes soon enough."""

    def __init__(self, may_wait: Callable[[], bool]) -> None:
        self.number: int | None = None
        self._may_wait = may_wait

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Let a first signal wait in the block; a second one does not, nor one that would wait too long."""
        with _handled(self._handle):
            yield
        if self.number is not None:  # the better moment never came
            raise Interrupted(self.number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None or not self._may_wait():
            raise Interrupted(number)
        self.number = number
