"""What must stay light and offline, seen from a fresh process."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# Each starts a process of its own.
pytestmark = pytest.mark.slow

LIST_MODULES = (
    "import sys, json; from kedro.framework.startup import bootstrap_project; from kedro.framework.session import"
    " KedroSession; bootstrap_project('.'); {body}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
)
NO_NETWORK = (
    "import socket; "
    "block = lambda *a, **k: (_ for _ in ()).throw(AssertionError(f'tried the network: {a}'));"
    "socket.socket.connect = block; socket.getaddrinfo = block; "
)


def loaded_modules(project, body: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK + LIST_MODULES.format(body=body)],
        cwd=project.folder, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_listing_pipelines_loads_no_heavy_library(project):
    modules = loaded_modules(project, "from review_sentiment.pipeline_registry import register_pipelines as r; r()")

    assert not modules & {"torch", "transformers", "datasets", "sklearn", "plotly", "tokenizers"}


def test_data_engineering_loads_no_torch_and_tries_no_network(project):
    sizes = "{'train_rows': 80, 'validation_rows': 20, 'test_rows': 20}"
    modules = loaded_modules(
        project,
        "KedroSession.create('.', runtime_params={'reviews': 'reviews.csv', 'subset': " + sizes + "})"
        ".run(pipeline_names=['data_engineering'])",
    )

    assert "datasets" in modules
    assert not modules & {"torch", "transformers", "sklearn", "plotly"}


def test_reporting_loads_no_torch_and_tries_no_network(finished):
    modules = loaded_modules(finished, "KedroSession.create('.').run(pipeline_names=['reporting'])")

    assert {"plotly", "scipy"} <= modules
    assert not modules & {"torch", "transformers"}


def test_monitoring_loads_no_torch_and_tries_no_network(finished):
    finished.run("inference", new_reviews="reviews.csv")
    session = f"KedroSession.create('.', runtime_params={{'encoder': {str(finished.encoder)!r}}})"
    modules = loaded_modules(finished, f"{session}.run(pipeline_names=['monitoring'])")

    assert {"plotly", "tokenizers"} <= modules
    assert not modules & {"torch", "transformers", "datasets", "sklearn"}


def test_kedro_finds_the_commands_on_runs_in_a_subfolder_without_torch(project):
    folder = project.folder / "notebooks"
    folder.mkdir()
    code = (
        "import sys; from kedro.framework.cli.cli import main; sys.argv = ['kedro', 'runs']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'datasets', 'plotly', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "No run has been recorded yet" in done.stdout


def test_the_command_line_does_not_load_what_its_commands_need():
    code = (
        "import sys, review_sentiment.cli; "
        "assert not {'review_sentiment.commands.runs', 'scipy', 'pyarrow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
