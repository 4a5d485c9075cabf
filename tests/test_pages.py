"""Every command of README and docs is run as it stands, page by page, in a project that is made tiny by its `conf`."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import certifi
import pytest
import yaml

from tests.conftest import ROOT, TINY, Project, make_corpus, new_project
from tests.hub import hub
from tests.test_docs import PAGES, fenced

# What is not run here, as shell functions, and where it is run or why it can't be.
LEFT_OUT = """
pip() { :; }               # .ci/run installs the project so, with its extras; tests/test_package.py builds the wheel
pytest() { :; }            # .ci/run
mkdocs() { :; }            # .ci/run
jupyter() { :; }           # waits for a person; tests/test_notebooks.py runs the notebooks
docker() { :; }            # needs its daemon
review-sentiment() { :; }  # tests/test_package.py runs the installed wheel
python() { case ${1-} in docs/*) ;; *) command python "$@";; esac; }  # .ci/run
# A server is started, asked, and stopped at the end of the page; kedro-airflow is not installed.
kedro() {
    case "${1-} ${2-}" in
        "airflow "*) ;;
        "serve "*) command kedro "$@" --port PORT > serve.log 2>&1 & started http://127.0.0.1:PORT/ready;;
        "viz run") command kedro "$@" --no-browser --port PORT > viz.log 2>&1 & started http://127.0.0.1:PORT/api/main;;
        *) command kedro "$@";;
    esac
}
started() { curl --silent --fail --retry 60 --retry-delay 1 --retry-connrefused "$1" > /dev/null; }
"""

# What a reader fills in.
FILLED = {
    r"\bRUN\b": "{run}", "NAME": "first-try", r"\[A\] \[B\]": "", r"\bFILE\b": "new.csv", r"tickets\.csv": "new.csv",
    r"2026-11-25T11\.02\.13\.407Z": "{run}", "/etc/ssl/certs/company.pem": certifi.where(), ":8000/": ":PORT/",
}  # fmt: skip


# Of what a page's commands print; their results are looked at by the tests of each command.
SAID = {
    "README.md": ["Answered by run ", "Report: data/08_reporting/report.html/"],
    "docs/runs.md": ["first-try", "Identical: all 20 predictions are the same"],
    "docs/serving.md": ['"label"', "Answered by run "],
    "docs/offline.md": ["Asking the hub for 'stanfordnlp/imdb'"],
}
_LONGEST_SECONDS = 600


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def free_port() -> int:
    """A port below those that systems give away, as Kedro-Viz wants it."""
    for port in range(20_000 + os.getpid() % 10_000, 49_000):
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_encoder, corpus) -> dict[str, Path]:
    """What lies on the hub: reviews in two splits, and an encoder."""
    reviews = tmp_path_factory.mktemp("hub") / "imdb"
    (reviews / "plain_text").mkdir(parents=True)
    for split, rows in (("train", corpus), ("test", make_corpus(160, seed=1))):
        rows.assign(label=rows["label"].eq("positive").astype(int))[["text", "label"]].to_parquet(
            reviews / "plain_text" / f"{split}-00000-of-00001.parquet"
        )
    return {"stanfordnlp/imdb": reviews, "distilbert-base-uncased": tiny_encoder}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_encoder, corpus, folders) -> Project:
    """A project with two runs, with the files that pages speak of."""
    made = new_project(tmp_path_factory.mktemp("pages") / "project", tiny_encoder, corpus)
    _shrink(made.folder / "conf", tiny_encoder)
    corpus.rename(columns={"text": "review", "label": "sentiment"}).to_csv(made.folder / "my_reviews.csv", index=False)
    make_corpus(60, seed=1)[["text"]].to_csv(made.folder / "new.csv", index=False)
    (made.folder / "reviews.txt").write_text("a superb film\na boring film\n", "utf-8")
    shutil.copytree(folders["stanfordnlp/imdb"], made.folder / "imdb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        for seed in (1, 2):
            made.run(training={"seed": seed})
    return made


def _shrink(conf: Path, encoder: Path) -> None:
    """Write tiny values over those of every environment."""
    for file in conf.glob("*/*.yml"):
        values = yaml.safe_load(file.read_text("utf-8")) or {}
        if file.name == "globals.yml" and file.parent.name == "base":
            values |= {"reviews": "reviews.csv", "encoder": str(encoder)}
        elif not file.name.startswith("parameters"):
            continue
        for block, tiny in TINY.items():
            if block in values:
                values[block] |= {**tiny, "epochs": 1} if block == "training" else tiny
        if "report" in values:
            values["report"]["resamples"] = 100
        file.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


@pytest.fixture
def reader(prepared, folders, tmp_path) -> Iterator[tuple[Project, dict[str, str]]]:
    """Somebody's copy of the project, and environment, with a hub in reach."""
    folder = tmp_path / "project"
    shutil.copytree(prepared.folder, folder)
    with hub(folders) as address:
        yield (
            Project(folder, prepared.encoder),
            {
                **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HF_ENDPOINT": address,
                "HF_HOME": str(tmp_path / "hub-cache"),
            },
        )


@pytest.mark.slow
@pytest.mark.parametrize("page", [path for path in PAGES if fenced(path, "bash")], ids=page_name)
def test_every_command_of_a_page_works(reader, page):
    project, environment = reader
    if page.name == "ray.md":
        pytest.skip("tests/pipelines/test_ray.py starts such clusters, where Ray is installed")
    if page.name == "resume.md":
        run, _ = (_killed_training(project, environment) for _ in range(2))
    else:
        run = max(project.versions())
    script = "\n".join(fenced(page, "bash"))
    for word, value in FILLED.items():
        script = re.sub(word, value.format(run=run), script)
    script = f"set -eo pipefail\n{LEFT_OUT}\n{script}".replace("PORT", str(free_port()))
    shell = subprocess.Popen(["bash", "-c", script], cwd=project.folder, env=environment, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
    try:
        said, _ = shell.communicate(timeout=_LONGEST_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)  # the servers that the page started
    assert shell.returncode == 0, said[-6000:]
    assert "Traceback" not in said
    assert [words for words in SAID.get(page_name(page), []) if words not in said] == []
    for program in fenced(page, "python"):
        filled = re.sub(r"(data/\S+?)/<run>", lambda found: _newest(project.folder, found[1]), program)
        subprocess.run([sys.executable, "-c", filled], cwd=project.folder, env=environment, check=True)


def _newest(folder: Path, dataset: str) -> str:
    return max((folder / dataset).iterdir()).relative_to(folder).as_posix()


def _killed_training(project: Project, environment: dict[str, str]) -> str:
    """Kill a training after its first checkpoint; returns its run."""
    file = project.folder / "conf/base/parameters_modeling.yml"
    values = yaml.safe_load(file.read_text("utf-8"))
    values["training"] |= {"epochs": 30, "checkpoint_minutes": 0}
    file.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
    before = project.versions()
    process = subprocess.Popen(["kedro", "run", "--force"], cwd=project.folder, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    while True:
        (run, *_) = *(project.versions() - before), None
        if run and list(project.folder.glob(f"data/06_models/checkpoints/{run}/step-*")):
            break
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    return run
