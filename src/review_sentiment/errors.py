"""The one exception for a mistake that the user can mend."""

from review_sentiment.addresses import redact

_MOST_LINES, _LONGEST_LINE = 24, 600


class UserError(ValueError):
    """A fault in the user's data, parameters or environment, told in words for the user.

    The message says what was wrong, where, and what to do; the command line prints it without a traceback. Anything
    else that is raised is a fault of the program and keeps its traceback.

    Args:
        message: May quote what the user gave, whatever that is: it is made fit to be shown.
    """

    def __init__(self, message: str) -> None:
        super().__init__(fit_to_show(message))


def users_fault(error: BaseException) -> str | None:
    """The words of the `UserError` that an error is, or was raised from; Kedro wraps it. None if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    return None


def fit_to_show(message: str) -> str:
    """Keep a message readable that quotes a file or a parameter, and a terminal from obeying what it quotes.

    Args:
        message: Any text.

    Returns:
        The text with control characters and the like written as escapes, and long lines, or many lines, cut in their
        middle: its beginning says what was wrong, its end what to do. Passwords in addresses are hidden.
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
    """Join several faults under one heading, so that the user sees all of them at once.

    Args:
        head: What the faults are about, without a final colon.
        faults: One line each.

    Returns:
        The heading, then one indented line a fault.
    """
    return "\n".join([f"{head}:", *(f"  - {fault}" for fault in faults)])
