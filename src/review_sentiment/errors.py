"""The one exception for a mistake that the user can mend."""


class UserError(ValueError):
    """A fault in the user's data, parameters or environment, told in words for the user.

    The message says what was wrong, where, and what to do; the command line prints it without a traceback. Anything
    else that is raised is a fault of the program and keeps its traceback.
    """


def fault_list(head: str, faults: list[str]) -> str:
    """Join several faults under one heading, so that the user sees all of them at once.

    Args:
        head: What the faults are about, without a final colon.
        faults: One line each.

    Returns:
        The heading, then one indented line a fault.
    """
    return "\n".join([f"{head}:", *(f"  - {fault}" for fault in faults)])
