"""Entry point of the installed package: `review-sentiment` or `python -m review_sentiment` is `kedro run`."""

import sys
from pathlib import Path
from typing import Any

from kedro.framework.project import configure_project

PACKAGE_NAME = Path(__file__).parent.name


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the project's `kedro run` command; options and exit codes are the same."""
    configure_project(PACKAGE_NAME)
    from review_sentiment.cli import run

    kwargs.setdefault("standalone_mode", not hasattr(sys, "ps1"))
    return run(*args, **kwargs)


if __name__ == "__main__":
    main()
