"""The exception for a fault that the user can fix, and how messages are shown."""

from collections.abc import Iterator

from review_sentiment.addresses import redact

_MOST_LINES, _LONGEST_LINE = 24, 600


class UserError(ValueError):
    """A fault in the user's data, parameters or environment.

    The message says what was wrong, where, and what to do, and may quote anything that the user gave. The command line
    prints it without a traceback; any other exception is a fault of the program and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(fit_to_show(message))


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from, down to the first: Kedro wraps what is raised inside a dataset."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def users_fault(error: BaseException) -> str | None:
    """The message of the `UserError` that an error is or was raised from; None if there is none."""
    return next((str(cause) for cause in causes(error) if isinstance(cause, UserError)), None)


def fit_to_show(message: str) -> str:
    """Keep a message readable that quotes a file or a parameter, and a terminal from obeying what it quotes.

    Control characters become escapes; long lines and many lines are cut in the middle, since the beginning says what
    was wrong, and the end what to do. Passwords in addresses are hidden.
    """
    message = redact(message)
    lines = "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in message).split("\n")
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 4], f"… {len(lines) - _MOST_LINES + 1} more lines …", *lines[-3:]]
    return "\n".join(
        line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE // 2]} … {line[-_LONGEST_LINE // 2 :]}"
        for line in lines
    )


def fault_list(head: str, faults: list[str]) -> str:
    """Join several faults under a heading without its colon, so that the user sees all of them at once."""
    return "\n".join([f"{head}:", *(f"  - {fault}" for fault in faults)])
