"""Writes that fail, one after the other over a whole run, and runs that get in each other's way."""

import builtins
import errno
import hashlib
import io
import os
import shutil
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pandas as pd
import pytest
from transformers import modeling_utils

from review_sentiment.runs.atomic import replace_atomically
from review_sentiment.runs.session import RunSession
from tests.conftest import Project
from tests.test_kill import start  # noqa: F401 - a fixture


def contents(folder: Path, version: str) -> dict[str, str]:
    """Hashes of all files of a run, and of the ledger."""
    files = [*folder.glob(f"data/*/*/{version}/**/*"), *folder.glob("data/*/run_ledger/*")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def target(descriptor: int) -> str:
    """The path that an open file was opened by."""
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


class Faults:
    """Before each call that writes below a folder, forks a process in which that call fails, and waits for its end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.failed: list[str] = []
        self.is_child = False
        self._folder, self._backup = folder, folder.with_name("backup")
        self._watching = True
        for owner, name in ((os, "replace"), (os, "mkdir"), (builtins, "open"), (io, "open")):
            monkeypatch.setattr(owner, name, self._breaking(name, getattr(owner, name), fail_before=True))
        writers = ((pd.DataFrame, "to_parquet"), (datasets.DatasetDict, "save_to_disk"))
        for owner, name in (*writers, (modeling_utils, "safe_save_file"), (os, "fsync")):
            monkeypatch.setattr(owner, name, self._breaking(name, getattr(owner, name), fail_before=False))

    def _breaking(self, name: str, real, fail_before: bool):
        def call(*args, **kwargs):
            if not fail_before:  # the file is there, and may be incomplete
                result = real(*args, **kwargs)
            path = self._watching and self._written(name, args, kwargs)
            if path:
                self._fork(f"{name} {path}")
            return real(*args, **kwargs) if fail_before else result

        return call

    def _written(self, name: str, args: tuple, kwargs: dict) -> str | None:
        """What a call writes below the folder, if anything."""
        if name == "open" and not set(kwargs.get("mode", args[1] if len(args) > 1 else "r")) & set("wax+"):
            return None
        paths = [target(args[0])] if name == "fsync" else [str(arg) for arg in args if isinstance(arg, str | Path)]
        if name == "mkdir" and Path(paths[0]).is_dir():  # the caller asks whether it is there, and goes on
            return None
        return next((path for path in paths if path.startswith(str(self._folder))), None)

    def _fork(self, call: str) -> None:
        self._watching = False
        self.calls.append(call)
        shutil.copytree(self._folder, self._backup, copy_function=os.link)
        child = os.fork()
        if child == 0:
            self.is_child = True
            raise OSError(errno.ENOSPC, "No space left on device")
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            self.failed.append(call)
        # The child cleaned up what it takes for its own: the parent needs it back, as it was.
        for path in sorted(self._folder.rglob("*"), reverse=True):
            if not (self._backup / path.relative_to(self._folder)).exists():
                path.rmdir() if path.is_dir() else path.unlink()
        shutil.copytree(self._backup, self._folder, copy_function=_link_missing, dirs_exist_ok=True)
        shutil.rmtree(self._backup)
        self._watching = True


def _link_missing(source: str, place: str) -> None:
    if not Path(place).exists():
        os.link(source, place)


def complaint(project: Project, call: str, before: str, kept: dict[str, str]) -> str | None:
    """What is wrong after a run that failed; None if nothing is."""
    if left := list(project.folder.glob("data/**/.*.tmp")):
        return f"left behind: {left}"
    if {path: found for path, found in contents(project.folder, before).items() if path in kept} != kept:
        return "the run before has changed"
    name = Path(call.partition(" ")[2]).relative_to(project.folder / "data").parts[1].partition(".")[0]
    if name != "runs_in_progress":  # no dataset
        project.load(name)  # the newest is complete
    return None


@pytest.mark.slow
def test_a_write_that_fails_anywhere_leaves_nothing_and_spoils_nothing(project, monkeypatch):
    training = {"epochs": 2, "checkpoint_minutes": None}
    before = project.run(training=training)
    kept = contents(project.folder, before)
    faults = Faults(project.folder / "data", monkeypatch)
    wrong: str | None = "the fault was swallowed"
    try:
        run = project.run(training=training)
    except Exception as error:
        if not faults.is_child:
            raise
        try:
            words = "No space left on device"
            wrong = complaint(project, faults.calls[-1], before, kept) if words in str(error) else f"another: {error}"
        except BaseException:
            wrong = traceback.format_exc()
    if faults.is_child:
        if wrong:
            with (project.folder / "complaints.txt").open("a") as complaints:
                complaints.write(f"{faults.calls[-1]}: {wrong}\n")
        os._exit(1 if wrong else 0)
    monkeypatch.undo()
    assert faults.failed == [], (project.folder / "complaints.txt").read_text()
    assert len(faults.calls) > 100
    assert project.load("metrics", run)["steps"] == 20
    assert len(project.load("run_ledger")) == 2


@pytest.mark.slow
def test_eight_runs_at_once_leave_eight_versions_and_eight_rows(project, start):  # noqa: F811
    processes = [start(project, training={"epochs": 2}) for _ in range(8)]
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0] * 8
    ledger = project.load("run_ledger")
    assert len(set(ledger["run"])) == len(ledger) == 8
    assert ledger["accuracy"].nunique() == 1
    for run in ledger["run"]:
        assert project.load("manifest", run)["complete"]
        assert project.load("classifier", run).weights_sha256 == project.load("reload_check", run)["weights_sha256"]


def test_no_two_runs_share_a_version(project):
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: RunSession.create(project.folder).session_id, range(32)))
    assert len(set(versions)) == 32


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_what_a_full_disk_stops_leaves_nothing(tmp_path, monkeypatch, call):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"), replace_atomically(tmp_path / "a" / "b") as staged:
        staged.write_text("half")
    assert list(tmp_path.iterdir()) == []
