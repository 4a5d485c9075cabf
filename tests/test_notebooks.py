"""The notebooks run as they are, in a kernel as Jupyter starts it, and are kept without what they gave out."""

import shutil

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

from tests.conftest import ROOT, TINY, new_project

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.metadata
        assert cell.cell_type == "markdown" or (cell.outputs, cell.execution_count) == ([], None)


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory, tiny_encoder, corpus):
    """The project of all notebooks, made tiny by its `conf/local`, as a user would."""
    folder = new_project(tmp_path_factory.mktemp("notebooks") / "project", tiny_encoder, corpus).folder
    tiny = {**TINY, "training": {**TINY["training"], "epochs": 2}}
    sources = {"reviews": "reviews.csv", "encoder": str(tiny_encoder)}
    for name, values in (("globals.yml", sources), ("parameters.yml", tiny)):
        (folder / "conf" / "local" / name).write_text(yaml.safe_dump(values))
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


def run_notebook(name, project):
    """Run a notebook where it lies; returns all that its cells gave out, as text."""
    folder = project / "notebooks"
    notebook = nbformat.read(folder / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return "\n".join(str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_the_first_run_shows_results_and_figures(project_folder):
    shown = run_notebook("01_first_run.ipynb", project_folder)
    assert "Test accuracy" in shown
    assert shown.count("application/vnd.plotly.v1+json") == 3
    assert "report.html" in shown


@pytest.mark.slow
def test_own_data_are_checked_trained_on_and_used(project_folder):
    shown = run_notebook("02_own_data.ipynb", project_folder)
    assert "'text'" in shown  # the column that the file lacks
    assert "A lovely, funny, moving film." in shown
    assert not (project_folder / "data/01_raw/notebook_example.csv").exists()


@pytest.mark.slow
def test_runs_are_compared(project_folder):
    shown = run_notebook("03_compare_runs.ipynb", project_folder)
    assert "training.epochs 1 → 2" in shown
    assert "on the same 20 test rows" in shown
