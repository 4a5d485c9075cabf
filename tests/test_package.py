"""What is installed: the locked releases, and the package without its repository around it."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from review_sentiment.runs.manifest import flatten
from tests.conftest import ROOT, TINY


def applies(requirement: Requirement) -> bool:
    """Whether a requirement is meant for this Python and platform."""
    return requirement.marker is None or requirement.marker.evaluate()


def asked_for(pyproject: Path) -> list[Requirement]:
    """What a project requires with the extras that CI installs, and what builds it."""
    content = tomllib.loads(pyproject.read_text("utf-8"))
    extras = content["project"]["optional-dependencies"]
    texts = [
        *content["build-system"]["requires"],
        *content["project"]["dependencies"],
        *extras["test"],
        *extras["docs"],
        *extras["ray"],
    ]
    found = []
    for requirement in map(Requirement, texts):
        if requirement.name == content["project"]["name"]:  # the extra `test` takes in others
            found += [Requirement(text) for extra in requirement.extras for text in extras[extra]]
        else:
            found.append(requirement)
    return [requirement for requirement in found if applies(requirement)]


def test_the_lock_fits_what_the_project_asks_for():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    pins = [Requirement(line.removesuffix("\\")) for line in lines if line[:1].isalnum()]
    locked = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins if applies(pin)}
    misfits = [
        wanted.name
        for wanted in asked_for(ROOT / "pyproject.toml")
        if not wanted.specifier.contains(locked.get(canonicalize_name(wanted.name), "0"))
    ]
    assert misfits == ["torch"], "run .ci/lock: the lock leaves out PyTorch, and nothing else"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked as an installation unpacks it; built of a copy, which a build leaves its files in."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (copy / "conf/local").mkdir(exist_ok=True)
    (copy / "conf/local/parameters.yml").write_text("training: {epochs: 99}")
    (copy / "conf/local/credentials.yml").write_text("key: secret")
    (copy / "data").mkdir()
    shutil.copytree(ROOT / "data/01_raw", copy / "data/01_raw")
    (copy / "data/01_raw/mine.csv").write_text("text,label")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", copy, copy]
    subprocess.run(build, check=True, timeout=120)
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(next(copy.glob("*.whl"))).extractall(folder)
    return folder


def test_the_wheel_carries_the_configuration_and_the_sample_and_nothing_of_the_users(wheel):
    carried = wheel / "review_sentiment" / "project"
    found = {path.relative_to(carried).as_posix() for path in carried.rglob("*") if path.is_file()}
    tracked = subprocess.run(["git", "ls-files", "conf", "data/01_raw"], cwd=ROOT, capture_output=True, text=True)
    assert found == set(tracked.stdout.split())


def run_installed(wheel: Path, folder: Path, *arguments: str) -> str:
    """Run a command of the unpacked wheel in a folder; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "review_sentiment", *arguments], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(wheel), "COLUMNS": "1000"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_package_works_in_an_empty_folder(wheel, tmp_path):
    said = run_installed(wheel, tmp_path, "--pipelines", "data_engineering")
    assert "Completed 5 out of 5 tasks" in said
    assert "WARNING" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"data"}
    assert {"predict", "run", "runs", "serve"} <= set(run_installed(wheel, tmp_path, "--help").split())


@pytest.mark.slow
def test_the_installed_package_trains_on_the_sample_and_predicts(wheel, tmp_path, tiny_encoder):
    tiny = {**TINY, "encoder": str(tiny_encoder)}
    values = ",".join(f"{name}={'null' if value is None else value}" for name, value in flatten(tiny).items())
    said = run_installed(wheel, tmp_path, "--params", values)
    assert "20 test reviews" in said
    assert "Report: data/08_reporting/report.html/" in said

    answer = json.loads(run_installed(wheel, tmp_path, "predict", "[/i] a film", "--json"))
    assert answer["label"] in {"negative", "positive"}
