"""What runs have left on disk: their versions, manifests, labels, and the records of runs in progress."""

import json
import os
import re
import shutil
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from review_sentiment.datasets.atomic import replace_atomically
from review_sentiment.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_RUN = re.compile(r"\d{4}-\d\d-\d\dT\d\d\.\d\d\.\d\d\.\d{3}Z")
_LABEL = re.compile(r"[A-Za-z][\w.-]{0,39}", re.ASCII)
_STAGED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_DAY_SECONDS = 24 * 3600


def is_run_name(name: str) -> bool:
    """Whether a name is one that Kedro gives to runs: the time of its start, to the millisecond."""
    return _RUN.fullmatch(name) is not None


@dataclass(frozen=True)
class RunFiles:
    """The versioned datasets of a project, seen run by run.

    Attributes:
        folders: Of each versioned dataset, the folder that holds its versions.
        optional: Datasets that a reader can do without.
    """

    folders: Mapping[str, Path]
    optional: frozenset[str] = frozenset()

    @classmethod
    def of_catalog(cls, entries: Mapping[str, Any], project: Path) -> "RunFiles":
        """Find the folders, without making any dataset.

        Args:
            entries: The catalog's configuration.
            project: The project's folder, from which relative places count.

        Returns:
            All versioned datasets on local disk; not optional views of others, which only spare work, so that what is
            read by them says nothing about where a result comes from.
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
        return cls(folders, frozenset(optional))

    @property
    def _labels(self) -> Path:
        return self.folders["manifest"].parent / "run_labels"

    @property
    def _in_progress(self) -> Path:
        return self.folders["manifest"].parent / "runs_in_progress"

    @property
    def _deleting(self) -> Path:
        return self.folders["manifest"].parent / "runs_deleting"

    def versions(self) -> list[str]:
        """All versions of anything, sorted by name, whole or not; not those that are being deleted."""
        found = {name for folder in self.folders.values() for name in _names(folder) if (folder / name).is_dir()}
        return sorted(found - set(self.being_deleted()))

    def runs(self) -> list[str]:
        """All runs that have left anything, oldest first; a version that somebody gave a name of their own is none."""
        begun = {name.removesuffix(".json") for name in _names(self._in_progress)} - set(self.being_deleted())
        return sorted(run for run in begun | set(self.versions()) if is_run_name(run))

    def has(self, name: str, run: str) -> bool:
        """Whether a run has a version of a dataset; one that is being deleted has none."""
        try:
            return self.path(name, run).exists() and not (self._deleting / run).exists()
        except OSError:  # a name that no file can have
            return False

    def path(self, name: str, run: str) -> Path:
        """Where a run's version of a dataset lies, or would."""
        folder = self.folders[name]
        return folder / run / folder.name

    def sizes(self, run: str) -> dict[str, int]:
        """Bytes on disk of each dataset that a run has written, leftovers of broken writes included."""
        places = {name: folder / run for name, folder in self.folders.items() if (folder / run).is_dir()}
        return {name: _size(place) for name, place in places.items()}

    def newest_whole(self, names: set[str]) -> str | None:
        """The newest run that has a version of each of several datasets; None if there is none."""
        return next((run for run in reversed(self.versions()) if all(self.has(name, run) for name in names)), None)

    def manifest(self, run: str) -> dict[str, Any] | None:
        """What a run wrote down of itself: its manifest, or what it knew at its start; None if there is neither."""
        for file in (self.path("manifest", run), self._record(run)):
            try:
                found = json.loads(file.read_text("utf-8"))
            except (OSError, ValueError):
                continue
            return found if isinstance(found, dict) else None
        return None

    def replace_manifest(self, run: str, manifest: Mapping[str, Any]) -> None:
        """Write a run's manifest in the place of the one that it has, which Kedro's datasets refuse.

        Args:
            run: The run.
            manifest: What it says now.
        """
        with replace_atomically(self.path("manifest", run)) as staged:
            staged.write_text(json.dumps(manifest, indent=2), "utf-8")

    def state(self, run: str) -> str:
        """Say how a run ended: `complete`, `failed`, `killed`, or that it is `running`."""
        if _is_held(self._record(run)):
            return "running"
        if not self.has("manifest", run):
            return "killed"
        return "complete" if (self.manifest(run) or {}).get("complete") else "failed"

    def reads(self, run: str) -> dict[str, str]:
        """Versions of other runs that a run has read, by dataset."""
        read = (self.manifest(run) or {}).get("versions_read", {})
        return {name: version for name, version in read.items() if version != run and name in self.folders}

    def follow(self, run: str, name: str) -> set[str]:
        """Find the version of a dataset that belongs with a run.

        Args:
            run: The run.
            name: The dataset.

        Returns:
            The run itself if it has one, else the version that it read, else what belongs with the runs that it read
            from: several if those do not agree, none if nothing is known of it.
        """
        if self.has(name, run):
            return {run}
        read = self.reads(run)
        if name in read:
            return {read[name]}
        return set().union(*(self.follow(earlier, name) for earlier in set(read.values()) if earlier < run))

    def newest_made_of(self, run: str, name: str) -> str | None:
        """The newest version of a dataset that was made of what a run has written; None if there is none."""
        made = (other for other in reversed(self.versions()) if self.has(name, other))
        return next((other for other in made if run == other or self._made_of(other, run)), None)

    def _made_of(self, other: str, run: str) -> bool:
        """Whether a run has read what another has written, and no classifier but that one's."""
        read = self.reads(other)
        return run in read.values() and read.get("classifier", run) == run

    def find(self, name: str, among: list[str] | None = None) -> str:
        """Find the run that a user names.

        Args:
            name: A label, a run's version, or the beginning of one.
            among: Runs that are meant; None for all on disk.

        Returns:
            The run.

        Raises:
            UserError: No run or several begin so.
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
        """Each label's run."""
        return {name: (self._labels / name).read_text("utf-8").strip() for name in _names(self._labels)}

    def labels_of(self, run: str) -> str:
        """A run's labels in one line, empty if it has none."""
        return ", ".join(sorted(label for label, labelled in self.labels().items() if labelled == run))

    def add_label(self, run: str, label: str) -> None:
        """Give a run a label; it may have several.

        Args:
            run: The run.
            label: A letter, then letters, digits, `.`, `_` and `-`, so that it is never the beginning of a version.

        Raises:
            UserError: It is not such a name, or stands for another run.
        """
        if not _LABEL.fullmatch(label):
            raise UserError(
                f"'{label}' can't be a label: take a letter, then up to 39 letters, digits, '.', '_' or '-'"
            )
        # Without regard to case, since some file systems have none.
        taken = {name.casefold(): (name, of) for name, of in self.labels().items()}.get(label.casefold())
        if taken is not None and taken != (label, run):
            raise UserError(f"the label '{taken[0]}' is that of the run {taken[1]}: remove it there, or take another")
        with replace_atomically(self._labels / label) as staged:
            staged.write_text(run + "\n", "utf-8")

    def remove_label(self, run: str, label: str) -> None:
        """Take a label from a run.

        Args:
            run: The run.
            label: The label.

        Raises:
            UserError: The run has no such label.
        """
        if self.labels().get(label) != run:
            raise UserError(f"the run {run} has no label '{label}' (it has: {self.labels_of(run) or 'none'})")
        (self._labels / label).unlink()

    def begin(self, run_info: Mapping[str, Any]) -> "RunRecord":
        """Note that a run is in progress, until its manifest tells how it ended.

        Args:
            run_info: What is known of it, its version as `run` among it.
        """
        return RunRecord(self._record(run_info["run"]), run_info)

    def _record(self, run: str) -> Path:
        return self._in_progress / f"{run}.json"

    def being_deleted(self) -> list[str]:
        """Runs whose deletion has begun; to every reader they are gone."""
        return sorted(_names(self._deleting))

    def delete(self, run: str) -> None:
        """Delete all that a run has written.

        A mark comes first, with which it is gone at once for whoever asks here; then each version is hidden from Kedro,
        and only then anything is removed.

        Args:
            run: A run that has ended. Deleting again finishes what was interrupted.
        """
        mark = self._deleting / run
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        places = [folder / run for folder in self.folders.values() if (folder / run).is_dir()]
        for place in places:
            # Kedro finds a version by the name inside its folder, so that one rename hides it.
            version = place / place.parent.name
            if version.exists():
                version.rename(place / f".{version.name}.deleted")
        for place in places:
            shutil.rmtree(place)
        self._record(run).unlink(missing_ok=True)
        mark.unlink()

    def leftovers(self) -> list[Path]:
        """Files and folders that broken writes have staged and never renamed into their places."""
        folders = set(self.folders.values())
        found = [path for folder in folders for depth in ("*", "*/*") for path in folder.glob(f"{depth}/.*.tmp")]
        return sorted(path for path in found if _STAGED.fullmatch(path.name))

    def can_be_resumed(self, run: str) -> bool:
        """Whether a run has left checkpoints of a training that was not finished."""
        return "checkpoints" in self.folders and (self.folders["checkpoints"] / run).is_dir()

    def remove_leftover(self, path: Path) -> None:
        """Remove what a broken write has left."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


class RunRecord:
    """A file that says what a run in progress is; the process that runs it holds a lock on it until it ends.

    The system drops the lock with the process, however that dies, so a record that nobody holds is of a run that was
    killed.

    Args:
        path: The file.
        content: What it says.
    """

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._path = path
        with replace_atomically(path) as staged:
            staged.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
            if fcntl is not None:
                held = os.open(staged, os.O_RDWR)
                with suppress(OSError):  # a file system that knows no locks
                    fcntl.flock(held, fcntl.LOCK_EX)
                self._release = weakref.finalize(self, os.close, held)

    def end(self) -> None:
        """Remove the record; the manifest has taken its place."""
        self._path.unlink(missing_ok=True)
        if fcntl is not None:
            self._release()


def _is_held(record: Path) -> bool:
    """Whether the run of a record is in progress; where there are no locks to ask, whether it began within a day."""
    try:
        with record.open("r+b") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:  # who may only read, or a file system that knows no locks
        pass
    try:
        return time.time() - record.stat().st_mtime < _DAY_SECONDS
    except FileNotFoundError:
        return False


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; what a run that goes on moves or removes meanwhile counts nothing."""
    size = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                size += (Path(place) / file).stat().st_size
    return size


def _names(folder: Path) -> list[str]:
    """What lies in a folder, but for hidden files; nothing if there is no such folder."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
