"""The commands that `kedro` finds: `run`, `runs` (everything about past runs), `predict` and `serve`.

A fault that the user can fix ends a command with one message and exit code 1, without a traceback.
"""

import errno
import logging
import os
import sys
from typing import Any

import click
from kedro.config import MissingConfigException
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import KedroCliError
from kedro.io import DatasetError
from kedro.validation.exceptions import ParameterValidationError
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from review_sentiment.errors import UserError, causes, fit_to_show, users_fault
from review_sentiment.runs.interrupts import Interrupted

logger = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ABOUT_CONFIGURATION = (MissingConfigException, OmegaConfBaseException, ParameterValidationError, YAMLError)
# Kedro has no type of its own for these.
_ABOUT_THE_COMMAND = (
    "Failed to find the pipeline named", "Pipeline does not contain", "Pipeline contains no nodes",
    "Duplicate keys found", "module 'kedro.runner' has no attribute", "Pipeline input(s)",
)  # fmt: skip


class _Command(click.Command):
    """A command that shows a fault of the user's as one message."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn what Kedro raises while it parses the command line into usage errors."""
        try:
            return super().parse_args(ctx, args)
        except KedroCliError as error:  # Kedro 1.7.0 shows "NoneType: None" in its place
            raise click.UsageError(fit_to_show(error.message), ctx) from error
        except (OmegaConfBaseException, YAMLError, IndexError, TypeError, ValueError) as error:
            hint = "; a value that begins with * or [ needs ./ before it" if isinstance(error, YAMLError) else ""
            raise click.UsageError(f"the command line can't be read: {fit_to_show(str(error))}{hint}", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run, and show what the user can fix without a traceback."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)
        except Exception as error:
            message = message_for_user(error)
            if message is None:
                raise
            logger.debug("The command failed", exc_info=error)
            raise click.ClickException(message) from error


class _Group(_Command, click.Group):
    """A group of such commands."""


def message_for_user(error: BaseException) -> str | None:
    """What the user can fix, where an error is about that; None for a fault of the program.

    Kedro wraps whatever is raised while a dataset is loaded or saved, so the first cause says whose fault it is.
    """
    message = users_fault(error)
    if message is not None:
        return message
    *_, first = causes(error)
    if isinstance(first, OSError) or os.strerror(errno.ENOSPC) in str(first):  # safetensors' errors have no number
        return _about_the_disk(error, first)
    # Kedro's own words: a dataset or version that is missing, or a wrong entry of the catalog.
    by_kedro = isinstance(first, DatasetError) or "must only contain arguments valid for the" in str(error)
    about_the_command = isinstance(error, ValueError | AttributeError) and str(error).startswith(_ABOUT_THE_COMMAND)
    if by_kedro or about_the_command or isinstance(error, _ABOUT_CONFIGURATION):
        return fit_to_show(str(error))
    return None


def _about_the_disk(error: BaseException, first: BaseException) -> str | None:
    """A message on a full disk, a missing permission, or a file that is missing where a dataset should be."""
    number, place = getattr(first, "errno", errno.ENOSPC), getattr(first, "filename", None)
    fault = f"{place}: {os.strerror(number)}" if place and number else str(error)
    if number in _FULL:
        return fit_to_show(f"{fault}; make room there")
    if number in _NOT_ALLOWED:
        return fit_to_show(f"{fault}; let this user read and write there")
    if number == errno.ENOENT and isinstance(error, DatasetError) and "Failed while loading" in str(error):
        return fit_to_show(str(error))
    return None


def _run(force: bool, **options: Any) -> Any:
    """Run as Kedro does, without what would only repeat a training."""
    if not force:
        from review_sentiment.commands.run import without_repetition

        left = without_repetition(options)
        if left is None:
            return None
        options = left
    return kedro_run.callback(**options)  # type: ignore[misc]


_FORCE = click.Option(["--force"], is_flag=True, help="Train also where the result exists already.")
_RUN_HELP = "Check the reviews, train, evaluate and report; or run the pipelines that are named."
run = _Command(name="run", params=[*kedro_run.params, _FORCE], callback=_run, help=_RUN_HELP)


@click.group(name="review-sentiment")
def cli() -> None:
    """Fine-tune a review classifier, and use it."""


cli.add_command(run)


@cli.group(name="runs", cls=_Group, invoke_without_command=True)
@click.pass_context
def runs(ctx: click.Context) -> None:
    """List all runs, oldest first; the commands below do more with them.

    Figures are shown with the run that trained the classifier, from the newest report on it. RUN is a label, a version,
    or the beginning of one.
    """
    if ctx.invoked_subcommand is None:
        from review_sentiment.commands.runs import list_runs

        list_runs()


@runs.command(name="compare")
@click.argument("first", metavar="[A]", required=False)
@click.argument("second", metavar="[B]", required=False)
def compare(first: str | None, second: str | None) -> None:
    """Say whether run B is better than run A, by a paired test on the stored predictions.

    Runs are named by a label, their version or its beginning. Without B: the newest run; without A: the best before it.
    """
    from review_sentiment.commands.runs import compare_runs

    compare_runs(first, second)


@runs.command(name="show")
@click.argument("run_name", metavar="RUN")
def show(run_name: str) -> None:
    """Show everything that is known about a run."""
    from review_sentiment.commands.show import show_run

    show_run(run_name)


@runs.command(name="label")
@click.argument("run_name", metavar="RUN")
@click.argument("label", metavar="NAME", required=False)
@click.option("--remove", is_flag=True, help="Take the label away: NAME, or RUN where that is a label.")
def label_run(run_name: str, label: str | None, remove: bool) -> None:
    """Give a run a name, which works as RUN everywhere; `clean` keeps labeled runs."""
    from review_sentiment.commands.runs import label_run

    if label is None and not remove:
        raise click.UsageError("Missing argument 'NAME'.")
    label_run(run_name, run_name if label is None else label, remove)


@runs.command(name="rerun")
@click.argument("run_name", metavar="RUN")
def rerun(run_name: str) -> None:
    """Repeat a run with its recorded parameters, and say whether the predictions are identical."""
    from review_sentiment.commands.rerun import rerun_run

    rerun_run(run_name)


@runs.command(name="clean")
@click.option("--keep-last", type=click.IntRange(min=0), help="Keep this many newest runs.")
@click.option(
    "--keep-best", type=click.IntRange(min=0), help="Keep this many most accurate ones on each set of reviews."
)
@click.option("--yes", is_flag=True, help="Delete; without it the command only shows what it would delete.")
def clean(keep_last: int | None, keep_best: int | None, yes: bool) -> None:
    """Delete old runs, and what failed or killed runs have left; without numbers, only the latter.

    Labeled and running runs stay, and so do those that a run that stays has read from. The ledger is never touched.
    """
    from review_sentiment.commands.clean import clean_runs

    clean_runs(keep_last, keep_best, yes)


@cli.command(name="predict", cls=_Command)
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--run", metavar="RUN", help="Run whose classifier answers, or its beginning; the newest by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a text, and nothing else.")
@click.pass_context
def predict(ctx: click.Context, texts: tuple[str, ...], run: str | None, as_json: bool) -> None:
    """Score texts, or the lines of standard input.

    A TEXT that begins with a dash comes after `--`.
    """
    if not texts and sys.stdin.isatty():
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)
    from review_sentiment.commands.predict import predict_texts

    predict_texts(texts, run, as_json)


@cli.command(name="serve", cls=_Command)
@click.option("--run", metavar="RUN", help="Run whose classifier answers, or its beginning; the newest by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--log-predictions", is_flag=True, help="Keep what was answered in data/07_model_output/prediction_log.")
@click.option("--log-texts", is_flag=True, help="Keep the texts as well; with --log-predictions.")
def serve(run: str | None, host: str, port: int, log_predictions: bool, log_texts: bool) -> None:
    """Score texts over HTTP, with a page to try it. It knows no passwords and no encryption."""
    if log_texts and not log_predictions:
        raise click.UsageError("--log-texts adds to --log-predictions: give both")
    try:
        from review_sentiment.serving.server import serve_classifier
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "uvicorn"):
            raise
        raise UserError(f'kedro serve needs {error.name}: pip install -e ".[serve]" in the project folder') from error
    serve_classifier(run, host, port, log_predictions, log_texts)
