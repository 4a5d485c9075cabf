"""A tiny real encoder, a tiny real corpus, and projects in temporary folders."""

import copy
import gc
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import rich
import yaml
from click.testing import CliRunner, Result
from kedro.framework.project import configure_project
from kedro.io import CatalogProtocol

from review_sentiment.chunks import ChunkedTable, RawTable
from review_sentiment.params import flatten
from review_sentiment.runs.session import RunSession

if TYPE_CHECKING:
    from review_sentiment.pipelines.modeling.run import Job

# Threads cost a model of this size more than they bring; set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A hub that can't be reached fails at once instead of after its retries; read when datasets is loaded.
os.environ["HF_HUB_OFFLINE"] = "1"

# Kedro looks for this library anew for every parameter of every run, in all folders: a fifth of a second a run.
sys.modules.setdefault("ibis", None)

ROOT = Path(__file__).parent.parent
GOOD = ("lovely", "superb", "moving", "funny", "brilliant")
BAD = ("dreadful", "boring", "clumsy", "ugly", "pointless")
NEUTRAL = ("the", "film", "with", "actors", "in", "a", "house", "by", "sea", "was", "quite", "long", "story", "scene")

# Pipelines of a run whose report nobody looks at.
UP_TO_MODELING = ("data_engineering", "modeling")
# Small enough for a test, and named on the command line as a user would.
TINY = {
    "subset": {"train_rows": 80, "validation_rows": 20, "test_rows": 20},
    "tokenize": {"max_tokens": 32, "scoring_max_tokens": 32},
    "training": {
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "average_decay": 0.5,
        "learning_rate_width": None,
        "head_learning_rate_factor": 1,
        "freeze_word_embeddings": False,  # the tiny encoder's are random, and there is nothing else to learn words from
        "logging_steps": 5,
        "dtype": "fp32",
        "threads": 1,
        "attention": "sdpa",
    },
}


def make_corpus(rows: int, seed: int = 0) -> pd.DataFrame:
    """Reviews whose label a tiny model can learn: each holds words of its class among neutral ones."""
    draw = random.Random(seed)
    labels = ["negative", "positive"] * (rows // 2)
    texts = []
    for number, label in enumerate(labels):
        words = [*draw.choices(NEUTRAL, k=12), *draw.sample(GOOD if label == "positive" else BAD, k=3), f"n{number}"]
        draw.shuffle(words)
        texts.append(" ".join(words))
    styles = [draw.choice(["plain", "direct"]) for _ in labels]
    return pd.DataFrame({"text": texts, "label": labels, "style": styles})


def in_chunks(frame: pd.DataFrame, rows: int = 3) -> RawTable:
    """A table as a dataset of reviews gives it, some rows at a time."""
    starts = range(0, max(len(frame), 1), rows)
    return RawTable([("reviews.csv", lambda: (frame.iloc[start : start + rows] for start in starts))])


def whole(table: RawTable | ChunkedTable) -> pd.DataFrame:
    """All rows of a table at once."""
    return pd.concat(table.chunks(), ignore_index=True)


@pytest.fixture(scope="session", autouse=True)
def configured() -> None:
    """Kedro's settings and pipelines, which are the same in every project that a test lays out."""
    configure_project("review_sentiment")


@pytest.fixture(autouse=True)
def same_console():
    """`kedro predict` sends the log to standard error; the tests after it want it back."""
    console = rich.get_console()
    before = console.__dict__
    yield
    console.__dict__ = before


@pytest.fixture(autouse=True)
def viz_forgets():
    """Kedro-Viz 12.5 keeps the events of all runs of a process, and writes them all after each run."""
    from kedro_viz.integrations.kedro.run_hooks import pipeline_run_hook

    yield
    pipeline_run_hook._events.clear()
    pipeline_run_hook._should_collect_events = False


@pytest.fixture
def raw() -> dict:
    """The base environment's parameters, as plain YAML."""
    merged: dict = {"reviews": "a.csv", "encoder": "minilm", "train_split": "train"}
    merged |= {**dict.fromkeys(("test_split", "new_reviews", "run")), "resume": False}
    for file in (ROOT / "conf/base").glob("parameters_*.yml"):
        merged |= yaml.safe_load(file.read_text("utf-8"))
    return merged


@pytest.fixture(scope="session")
def corpus() -> pd.DataFrame:
    return make_corpus(160)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT of width 32 with random weights, saved as any encoder is."""
    import sklearn.linear_model  # noqa: F401
    import torch
    import transformers.trainer  # noqa: F401
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    # Every training ends with a full garbage collection: 0.3 s if it looks at all that these libraries have made.
    gc.freeze()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *NEUTRAL, *GOOD, *BAD])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


class Project:
    """A copy of the project's configuration in a folder of its own, run in this process."""

    first = ""  # its first run, where a fixture has made one

    def __init__(self, folder: Path, encoder: Path) -> None:
        self.folder, self.encoder = folder, encoder
        self._catalog: CatalogProtocol | None = None

    def run(
        self,
        *pipelines: str,
        env: str | None = None,
        to_nodes: Sequence[str] = (),
        load_versions: dict[str, str] | None = None,
        **params: object,
    ):
        """Run as `kedro run` would, tiny; returns the run's version."""
        with RunSession.create(self.folder, env=env, runtime_params=self.parameters(**params)) as session:
            session.run(pipeline_names=list(pipelines), to_nodes=list(to_nodes), load_versions=load_versions)
            return session.session_id

    def parameters(self, **params: object) -> dict:
        """Run-time parameters: tiny, but for what is named."""
        runtime = {"reviews": "reviews.csv", "encoder": str(self.encoder)}
        merged = {block: {**values, **params.pop(block, {})} for block, values in TINY.items()}
        return {**runtime, **merged, **params}

    def start(self, **params: object) -> subprocess.Popen:
        """Start `kedro run` as a process of its own."""
        values = [
            f"{name}={'null' if value is None else value}" for name, value in flatten(self.parameters(**params)).items()
        ]
        command = [sys.executable, "-m", "kedro", "run", "--params", ",".join(values)]
        environment = {**os.environ, "COLUMNS": "1000"}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def load(self, name: str, version: str | None = None):
        """Load a dataset of the catalog, the newest version unless one is named."""
        if self._catalog is None:
            with RunSession.create(self.folder, runtime_params={"encoder": str(self.encoder)}) as session:
                self._catalog = session.load_context().catalog
        self._catalog.release(name)  # the newest version may be another by now
        return self._catalog.load(name, version=version)

    def command(self, *arguments: str) -> Result:
        """Run the command line's `kedro run` with these arguments."""
        from review_sentiment.cli import run

        return CliRunner().invoke(run, list(arguments))

    def versions(self) -> set[str]:
        """Names of all versions under data/."""
        return {path.name for path in self.folder.glob("data/*/*/*T*Z")}


def new_project(folder: Path, encoder: Path, corpus: pd.DataFrame) -> Project:
    """Lay out a project in an empty folder; to run it, the test must work in that folder."""
    folder.mkdir()
    shutil.copytree(ROOT / "conf", folder / "conf")
    (folder / "conf" / "local").mkdir(exist_ok=True)
    (folder / "src").mkdir()  # Kedro asks for it; the package itself is the installed one
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder / name)
    corpus.to_csv(folder / "reviews.csv", index=False)
    return Project(folder, encoder)


