"""What SECURITY.md promises: no pickle, no code that comes with data or weights, nothing written elsewhere."""

import ast
import json
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import _registry
from huggingface_hub import constants

from review_sentiment.commands.rerun import rerun_run
from review_sentiment.datasets.classifier import ClassifierDataset
from review_sentiment.datasets.encoder import PretrainedDataset, TokenizerDataset
from review_sentiment.datasets.reviews import ReviewsDataset
from review_sentiment.errors import UserError
from tests.conftest import ROOT, UP_TO_MODELING
from tests.hub import WebFileSystem, website

SOURCES = sorted((ROOT / "src").rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    "torch.save", "torch.load", "np.load", "numpy.load", "pd.read_pickle", "yaml.load", "os.system", "eval", "exec",
}  # fmt: skip

# Files opened to be written, and classes that a pickle asked for, while somebody watches; a hook can't be taken out.
opened: list[str] = []
unpickled: list[str] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event == "open" and isinstance(arguments[0], str) and set(arguments[1] or "r") & set("wax+"):
        opened.append(arguments[0])
    elif event == "pickle.find_class":
        unpickled.append(".".join(map(str, arguments)))


sys.addaudithook(watch)


def test_no_source_reads_or_writes_a_pickle_or_runs_what_it_reads():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not {name.partition(".")[0] for name in names} & UNSAFE_MODULES, path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in UNSAFE_CALLS, f"{path}:{node.lineno}"
                assert not ast.unparse(node.func).endswith(".to_pickle"), f"{path}:{node.lineno}"
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
                assert node.arg != "trust_remote_code" or ast.unparse(node.value) == "False", path


def test_whatever_is_loaded_from_a_folder_is_told_not_to_run_its_code():
    calls = [
        ast.unparse(node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto")
        and ast.unparse(node.func).endswith(".from_pretrained")
    ]  # fmt: skip
    assert calls
    assert all("local_files_only=True" in call and "trust_remote_code=False" in call for call in calls)


def test_a_run_reads_and_writes_no_pickle_and_writes_only_below_data(project, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "watching", True)
    project.run(training={"epochs": 2, "checkpoint_minutes": 0})
    project.run("inference", new_reviews="reviews.csv")
    monkeypatch.setattr(sys.modules[__name__], "watching", False)

    assert unpickled == []
    ours = [Path(path).relative_to(project.folder) for path in opened if path.startswith(str(project.folder))]
    assert any("checkpoints" in path.parts for path in ours)
    assert {path.parts[0] for path in ours} == {"data", ".viz"}  # Kedro-Viz counts there what it saw
    written = [path for path in (project.folder / "data").rglob("*") if path.is_file()]
    suffixes = {path.suffix for path in [*ours, *written] if not path.name.endswith(".tmp") and path.suffix != ".lock"}
    assert suffixes <= {".json", ".parquet", ".arrow", ".safetensors", ".html", ".md", ".txt", ""}, suffixes
    assert not [path for path in written if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05")]


@pytest.fixture
def own_code(tiny_encoder: Path, tmp_path: Path) -> Path:
    """An encoder that says it needs code which lies with it; the code leaves a trace where it runs."""
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Config: pass\n")
    names = {"AutoConfig": "evil.Config", "AutoModel": "evil.Config", "AutoTokenizer": ["evil.Config", "evil.Config"]}
    names |= {"AutoModelForSequenceClassification": "evil.Config"}
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, "auto_map": names}))
    return folder


def test_code_that_comes_with_an_encoder_is_not_run(project, own_code, tmp_path):
    project.encoder = own_code
    run = project.run(*UP_TO_MODELING, training={"epochs": 1})
    assert project.load("classifier", run).label_names == ["negative", "positive"]

    values = json.loads((own_code / "config.json").read_text())
    (own_code / "config.json").write_text(json.dumps({**values, "model_type": "evil"}))
    with pytest.raises(Exception, match="can't be read from"):
        PretrainedDataset(encoder=str(own_code)).load()
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_a_pickle_are_refused(tiny_encoder, tmp_path, whole_run):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Exception, match="has no safetensors weights"):
        PretrainedDataset(encoder=str(folder)).load()

    place = tmp_path / "classifier"
    shutil.copytree(whole_run.folder / f"data/06_models/classifier/{whole_run.first}/classifier", place)
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"safetensors"):
        ClassifierDataset(filepath=str(place)).load()


