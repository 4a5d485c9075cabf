"""What runs have left on disk: their versions, manifests, labels, and the records of runs in progress."""

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from review_sentiment.errors import UserError
from review_sentiment.runs.atomic import replace_atomically
from review_sentiment.runs.former_names import with_current_names
from review_sentiment.runs.locks import PathLock, is_held

_RUN = re.compile(r"\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d\.\d{3}Z")
_LABEL = re.compile(r"[A-Za-z][\w.-]{0,39}", re.ASCII)
_STAGED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_DAY_SECONDS = 24 * 3600


def is_run_name(name: str) -> bool:
    """Whether a name is one that Kedro gives to runs: the time of its start, to the millisecond."""
    return _RUN.fullmatch(name) is not None


@dataclass(frozen=True)
class RunFiles:
    """The versioned datasets of a project, run by run.

    Attributes:
        folders: The folder of each versioned dataset, which holds its versions.
        optional: Datasets that a reader can do without.
        former: Folders that earlier code used for a dataset, where it has another one today.
    """

    folders: Mapping[str, Path]
    optional: frozenset[str] = frozenset()
    former: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of_catalog(cls, entries: Mapping[str, Any], project: Path) -> "RunFiles":
        """Find the folders in the catalog's configuration, without making any dataset.

        An optional view of another dataset is left out: it only spares work, so what is read through it says nothing
        about where a result comes from.
        """
        local = {
            name: entry
            for name, entry in entries.items()
            if isinstance(entry, Mapping) and entry.get("versioned") and "://" not in entry.get("filepath", "://")
        }
        optional = {name for name, entry in local.items() if entry.get("optional")}
        taken = {entry["filepath"] for name, entry in local.items() if name not in optional}
        folders = {
            name: project / entry["filepath"]
            for name, entry in local.items()
            if name not in optional or entry["filepath"] not in taken
        }
        former = {name: project / local[name]["former_filepath"] for name in local if "former_filepath" in local[name]}
        return cls(folders, frozenset(optional), former)

    @property
    def _beside_manifests(self) -> Path:
        return self.folders["manifest"].parent

    @property
    def _labels(self) -> Path:
        return self._beside_manifests / "run_labels"

    @property
    def _in_progress(self) -> Path:
        return self._beside_manifests / "runs_in_progress"

    @property
    def _deleting(self) -> Path:
        return self._beside_manifests / "runs_deleting"

    def _all_folders(self) -> list[Path]:
        return [*self.folders.values(), *self.former.values()]

    def versions(self) -> list[str]:
        """All versions of anything, complete or not, sorted by name; not those that are being deleted."""
        found = {name for folder in self._all_folders() for name in _names(folder) if (folder / name).is_dir()}
        return sorted(found - set(self.being_deleted()))

    def runs(self) -> list[str]:
        """All runs that have left anything, oldest first; versions with a name of the user's own are left out."""
        begun = {name.removesuffix(".json") for name in _names(self._in_progress)} - set(self.being_deleted())
        return sorted(run for run in begun | set(self.versions()) if is_run_name(run))

    def has(self, name: str, run: str) -> bool:
        """Whether a run has a version of a dataset; a run that is being deleted has none."""
        try:
            return self.path(name, run).exists() and not (self._deleting / run).exists()
        except OSError:  # a name that no file can have
            return False

    def path(self, name: str, run: str) -> Path:
        """Where a run's version of a dataset is, or would be."""
        path = _version_in(self.folders[name], run)
        if name in self.former and not path.exists():
            former = _version_in(self.former[name], run)
            return former if former.exists() else path
        return path

    def sizes(self, run: str) -> dict[str, int]:
        """Bytes on disk of each dataset that a run has written, leftovers of broken writes included."""
        places = {name: self.path(name, run).parent for name in self.folders}
        return {name: _size(place) for name, place in places.items() if place.is_dir()}

    def newest_complete(self, names: set[str]) -> str | None:
        """The newest run that has a version of all these datasets; None if there is none."""
        return next((run for run in reversed(self.versions()) if all(self.has(name, run) for name in names)), None)

    def manifest(self, run: str) -> dict[str, Any] | None:
        """A run's manifest, or what it knew at its start; None if there is neither."""
        for file in (self.path("manifest", run), self._record(run)):
            try:
                found = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError):
                continue
            return with_current_names("manifest", found) if isinstance(found, dict) else None
        return None

    def replace_manifest(self, run: str, manifest: Mapping[str, Any]) -> None:
        """Overwrite a run's manifest, which Kedro's versioned datasets refuse to do."""
        with replace_atomically(self.path("manifest", run)) as staged:
            staged.write_text(json.dumps(manifest, indent=2), "utf-8")

    def state(self, run: str) -> str:
        """How a run ended (`complete`, `failed` or `killed`), or `running`."""
        if _is_in_progress(self._record(run)):
            return "running"
        if not self.has("manifest", run):
            return "killed"
        return "complete" if (self.manifest(run) or {}).get("complete") else "failed"

    def reads(self, run: str) -> dict[str, str]:
        """Versions of other runs that a run's result was made from, by dataset."""
        return {name: version for name, version in self.all_reads(run).items() if name in self.folders}

    def all_reads(self, run: str) -> dict[str, str]:
        """Versions of other runs that a run reads or has read, by dataset, optional views included."""
        read = (self.manifest(run) or {}).get("versions_read", {})
        return {name: version for name, version in read.items() if version != run}

    def follow(self, run: str, name: str) -> set[str]:
        """Find the version of a dataset that belongs with a run.

        Returns:
            The run itself if it has one, else the version that it read, else what belongs with the runs that it read
            from: several if those do not agree, none if it is not recorded.
        """
        if self.has(name, run):
            return {run}
        read = self.reads(run)
        if name in read:
            return {read[name]}
        return set().union(*(self.follow(earlier, name) for earlier in set(read.values()) if earlier < run))

    def newest_made_of(self, run: str, name: str) -> str | None:
        """The newest version of a dataset that was made from what a run has written; None if there is none."""

        def is_made_of_run(other: str) -> bool:
            read = self.reads(other)
            # A run may read this run's data and another run's classifier.
            return other == run or (run in read.values() and read.get("classifier", run) == run)

        made = (other for other in reversed(self.versions()) if self.has(name, other))
        return next(filter(is_made_of_run, made), None)

    def find(self, name: str, among: list[str] | None = None) -> str:
        """Find a run by a label, its version, or the beginning of its version; among all on disk by default.

        Raises:
            UserError: No run matches, or several do.
        """
        runs = self.versions() if among is None else among
        name = self.labels().get(name, name)
        found = [name] if name in runs else [run for run in runs if run.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"'{name}' could be {len(found)} runs ({', '.join(found[-5:])}): write more of it")
        known = f"the newest are {', '.join(runs[-3:])}" if runs else "there is none yet, `kedro run` makes one"
        raise UserError(f"no run on disk has the label '{name}' or begins with '{name}': {known}")

    def labels(self) -> dict[str, str]:
        """Run of each label."""
        return {name: (self._labels / name).read_text("utf-8").strip() for name in _names(self._labels)}

    def labels_of(self, run: str) -> str:
        """A run's labels in one line, empty if it has none."""
        return ", ".join(sorted(label for label, labeled in self.labels().items() if labeled == run))

    def add_label(self, run: str, label: str) -> None:
        """Give a run a label; it may have several.

        Raises:
            UserError: The label could be the beginning of a version, is no file name, or belongs to another run.
        """
        if not _LABEL.fullmatch(label):
            raise UserError(
                f"'{label}' can't be a label: take a letter, then up to 39 letters, digits, '.', '_' or '-'"
            )
        # Without regard to case, since some file systems have none.
        taken = {name.casefold(): (name, of) for name, of in self.labels().items()}.get(label.casefold())
        if taken is not None and taken != (label, run):
            raise UserError(f"the label '{taken[0]}' belongs to the run {taken[1]}: remove it there, or take another")
        with replace_atomically(self._labels / label) as staged:
            staged.write_text(run + "\n", "utf-8")

    def remove_label(self, run: str, label: str) -> None:
        """Take a label from a run.

        Raises:
            UserError: The run has no such label.
        """
        if self.labels().get(label) != run:
            raise UserError(f"the run {run} has no label '{label}' (it has: {self.labels_of(run) or 'none'})")
        (self._labels / label).unlink()

    def begin(self, run_info: Mapping[str, Any]) -> "RunRecord":
        """Record that a run is in progress; `run_info` has its version as `run`, and what it reads."""
        return RunRecord(self._record(run_info["run"]), run_info)

    def _record(self, run: str) -> Path:
        return self._in_progress / f"{run}.json"

    def being_deleted(self) -> list[str]:
        """Runs whose deletion has begun; for every reader they are gone."""
        return sorted(_names(self._deleting))

    def mark_deleted(self, run: str) -> None:
        """Begin to delete a run: from here on no reader finds it."""
        self._deleting.mkdir(parents=True, exist_ok=True)
        (self._deleting / run).touch()

    def delete(self, run: str) -> None:
        """Delete all that a run that has ended has written; deleting again finishes an interrupted deletion."""
        self.mark_deleted(run)
        places = [folder / run for folder in self._all_folders() if (folder / run).is_dir()]
        for place in places:
            # Kedro finds a version by the name inside its folder, so one rename hides it.
            version = place / place.parent.name
            if version.exists():
                version.rename(place / f".{version.name}.deleted")
        for place in places:
            shutil.rmtree(place)
        self._record(run).unlink(missing_ok=True)
        (self._deleting / run).unlink()

    def leftovers(self) -> list[Path]:
        """Files and folders that broken writes have staged and never renamed into place."""
        folders = set(self.folders.values())
        found = [path for folder in folders for depth in ("*", "*/*") for path in folder.glob(f"{depth}/.*.tmp")]
        return sorted(path for path in found if _STAGED.fullmatch(path.name))

    def can_be_resumed(self, run: str) -> bool:
        """Whether a run has left checkpoints of an unfinished training."""
        return "checkpoints" in self.folders and (self.folders["checkpoints"] / run).is_dir()


class RunRecord:
    """A file that describes a run in progress; the run's process holds a lock on it until the run ends.

    The system releases the lock of a process that dies, so a record without a lock is of a run that was killed.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._path = path
        with replace_atomically(path) as staged:
            staged.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
            self._lock = PathLock(staged)
            self._lock.take(wait=True)

    def end(self) -> None:
        """Remove the record, whose place the manifest has taken."""
        self._path.unlink(missing_ok=True)
        self._lock.release()


def _is_in_progress(record: Path) -> bool:
    """Whether the run of a record is in progress; where locks can't say, whether it began within a day."""
    try:
        held = is_held(record)
    except FileNotFoundError:
        return False
    except OSError:  # not readable for this user
        held = None
    if held is not None:
        return held
    try:
        return time.time() - record.stat().st_mtime < _DAY_SECONDS
    except FileNotFoundError:
        return False


def _version_in(folder: Path, run: str) -> Path:
    return folder / run / folder.name


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; files that a run in progress removes meanwhile count nothing."""
    size = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                size += (Path(place) / file).stat().st_size
    return size


def _names(folder: Path) -> list[str]:
    """Names in a folder without hidden files; none if there is no such folder."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
