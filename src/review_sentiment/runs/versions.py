"""Which versions a run reads: all of one run and of what that run read, so that two runs are never mixed."""

import logging
from collections.abc import Mapping, Sequence

from review_sentiment.errors import UserError
from review_sentiment.runs.files import RunFiles

logger = logging.getLogger(__name__)


def choose_versions(
    files: RunFiles, inputs: set[str], makers: Mapping[str, set[str]], named: Mapping[str, str], wanted: str | None
) -> dict[str, str]:
    """Choose the version of each dataset that a run reads.

    The wanted run decides, else the newest that has all that its pipeline writes: Kedro alone would take the newest
    version of each dataset, and mix a run that was killed half way with the one before.

    Args:
        files: What is on disk.
        inputs: Only versioned datasets that a pipeline makes are looked at.
        makers: What each pipeline writes, in the order in which they build on each other.
        named: Versions that the user names, by dataset; these are not changed.
        wanted: A run's label, its version, or the beginning of that; None for the newest.

    Returns:
        Versions by dataset, without those named, and without optional datasets that the run has no version of.

    Raises:
        UserError: There is no complete run, no or several runs match, or what belongs with the run is not on disk.
    """
    inputs = inputs & set(files.folders) & set().union(*makers.values())
    needed = inputs - files.optional
    if not needed:
        if wanted is not None:
            logger.warning("The parameter run=%s changes nothing: these pipelines read no earlier run", wanted)
        return {}
    named = {name: version for name, version in named.items() if name in inputs}
    for name, version in sorted(named.items()):
        if not files.has(name, version):
            raise UserError(f"--load-versions {name}:{version}: there is no such version on disk")
    free = sorted(needed - set(named))
    run = _wanted_run(files, free, wanted) if wanted is not None else _newest_run(files, needed, makers, named)
    found = {name: sorted(files.follow(run, name)) for name in free}
    missing = [name for name, versions in found.items() if not versions]
    if missing and wanted is None and files.manifest(run) is None:
        logger.warning("What the run %s read is not recorded, so %s may be of another run", run, ", ".join(missing))
        return {
            **choose_versions(files, set(missing), makers, {}, None),
            **choose_versions(files, inputs - set(missing), makers, named, None),
        }
    for name, versions in found.items():
        if len(versions) != 1 or not files.has(name, versions[0]):
            raise UserError(_missing_text(run, name, versions))
    mixed = [f"{name}:{version}" for name, version in sorted(named.items()) if version not in files.follow(run, name)]
    if mixed:
        logger.warning("--load-versions mixes runs: %s with the rest of the run %s", ", ".join(mixed), run)
    chosen = {name: versions[0] for name, versions in found.items()}
    made_of_it = {name: files.newest_made_of(run, name) for name in inputs - needed - set(named)}
    return chosen | {name: version for name, version in made_of_it.items() if version is not None}


def _newest_run(files: RunFiles, inputs: set[str], makers: Mapping[str, set[str]], named: Mapping[str, str]) -> str:
    """The run named for an input of the latest maker, else the newest that has all of that maker, or those inputs."""
    maker = [name for name, made in makers.items() if name != "__default__" and made & inputs][-1]
    group = sorted(makers[maker] & inputs)
    for name in group:
        if name in named:
            return named[name]
    all_made = makers[maker] & set(files.folders) - files.optional
    run = files.newest_complete(all_made) or files.newest_complete(set(group))
    if run is None:
        command = "kedro run" if set(group) <= makers["__default__"] else f"kedro run --pipelines {maker}"
        raise UserError(f"there is no run with {', '.join(group)} yet: `{command}` makes one")
    return run


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