def test_a_folder_of_archives_is_no_table(tmp_path):
    import tarfile

    folder = tmp_path / "reviews"
    folder.mkdir()
    (tmp_path / "a.pth").write_bytes(b"\x80\x04N.")
    with tarfile.open(folder / "train.tar", "w") as archive:
        archive.add(tmp_path / "a.pth", "a.pth")
    with pytest.raises(Exception, match="holds webdataset data, and only arrow, csv, json, parquet, text are read"):
        ReviewsDataset(source=str(folder), train_split="train", test_split=None).load()


def texts_below(folder: Path) -> str:
    return "".join(path.read_text("utf-8", "replace") for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setitem(_registry, "http", WebFileSystem)


def test_a_password_in_an_address_is_used_and_kept_nowhere(web, project, capfd):
    with website(project.folder, "user:se@kr3t") as (host, asked):
        address = f"http://user:se@kr3t@{host}/reviews.csv"
        run = project.run(reviews=address)
        project.run("inference", new_reviews=address)
        shown = f"http://***@{host}/reviews.csv"
        assert project.load("manifest", run)["parameters"]["reviews"] == shown
        assert project.load("manifest", run)["command_parameters"]["reviews"] == shown
        assert shown in texts_below(project.folder / "data/08_reporting")
        assert "/reviews.csv" in asked

        for source in (
            address.replace("reviews", "nowhere"),  # 404
            address.replace("user", "nobody"),  # 401
            address.replace("http", "nohow"),
            address.replace("se@", "se/"),
            f"{address}?sig=kr3t",
            f"zip://a.csv::{address}",
        ):
            for options in (
                ["--params", f"reviews={source}"],
                ["--pipelines=inference", "--params", f"new_reviews={source}"],
            ):
                done = project.command(*options)
                assert done.exit_code == 1
                assert "***" in done.output
                assert "kr3t" not in done.output
        sizes = "subset.train_rows=80,subset.validation_rows=20,subset.test_rows=20"
        done = project.command("--params", f"reviews=reviews.csv,encoder={address},{sizes}")
        assert f"the encoder '{shown}' is an address" in done.output
        with pytest.raises(UserError, match="the password is not kept"):
            rerun_run(run)
    assert "kr3t" not in texts_below(project.folder)
    assert "kr3t" not in "".join(capfd.readouterr())


def test_a_server_that_fails_half_way_does_not_show_the_password(web, tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\nfine,positive\n")
    with website(tmp_path, "user:secret") as (host, _):
        reviews = ReviewsDataset(source=f"http://user:secret@{host}/reviews.csv", train_split="train", test_split=None)
        table = reviews.load()["train"]
        (tmp_path / "reviews.csv").unlink()
        with pytest.raises(UserError, match=r"http://\*\*\*@.*/reviews.csv can't be read as csv") as error:
            list(table.chunks())
    assert "secret" not in "".join(traceback.format_exception(error.value))
    assert "secret" not in str(reviews)


def test_a_revision_of_a_hub_encoder_can_be_pinned(tiny_encoder, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--owner--name/snapshots" / commit
    shutil.copytree(tiny_encoder, place)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    pinned = TokenizerDataset(encoder=f"owner/name@{commit}").load()
    assert pinned.name == f"owner/name@{commit}"
    assert PretrainedDataset(encoder=f"owner/name@{commit}").load().name == pinned.name
    for other in ("owner/name", f"owner/name@{commit[::-1]}"):
        with pytest.raises(Exception, match="could not be had from the hub") as error:
            TokenizerDataset(encoder=other).load()
        assert isinstance(error.value.__cause__, UserError)


def test_the_servers_page_writes_text_only_as_text():
    page = (ROOT / "src/review_sentiment/serving/page.html").read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "onclick=", "onerror="):
        assert way not in page
