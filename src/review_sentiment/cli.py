"""The project's commands, found by `kedro`: Kedro's `run`, but with a user's mistake told in one message."""

import logging
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.io import DatasetError
from kedro.validation.exceptions import DataValidationError, ParameterValidationError
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from review_sentiment.errors import UserError

logger = logging.getLogger(__name__)

_FOR_THE_USER = (
    UserError, DatasetError, DataValidationError, MissingConfigException, OmegaConfBaseException,
    ParameterValidationError, YAMLError,
)  # fmt: skip


class RunCommand(click.Command):
    """Kedro's `run`; what the user can mend ends it with one message and exit code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and turn a mistake of the user's into a message."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            message = _message_for_user(error)
            if message is None:
                raise
            logger.debug("The run failed", exc_info=error)
            raise click.ClickException(message) from error


def _message_for_user(error: BaseException) -> str | None:
    """The words of the innermost `UserError`, or of an error that Kedro words for users; None for anything else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, _FOR_THE_USER):
        return str(error)
    # Kedro has no type of its own for these two.
    kedro_says = ("Failed to find the pipeline named", "Pipeline does not contain")
    return str(error) if isinstance(error, ValueError) and str(error).startswith(kedro_says) else None


run = RunCommand(name="run", params=kedro_run.params, callback=kedro_run.callback, help=kedro_run.help)


@click.group(name="review-sentiment")
def cli() -> None:
    """Commands of review_sentiment."""


cli.add_command(run)
