"""Which errors end a command in one message, and which keep their traceback."""

import errno
import os
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from click.testing import CliRunner
from kedro.io import DataCatalog, DatasetError

from review_sentiment.chunks import ChunkedTable
from review_sentiment.cli import _Command
from review_sentiment.datasets.chunks import ChunkedParquetDataset
from review_sentiment.datasets.files import JSONDataset
from review_sentiment.errors import UserError


def saves(catalog: DataCatalog, error: Exception) -> Callable[[], None]:
    """A command that saves a table whose rows raise an error: much work is done while rows are saved."""

    def read() -> Iterator[pa.RecordBatch]:
        raise error
        yield

    return lambda: catalog.save("rows", ChunkedTable(pa.schema([("text", pa.string())]), 1, read))


def run(callback: Callable[[], None]):
    return CliRunner().invoke(_Command("work", callback=callback), [])


@pytest.fixture
def catalog(tmp_path) -> DataCatalog:
    rows = ChunkedParquetDataset(filepath=str(tmp_path / "rows.parquet"))
    return DataCatalog({"rows": rows, "figures": JSONDataset(filepath=str(tmp_path / "figures.json"))})


@pytest.mark.parametrize("error", [KeyError("row_id"), ValueError("row_id repeats: 1"), OSError(errno.EBADF, "bad")])
def test_our_own_fault_keeps_its_traceback_also_inside_a_save(catalog, error):
    done = run(saves(catalog, error))
    assert isinstance(done.exception, DatasetError)
    assert "Error: " not in done.output


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("row 3 has no text"), "Error: row 3 has no text\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/d/x"), "Error: /d/x: No space left on device; make room"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device; make room there"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "make room there"),
        (PermissionError(errno.EACCES, "no", "/d/x"), "Error: /d/x: Permission denied; let this user read and write"),
    ],
)
def test_what_the_user_can_fix_is_one_message(catalog, error, words):
    done = run(saves(catalog, error))
    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output


def test_what_kedro_says_to_the_user_is_one_message(catalog, tmp_path):
    assert "Failed while loading data from dataset" in run(lambda: catalog.load("figures")).output

    def misspelt() -> None:
        entry = {"type": "review_sentiment.datasets.files.JSONDataset", "filepath": "x.json", "version_": True}
        DataCatalog.from_config({"figures": entry})["figures"]

    assert "must only contain arguments valid for the constructor" in run(misspelt).output
    version = JSONDataset(filepath=str(tmp_path / "y.json"))
    assert "'None' to a 'Dataset' is not allowed" in run(lambda: version.save(None)).output
