"""The project's Kedro session: no two runs share a version, and an interrupted run ends in good order."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import pipelines
from kedro.framework.session import KedroSession
from kedro.io.core import generate_timestamp

from review_sentiment.errors import UserError
from review_sentiment.runs.files import is_run_name
from review_sentiment.runs.interrupts import interrupts_raised
from review_sentiment.runs.locks import path_held
from review_sentiment.runs.manifest import NODE_SELECTION

# Names the run of a process, where an orchestrator runs each pipeline of one run in a process of its own.
_GIVEN = "REVIEW_SENTIMENT_RUN"


class _Started:
    """Keeps what Kedro passed to the hooks when a run started."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}

    @hook_impl
    def before_pipeline_run(self, run_params: Any, pipeline: Any, catalog: Any) -> None:
        self.arguments = {"run_params": run_params, "pipeline": pipeline, "catalog": catalog}


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Leave out Kedro's advice to go on with `--from-nodes` after a failure.

    These nodes would read the newest run, which may be another one by then; `resume` finds the right one.
    """
    return "--from-nodes" not in str(record.msg)


class RunSession(KedroSession):
    """Kedro's session, for this project; the arguments are the same."""

    def __init__(self, session_id: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(session_id, *args, **kwargs)
        self.session_id = given_run() or _unique_version(self._project_path)
        self._started = _Started()
        self._hook_manager.register(self._started)
        for handler in logging.getLogger("kedro").handlers:
            handler.addFilter(_is_no_advice)

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run as Kedro does; Ctrl-C and SIGTERM raise `Interrupted`, and leave a manifest as a failure does."""
        with interrupts_raised():
            try:
                return super().run(*args, **_with_groups(kwargs))
            except KeyboardInterrupt as error:  # Kedro calls its hooks only for an `Exception`
                if self._started.arguments:
                    self._hook_manager.hook.on_pipeline_error(error=error, **self._started.arguments)
                raise


def _with_groups(options: dict[str, Any]) -> dict[str, Any]:
    """Let nodes be named without their namespace: `fine_tune` is `modeling.fine_tune`."""
    names = options.get("pipeline_names") or [options.get("pipeline_name") or "__default__"]
    nodes = [node for name in names if name in pipelines for node in pipelines[name].nodes]
    full = {node.short_name: node.name for node in nodes}
    named = {option: options[option] for option in NODE_SELECTION if options.get(option)}
    return {**options, **{option: [full.get(name, name) for name in given] for option, given in named.items()}}


def given_run() -> str | None:
    """The run that this process makes a part of, if the environment names one.

    Raises:
        UserError: No run can have that name.
    """
    given = os.environ.get(_GIVEN)
    if given and not is_run_name(given):
        raise UserError(f"{_GIVEN}={given} is no name of a run: it must look like 2026-11-25T17.10.21.123Z")
    return given


def _unique_version(project: Path) -> str:
    """The time as Kedro writes it; no two runs of a project are given the same."""
    with path_held(project):
        version = generate_timestamp()
        time.sleep(0.001)  # the next run that asks gets another millisecond
    return version
