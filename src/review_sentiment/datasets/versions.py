"""Which versions a run reads: all of one run and of what that run read, so that two runs are never mixed."""

import logging
from collections.abc import Mapping, Sequence

from kedro.io import AbstractVersionedDataset, Version

from review_sentiment.errors import UserError
from review_sentiment.run_files import RunFiles

logger = logging.getLogger(__name__)


def choose_versions(
    files: RunFiles, inputs: set[str], stages: Sequence[set[str]], named: Mapping[str, str], wanted: str | None
) -> dict[str, str]:
    """Choose the version of each dataset that a run reads.

    The run that decides is the one that is wanted, else the newest that has all that its pipeline writes: Kedro alone
    would take the newest version of each dataset, and mix a run that was killed half way with the one before.

    Args:
        files: What is on disk.
        inputs: Versioned datasets that the run reads.
        stages: What each pipeline writes, in the order in which they build on each other.
        named: Versions that the user names, by dataset; these stay.
        wanted: A run's label, its version, or the beginning of that; None for the newest.

    Returns:
        Versions by dataset, but for those named; empty as long as no run is whole.

    Raises:
        UserError: No run or several begin so, or something that belongs with the run is not on disk.
    """
    if not inputs:
        if wanted is not None:
            logger.warning("The parameter run=%s changes nothing: these pipelines read no earlier run", wanted)
        return {}
    named = {name: version for name, version in named.items() if name in inputs}
    for name, version in sorted(named.items()):
        if not files.has(name, version):
            raise UserError(f"--load-versions {name}:{version}: there is no such version on disk")
    free = sorted(inputs - set(named))
    run = _wanted_run(files, free, wanted) if wanted is not None else _newest_run(files, inputs, stages, named)
    if run is None:
        return {}
    found = {name: sorted(files.follow(run, name)) for name in free}
    missing = [name for name, versions in found.items() if not versions]
    if missing and wanted is None and files.story(run) is None:
        logger.warning("What the run %s read is not recorded, so %s may be of another run", run, ", ".join(missing))
        return {
            **choose_versions(files, set(missing), stages, {}, None),
            **choose_versions(files, inputs - set(missing), stages, named, None),
        }
    for name, versions in found.items():
        if len(versions) != 1 or not files.has(name, versions[0]):
            raise UserError(_missing_text(run, name, versions))
    mixed = [f"{name}:{version}" for name, version in sorted(named.items()) if version not in files.follow(run, name)]
    if mixed:
        logger.warning("--load-versions mixes runs: %s with the rest of the run %s", ", ".join(mixed), run)
    return {name: versions[0] for name, versions in found.items()}


def _newest_run(files: RunFiles, inputs: set[str], stages: Sequence[set[str]], named: Mapping[str, str]) -> str | None:
    """The run named for an input of the latest stage, else the newest that has all of that stage, or those inputs."""
    made = next((made for made in reversed(stages) if made & inputs), set())
    for name in sorted(made & set(named)):
        return named[name]
    if not made:
        return None
    return files.newest_whole(made & set(files.folders)) or files.newest_whole(made & inputs)


def _wanted_run(files: RunFiles, inputs: Sequence[str], wanted: str) -> str:
    """The run meant; the beginning of a version counts only for runs that can give the inputs, if there are any."""
    able = [run for run in files.versions() if run.startswith(wanted) and all(files.follow(run, n) for n in inputs)]
    return files.find(wanted, able or None)


def _missing_text(run: str, name: str, versions: Sequence[str]) -> str:
    if not versions:
        fault = f"the run {run} has no {name}, and read none"
    elif len(versions) == 1:
        fault = f"{name} of the run {versions[0]} is gone"
    else:
        fault = f"the run {run} read several runs, so {name} could be that of {' or '.join(versions)}"
    return f"{fault}: name another run (run=RUN), or {name} itself (--load-versions {name}:RUN)"


def pin(dataset: AbstractVersionedDataset, run: str) -> None:
    """Let a dataset load the version of one run.

    Args:
        dataset: It still saves as before.
        run: The version.
    """
    # Kedro takes load versions only before a catalog is made, when nobody knows yet which runs are whole.
    dataset._version = Version(run, dataset._version.save if dataset._version else None)
    dataset._clear_version_cache()
