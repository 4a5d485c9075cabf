"""The project's Kedro session: no two runs share a version, and an interrupted run ends in good order."""

import time
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.session import KedroSession
from kedro.io.core import generate_timestamp

from review_sentiment.runs.interrupts import interrupts_raised
from review_sentiment.runs.locks import FolderLock


class _Started:
    """What Kedro told its hooks when a run started."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    @hook_impl
    def before_pipeline_run(self, run_params: Any, pipeline: Any, catalog: Any) -> None:
        self.told = {"run_params": run_params, "pipeline": pipeline, "catalog": catalog}


class RunSession(KedroSession):
    """Kedro's session, for this project; the arguments are the same."""

    def __init__(self, session_id: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(session_id, *args, **kwargs)
        self.session_id = _own_version(self._project_path)
        self._started = _Started()
        self._hook_manager.register(self._started)

    def run(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run as Kedro does, and let an interrupt end the run like a failure: with a manifest that says so.

        Raises:
            Interrupted: By Ctrl-C or SIGTERM.
        """
        with interrupts_raised():
            try:
                return super().run(*args, **kwargs)
            except KeyboardInterrupt as error:  # Kedro tells its hooks of an `Exception` only
                if self._started.told:
                    self._hook_manager.hook.on_pipeline_error(error=error, **self._started.told)
                raise


def _own_version(project: Path) -> str:
    """The time as Kedro writes it, which is a run's version; in one project no two are given the same."""
    lock = FolderLock(project)
    lock.take(wait=True)
    try:
        version = generate_timestamp()
        time.sleep(0.001)  # the next one who asks is in another millisecond
    finally:
        lock.release()
    return version
