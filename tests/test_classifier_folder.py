"""The classifier's folder alone is enough for libraries that know nothing of this project."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from review_sentiment.datasets.classifier import ClassifierDataset
from tests.conftest import ROOT

LIMIT = 32  # tokenize.scoring_max_tokens of the tests
FIRST = "lovely film " * (LIMIT // 2 - 1)  # as many words as are read
LONG = FIRST + "dreadful film " * 2485  # 5,000 words


@pytest.fixture(scope="module")
def folder(whole_run) -> Path:
    return whole_run.folder / f"data/06_models/classifier/{whole_run.first}/classifier"


def test_the_readme_snippet_classifies_a_text_of_5000_words_as_its_first_tokens(folder, whole_run):
    readme = (ROOT / "README.md").read_text("utf-8")
    snippet = next(block for block in readme.split("```python\n")[1:] if "text-classification" in block).split("```")[0]
    names: dict = {}
    exec(snippet.replace("data/06_models/classifier/<run>/classifier", str(folder)), names)

    (long,) = names["classify"](LONG)

    assert [long] == names["classify"](FIRST)  # not what else the encoder's 64 positions could hold


def test_tokenizers_alone_cuts_at_the_length_that_was_evaluated_and_pads_nothing(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    assert len(tokenizer.encode(LONG).ids) == LIMIT
    assert [len(row.ids) for row in tokenizer.encode_batch(["lovely", "lovely film"])] == [3, 4]
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == LIMIT
    assert len(AutoTokenizer.from_pretrained(folder)(LONG, truncation=True)["input_ids"]) == LIMIT


def test_the_encoders_own_truncation_and_padding_are_not_saved(whole_run, tmp_path):
    classifier = whole_run.load("classifier")
    classifier.tokenizer.backend_tokenizer.enable_truncation(16)
    classifier.tokenizer.backend_tokenizer.enable_padding(length=16)

    ClassifierDataset(filepath=str(tmp_path / "classifier")).save(classifier)

    tokenizer = Tokenizer.from_file(str(tmp_path / "classifier/tokenizer.json"))
    assert [len(tokenizer.encode(text).ids) for text in ("lovely", LONG)] == [3, LIMIT]
    assert classifier.tokenizer.backend_tokenizer.truncation["max_length"] == 16  # what was given is left as it was


def test_our_own_scoring_still_reads_whole_texts(whole_run):
    classifier = whole_run.load("classifier")

    whole = classifier.encoder_tokenizer().tokenizer
    assert len(whole.encode(LONG).ids) == 5002
    assert classifier.encoder_tokenizer().tokenizer_hash() == whole_run.load("tokenizer").tokenizer_hash()
