"""Which versions a run reads: never those of two runs that do not belong together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from review_sentiment.errors import UserError
from review_sentiment.runs.files import RunFiles
from review_sentiment.runs.locks import PathLock, is_held
from review_sentiment.runs.versions import choose_versions

DATA = {"splits", "tokenized", "data_profile"}
MODEL = {"classifier", "metrics", "predictions"}
MAKERS = {
    "data_engineering": DATA,
    "modeling": MODEL,
    "inference": {"scored_reviews"},
    "export": {"exported"},
    "__default__": DATA | MODEL,
}
RUNS = [f"2026-01-0{day}T00.00.00.000Z" for day in range(1, 7)]


@pytest.fixture
def files(tmp_path):
    names = {*set.union(*MAKERS.values()), "report", "manifest"}
    entries = {name: {"filepath": f"data/{name}", "versioned": True} for name in names}
    entries["exported"] |= {"optional": True}
    entries["tokenized_before"] = {**entries["tokenized"], "optional": True}
    return RunFiles.of_catalog(entries, tmp_path)


def leave(files: RunFiles, run: str, names: set[str], **read: str) -> str:
    """Write versions as a run does, with its manifest unless `read` is `manifest=""`."""
    for name in names:
        files.path(name, run).parent.mkdir(parents=True)
        files.path(name, run).write_text("x")
    if read != {"manifest": ""}:
        files.path("manifest", run).parent.mkdir(parents=True, exist_ok=True)
        manifest = {"run": run, "complete": True, "versions_read": read}
        files.path("manifest", run).write_text(json.dumps(manifest))
    return run


def choose(files: RunFiles, *inputs: str, wanted: str | None = None, **named: str) -> dict[str, str]:
    return choose_versions(files, set(inputs), MAKERS, named, wanted)


def test_the_newest_run_with_all_outputs_decides_and_a_killed_one_does_not(files):
    whole = leave(files, RUNS[0], DATA)
    leave(files, RUNS[1], {"splits", "tokenized"}, manifest="")
    assert choose(files, "splits", "tokenized") == {"splits": whole, "tokenized": whole}

    trained = leave(files, RUNS[2], MODEL, splits=whole, tokenized=whole)
    leave(files, RUNS[3], {"classifier"}, manifest="")
    newer = leave(files, RUNS[4], DATA)
    inputs = ("metrics", "splits", "data_profile")
    assert choose(files, *inputs) == {"metrics": trained, "splits": whole, "data_profile": whole}
    assert choose(files, "splits") == {"splits": newer}


def test_a_named_run_gives_what_it_wrote_and_else_what_it_read(files):
    data, other = leave(files, RUNS[0], DATA), leave(files, RUNS[1], DATA)
    first = leave(files, RUNS[2], MODEL, splits=data, tokenized=data)
    leave(files, RUNS[3], MODEL, splits=other, tokenized=other)
    report = leave(files, RUNS[4], {"report"}, metrics=first, splits=data)
    for wanted in (first, report, "2026-01-03", "2026-01-05"):
        assert choose(files, "metrics", "data_profile", wanted=wanted) == {"metrics": first, "data_profile": data}
    assert choose(files, "splits", "tokenized", wanted=first) == {"splits": data, "tokenized": data}

    files.add_label(first, "first-try")
    assert choose(files, "metrics", "data_profile", wanted="first-try") == {"metrics": first, "data_profile": data}
    assert choose(files, "metrics")["metrics"] == RUNS[3]  # a label never changes what newest means


def test_what_a_run_lacks_is_named(files):
    data = leave(files, RUNS[0], DATA)
    trained = leave(files, RUNS[1], MODEL, splits=data, tokenized=data)
    with pytest.raises(UserError, match=f"the run {data} has no metrics, and read none: name another run"):
        choose(files, "metrics", wanted=data)
    files.delete(data)
    with pytest.raises(UserError, match=rf"splits of the run {data} is gone: .*--load-versions splits:RUN"):
        choose(files, "metrics", "splits")
    with pytest.raises(UserError, match=f"the run {trained} has no data_profile"):
        choose(files, "metrics", "data_profile")
    with pytest.raises(UserError, match="no run on disk has the label 'x' or begins with 'x': the newest are 2026"):
        choose(files, "metrics", wanted="x")
    with pytest.raises(UserError, match=r"--load-versions metrics:2020: there is no such version"):
        choose(files, "metrics", metrics="2020")


def test_a_run_that_read_two_runs_leaves_the_choice_to_the_user(files):
    data, other = leave(files, RUNS[0], DATA), leave(files, RUNS[1], DATA)
    leave(files, RUNS[2], MODEL, splits=data, tokenized=other)
    with pytest.raises(UserError, match=f"data_profile could be that of {data} or {other}"):
        choose(files, "metrics", "data_profile")
    assert choose(files, "metrics", "data_profile", data_profile=other) == {"metrics": RUNS[2]}


def test_versions_that_the_user_names_win_and_a_mixture_is_logged(files, caplog):
    first, second = leave(files, RUNS[0], DATA | MODEL), leave(files, RUNS[1], DATA | MODEL)
    assert choose(files, "metrics", "splits", metrics=first) == {"splits": first}
    assert not caplog.records
    assert choose(files, "metrics", "splits", splits=first) == {"metrics": second}
    assert f"mixes runs: splits:{first} with the rest of the run {second}" in caplog.text
    assert choose(files, "metrics", "splits", wanted=second, metrics=first, splits=first) == {}


def test_unrecorded_origins_are_said(files, caplog):
    data = leave(files, RUNS[0], DATA | MODEL)
    by_hand = leave(files, RUNS[1], {"scored_reviews"}, manifest="")
    chosen = choose(files, "scored_reviews", "metrics")
    assert chosen == {"scored_reviews": by_hand, "metrics": data}
    assert f"What the run {by_hand} read is not recorded, so metrics may be of another run" in caplog.text


def test_an_optional_input_is_the_one_made_of_the_run(files):
    first, second = leave(files, RUNS[0], MODEL), leave(files, RUNS[1], MODEL)
    assert choose(files, "metrics", "exported", "tokenized_before") == {"metrics": second}
    leave(files, RUNS[2], {"exported"}, classifier=first)
    newer = leave(files, RUNS[3], {"exported"}, classifier=first)
    assert choose(files, "metrics", "exported") == {"metrics": second}
    assert choose(files, "metrics", "exported", wanted=first) == {"metrics": first, "exported": newer}
    assert choose(files, "metrics", "exported", wanted=first, exported=RUNS[2]) == {"metrics": first}
    # Another classifier, of the first run's data, has an export of its own.
    again = leave(files, RUNS[4], MODEL, splits=first)
    leave(files, RUNS[5], {"exported"}, splits=first, classifier=again)
    assert choose(files, "metrics", "exported", wanted=first) == {"metrics": first, "exported": newer}


def test_without_any_run_or_input_nothing_is_chosen(files, caplog):
    with pytest.raises(UserError, match="there is no run with metrics yet: `kedro run` makes one"):
        choose(files, "metrics", "splits")
    with pytest.raises(UserError, match="scored_reviews yet: `kedro run --pipelines inference` makes one"):
        choose(files, "metrics", "scored_reviews")
    assert choose(files, "exported", "tokenized_before") == {}
    assert not caplog.records
    assert choose(files, wanted="2026") == {}
    assert "run=2026 changes nothing: these pipelines read no earlier run" in caplog.text


def test_labels_are_unique_names_that_no_version_begins_with(files):
    first, second = leave(files, RUNS[0], MODEL), leave(files, RUNS[1], MODEL)
    for label in ("best", "first-try"):
        files.add_label(first, label)
    files.add_label(first, "best")
    assert files.labels_of(first) == "best, first-try"
    assert files.find("best") == first
    with pytest.raises(UserError, match=f"the label 'best' belongs to the run {first}"):
        files.add_label(second, "Best")
    with pytest.raises(UserError, match=r"has no label 'best' \(it has: none\)"):
        files.remove_label(second, "best")
    files.remove_label(first, "best")
    assert files.labels() == {"first-try": first}
    for label in ("2026", "a b", "../x", "", "x" * 41, "é"):
        with pytest.raises(UserError, match="can't be a label"):
            files.add_label(first, label)


def test_a_run_is_running_as_long_as_its_process_lives(files):
    names = {name: str(folder) for name, folder in files.folders.items()}
    code = (
        "import sys, time; from pathlib import Path; from review_sentiment.runs.files import RunFiles\n"
        f"files = RunFiles({{name: Path(path) for name, path in {names!r}.items()}})\n"
        f"record = files.begin({{'run': {RUNS[0]!r}, 'env': 'imdb'}}); print('begun', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
    assert child.stdout.readline() == b"begun\n"
    try:
        assert files.runs() == [RUNS[0]]
        assert files.state(RUNS[0]) == "running"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert files.state(RUNS[0]) == "killed"
    assert files.manifest(RUNS[0])["env"] == "imdb"


def test_many_that_ask_at_once_do_not_take_each_other_for_a_run(files):
    killed = leave(files, RUNS[0], DATA, manifest="")
    files.begin({"run": killed})  # nobody keeps the record, so its lock is gone
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: files.state(killed), range(2000))) == {"killed"}


def test_a_lock_can_be_taken_while_others_ask_whether_it_is_held(tmp_path):
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            is_held(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        try:
            for _ in range(200):
                lock, other = PathLock(tmp_path), PathLock(tmp_path)
                assert lock.take(wait=False)
                assert is_held(tmp_path)
                assert not other.take(wait=False)
                lock.release()
        finally:
            stop.set()


def test_deleting_is_finished_wherever_it_was_interrupted(files, monkeypatch):
    kept = leave(files, RUNS[1], DATA | MODEL)
    steps = 0

    def interrupted_at(stop: int, step):
        def run(*arguments, **options):
            nonlocal steps
            steps += 1
            if steps == stop:
                raise KeyboardInterrupt
            return step(*arguments, **options)

        return run

    for stop in range(1, 100):
        run = leave(files, RUNS[0], DATA | MODEL)
        files.begin({"run": run})
        steps = 0
        with monkeypatch.context() as patch:
            for owner, name in ((Path, "rename"), (Path, "unlink"), (shutil, "rmtree")):
                patch.setattr(owner, name, interrupted_at(stop, getattr(owner, name)))
            try:
                files.delete(run)
                break
            except KeyboardInterrupt:
                pass
        assert files.runs() == files.versions() == [kept]
        assert not any(files.has(name, run) for name in files.folders)
        assert choose(files, "metrics") == {"metrics": kept}
        assert files.being_deleted() == [run]
        files.delete(run)
        assert not list(files.folders["manifest"].parent.rglob(f"*{run}*"))
    assert (
        stop == 7 + 7 + 2 + 1
    )  # each version is renamed and removed, then the record and the mark; then nothing stops
    assert all(files.has(name, kept) for name in DATA | MODEL)
