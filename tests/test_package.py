"""What is installed: the locked releases, and the package without its repository around it."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


def applies(requirement: Requirement) -> bool:
    """Whether a requirement is meant for this Python and platform."""
    return requirement.marker is None or requirement.marker.evaluate()


def asked_for(pyproject: Path) -> list[Requirement]:
    """What a project and its extra `test` require, and what builds it."""
    content = tomllib.loads(pyproject.read_text("utf-8"))
    extras = content["project"]["optional-dependencies"]
    texts = [*content["build-system"]["requires"], *content["project"]["dependencies"], *extras["test"]]
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