@pytest.fixture
def project(tmp_path: Path, tiny_encoder: Path, corpus: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = new_project(tmp_path / "project", tiny_encoder, corpus)
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, corpus: pd.DataFrame) -> Iterator[Project]:
    """A project after a whole run, `first`, that all tests share and only read."""
    made = new_project(tmp_path_factory.mktemp("whole") / "project", tiny_encoder, corpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        made.first = made.run()
    yield made
    assert made.versions() == {made.first}, "a test wrote into the project that all share"


def copy_of(project: Project, folder: Path) -> Project:
    """A project as it is now, in a folder of its own."""
    shutil.copytree(project.folder, folder)
    made = copy.copy(project)
    made.folder, made._catalog = folder, None
    return made


@pytest.fixture
def finished(whole_run: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project after a whole run, `first`, to go on in."""
    made = copy_of(whole_run, tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made


@pytest.fixture(scope="module")
def trained(whole_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project after a whole run, `first`, for the tests of a module to share."""
    made = copy_of(whole_run, tmp_path_factory.mktemp("trained") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        yield made


@pytest.fixture
def training_job(whole_run: Project, raw: dict) -> Callable[..., "Job"]:
    """A tiny training on the tokens of the shared run."""
    from review_sentiment.datasets.encoder import PretrainedDataset
    from review_sentiment.params import parse_parameters
    from review_sentiment.pipelines.modeling.run import Job

    def job(encoder: Path | None = None, **training: object) -> Job:
        blocks = {block: {**raw[block], **values} for block, values in TINY.items()}
        blocks["training"] |= training
        parameters = parse_parameters({**raw, **blocks})
        return Job(
            tokenized=whole_run.load("tokenized"),
            label_names=["negative", "positive"],
            pretrained=PretrainedDataset(encoder=str(encoder or whole_run.encoder)).load(),
            training=parameters.training,
            tokenize=parameters.tokenize,
            diagnosis=parameters.diagnosis,
        )

    return job


@pytest.fixture
def fine_tune(training_job: Callable[..., "Job"], tmp_path: Path) -> Callable[..., tuple]:
    """Train as a run does, without one: classifier and history, for training parameters."""
    from review_sentiment.datasets.checkpoints import Checkpoints
    from review_sentiment.distributed import Workers
    from review_sentiment.pipelines.modeling.training import train

    def call(**given: object) -> tuple:
        return train(training_job(**given), Checkpoints(tmp_path / "checkpoints", "run", False), Workers())

    return call
