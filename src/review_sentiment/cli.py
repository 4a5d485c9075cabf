"""The project's commands, found by `kedro`: Kedro's `run`, and `runs`, which lists and compares past runs.

What the user can mend ends a command with one message and exit code 1, without a traceback.
"""

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
from review_sentiment.interrupts import Interrupted

logger = logging.getLogger(__name__)

_FOR_THE_USER = (
    UserError, DatasetError, DataValidationError, MissingConfigException, OmegaConfBaseException,
    ParameterValidationError, YAMLError,
)  # fmt: skip


class _TellsUser(click.Command):
    """A command that turns a mistake of the user's into one message."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and word what the user can mend."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except Exception as error:
            message = _message_for_user(error)
            if message is None:
                raise
            logger.debug("The command failed", exc_info=error)
            raise click.ClickException(message) from error


class RunCommand(_TellsUser):
    """Kedro's `run`."""


class RunsGroup(_TellsUser, click.Group):
    """The commands on past runs."""


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


@cli.group(name="runs", cls=RunsGroup, invoke_without_command=True)
@click.pass_context
def runs(ctx: click.Context) -> None:
    """List all runs, oldest first; the commands below do more with them.

    A classifier that was reported on again stands once, with its newest report.
    """
    if ctx.invoked_subcommand is None:
        from review_sentiment.past_runs import list_runs

        list_runs()


@runs.command(name="compare")
@click.argument("first", metavar="[A]", required=False)
@click.argument("second", metavar="[B]", required=False)
def compare(first: str | None, second: str | None) -> None:
    """Say whether run B is better than run A, by a paired test on the stored predictions.

    Runs are named by their version or its beginning. Without B: the newest run; without A: the best before it.
    """
    from review_sentiment.past_runs import compare_runs

    compare_runs(first, second)
