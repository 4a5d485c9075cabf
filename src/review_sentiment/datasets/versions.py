"""Which run a user means, and which one is the newest that is whole."""

from collections.abc import Mapping

from kedro.io import AbstractVersionedDataset, Version
from kedro.io.core import VersionNotFoundError

from review_sentiment.errors import UserError


def choose_run(datasets: Mapping[str, AbstractVersionedDataset], wanted: str | None) -> str:
    """Find one run that has a version of each of several datasets, as a run that was killed half way has not.

    Args:
        datasets: By name.
        wanted: A run's version or the beginning of it; None for the newest.

    Returns:
        The run.

    Raises:
        UserError: There is no whole run, or none or several begin so.
    """
    names = ", ".join(sorted(datasets))
    whole = sorted(set.intersection(*(set(_versions(dataset)) for dataset in datasets.values())))
    if not whole:
        raise UserError(f"there is no run with {names} yet: `kedro run` makes one")
    if wanted is None:
        return whole[-1]
    if wanted in whole:
        return wanted
    found = [run for run in whole if run.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"'{wanted}' could be {len(found)} runs ({', '.join(found[-5:])}): write more of it")
    raise UserError(f"no run with {names} begins with '{wanted}': the newest are {', '.join(whole[-3:])}")


def has_version(dataset: AbstractVersionedDataset, run: str) -> bool:
    """Whether a dataset holds the version of one run, whole."""
    return run in _versions(dataset)


def pin(dataset: AbstractVersionedDataset, run: str) -> None:
    """Let a dataset load the version of one run.

    Args:
        dataset: It still saves as before.
        run: The version.
    """
    # Kedro takes load versions only before a catalog is made, when nobody knows yet which runs are whole.
    dataset._version = Version(run, dataset._version.save if dataset._version else None)
    dataset._clear_version_cache()


def _versions(dataset: AbstractVersionedDataset) -> list[str]:
    try:
        return dataset.list_versions(full_path=False)
    except VersionNotFoundError:
        return []
