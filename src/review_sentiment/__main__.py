"""Entry point of the installed package: `review-sentiment` or `python -m review_sentiment` is `kedro run`.

`review-sentiment predict`, `serve` and `runs` are the project's other commands. All work in any folder.
"""

import os
import sys
from pathlib import Path
from typing import Any

PACKAGE_NAME = Path(__file__).parent.name


def main(*args: Any, **kwargs: Any) -> Any:
    """Run the command that the first argument names, else `run`, with the options and exit codes of `kedro`."""
    from review_sentiment.datasets.paths import carried_conf

    conf = carried_conf()
    if conf is not None:
        # Kedro reads it while it is imported; its own configuration fails on a review with "[/i]" in it.
        os.environ.setdefault("KEDRO_LOGGING_CONFIG", str(conf / "logging.yml"))
    from kedro.framework.project import configure_project

    configure_project(PACKAGE_NAME)
    from review_sentiment.cli import cli, run

    arguments = args[0] if args else sys.argv[1:]
    command = cli if arguments and arguments[0] in {"--help", *cli.commands} else run
    kwargs.setdefault("standalone_mode", not hasattr(sys, "ps1"))
    return command(*args, **kwargs)


if __name__ == "__main__":
    main()
