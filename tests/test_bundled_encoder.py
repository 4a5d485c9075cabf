"""The real MiniLM weights, as they come with the project."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, CLIPConfig, DistilBertConfig, ModernBertConfig, XLNetConfig

from review_sentiment.datasets import encoder
from review_sentiment.datasets.encoder import PretrainedDataset
from review_sentiment.errors import UserError
from review_sentiment.model.encoder import add_head
from tests.conftest import ROOT


@pytest.mark.slow
def test_a_run_on_the_shipped_sample_uses_the_published_weights(project):
    shutil.copytree(ROOT / "data/01_raw", project.folder / "data/01_raw")
    project.run(
        reviews="data/01_raw/sample_reviews.csv",
        encoder="minilm",
        subset={"train_rows": 320, "validation_rows": 40, "test_rows": 100},
        tokenize={"max_tokens": 256, "scoring_max_tokens": 256},
        training={"epochs": 2, "learning_rate": 3e-4, "batch_size": 16},
    )

    assert project.load("manifest")["encoder_sha256"] == encoder._MINILM_SHA256
    metrics = project.load("metrics")
    # A coin gives 65 of 100 once in 500 times.
    assert metrics["classifier"]["accuracy"] >= 0.65
    assert metrics["classifier"]["loss"] < 0.69


def test_other_bytes_are_refused(tmp_path, monkeypatch):
    folder = encoder._find_encoder("minilm", [])
    package = tmp_path / encoder._MINILM_PACKAGE
    shutil.copytree(folder, package / "model")
    (package / "__init__.py").touch()
    with (package / "model" / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    monkeypatch.syspath_prepend(tmp_path)

    assert encoder._find_encoder("minilm", []).is_relative_to(tmp_path)
    with pytest.raises(Exception, match="not the published ones") as error:
        PretrainedDataset(encoder="minilm").load()
    assert isinstance(error.value.__cause__, UserError)


def test_every_weight_of_the_encoder_is_used_and_only_the_head_is_new(tiny_encoder: Path, caplog):
    caplog.set_level("INFO")
    pretrained = PretrainedDataset(encoder=str(tiny_encoder)).load()
    torch.manual_seed(0)
    model = add_head(pretrained, ["bad", "good"], "auto", hidden_dropout=0.2, attention_dropout=0.0)

    state = model.state_dict()
    for name, weight in pretrained.weights.items():
        torch.testing.assert_close(state[f"bert.{name}"], weight)
    assert (model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob) == (0.2, 0.0)
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert "The classification head (classifier.bias, classifier.weight) is new" in caplog.text


def test_dropout_that_an_encoder_does_not_know_is_refused(tiny_encoder: Path):
    pretrained = PretrainedDataset(encoder=str(tiny_encoder)).load()
    pretrained = replace(pretrained, name="other", config=ModernBertConfig())
    with pytest.raises(UserError, match="the encoder 'other' has no known hidden_dropout: set 0, or null"):
        add_head(pretrained, ["bad", "good"], "auto", hidden_dropout=0.2, attention_dropout=0.0)


def test_no_dropout_is_left_in_a_head_that_names_its_own(tiny_encoder: Path):
    config = DistilBertConfig(vocab_size=100, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    pretrained = PretrainedDataset(encoder=str(tiny_encoder)).load()
    pretrained = replace(pretrained, config=config, weights=AutoModel.from_config(config).state_dict())

    assert DistilBertConfig().seq_classif_dropout > 0
    model = add_head(pretrained, ["bad", "good"], "auto", 0.0, 0.0).train()
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)} == {0.0}


def test_weights_of_another_architecture_are_refused(tiny_encoder: Path):
    pretrained = PretrainedDataset(encoder=str(tiny_encoder)).load()
    foreign = {f"other.{name}": weight for name, weight in pretrained.weights.items()}

    with pytest.raises(UserError, match="do not belong together"):
        add_head(type(pretrained)(**{**vars(pretrained), "weights": foreign}), ["bad", "good"], "auto", None, None)


def test_a_head_for_other_classes_is_replaced_and_one_for_as_many_goes_on(tiny_encoder: Path, tmp_path, caplog):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    caplog.set_level("INFO")
    published = AutoModelForSequenceClassification.from_pretrained(tiny_encoder, num_labels=5)
    published.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(tmp_path)
    pretrained = PretrainedDataset(encoder=str(tmp_path)).load()

    assert add_head(pretrained, ["bad", "good"], "auto", None, None).classifier.out_features == 2
    assert "The classification head (classifier.bias, classifier.weight) is new" in caplog.text
    model = add_head(pretrained, ["1", "2", "3", "4", "5"], "auto", None, None)
    torch.testing.assert_close(model.classifier.weight, published.classifier.weight)
    assert "has a classification head of its own" in caplog.text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CLIPConfig(), "is of the kind clip, for which transformers has no text classifier"),
        (XLNetConfig(), r"\(xlnet\) reads the last token, which here is padding"),
    ],
)
def test_encoders_that_make_no_classifier_here_are_refused(tiny_encoder: Path, config, words):
    pretrained = replace(PretrainedDataset(encoder=str(tiny_encoder)).load(), name="other", config=config)
    with pytest.raises(UserError, match=words):
        add_head(pretrained, ["bad", "good"], "auto", None, None)


def test_the_head_of_a_sentence_encoder_starts_from_the_mean_of_all_tokens(tiny_encoder: Path):
    pretrained = replace(PretrainedDataset(encoder=str(tiny_encoder)).load(), mean_pooled=True)
    torch.manual_seed(0)
    model = add_head(pretrained, ["bad", "good"], "auto", None, None)
    ids, mask = torch.randint(5, 25, (3, 20)), torch.ones(3, 20, dtype=torch.int64)
    mask[0, 12:] = 0
    states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states

    assert len(states) == 1 + pretrained.config.num_hidden_layers + 1
    real = mask[:, :, None]
    mean = (states[-2] * real).sum(1) / real.sum(1)
    assert torch.cosine_similarity(states[-1][:, 0], mean).min() > 0.98
    assert add_head(pretrained, ["bad", "good"], "first_token", None, None).config.num_hidden_layers == 2


def test_minilm_says_that_it_is_read_by_the_mean(tiny_encoder: Path):
    assert PretrainedDataset(encoder="minilm").load().mean_pooled
    assert not PretrainedDataset(encoder=str(tiny_encoder)).load().mean_pooled


def test_bf16_reaches_the_hidden_states_and_leaves_with_it(tiny_encoder: Path):
    from review_sentiment.model.dtype import computing_in

    pretrained = PretrainedDataset(encoder=str(tiny_encoder)).load()
    model = add_head(pretrained, ["bad", "good"], "auto", None, None)
    inputs = {"input_ids": torch.randint(5, 25, (2, 9)), "output_hidden_states": True}
    for dtype, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with computing_in(model, dtype):
            assert {state.dtype for state in model(**inputs).hidden_states[1:]} == {expected}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(**inputs).hidden_states[0].dtype == torch.float32
