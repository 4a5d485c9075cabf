import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, pipeline

from review_sentiment.metrics import row_losses, softmax
from review_sentiment.pipelines.modeling.temperature import fit_temperature, scale_head
from tests.model.test_first_token import CONFIGS


def overconfident(rows: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores that would be calibrated if they were divided by `factor`."""
    draw = np.random.default_rng(0)
    logits = draw.normal(scale=2, size=(rows, 2))
    label_id = (draw.random(rows) < softmax(logits)[:, 1]).astype(int)
    return label_id, factor * logits


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_overconfidence_and_lowers_the_loss(factor):
    label_id, logits = overconfident(5000, factor)
    temperature = fit_temperature(label_id, logits)
    assert temperature == pytest.approx(factor, rel=0.1)
    before, after = (row_losses(label_id, softmax(logits / by)).mean() for by in (1.0, temperature))
    assert after <= before


def test_rows_without_a_mistake_do_not_sharpen_without_limit():
    label_id = np.array([0, 1] * 10)
    logits = np.where(np.eye(2)[label_id] == 1, 1.0, -1.0)
    temperature = fit_temperature(label_id, logits)
    assert 0.5 < temperature < 1  # as sure as 20 of 20 allow: 21/22
    assert softmax(logits / temperature).max() == pytest.approx(21 / 22, abs=0.001)
    assert fit_temperature(label_id, np.full((20, 2), np.nan)) == 1.0


@pytest.mark.parametrize("name", CONFIGS)
def test_every_head_is_divided(name):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[name]).eval()
    ids = torch.randint(5, 99, (3, 12))
    before = model(ids).logits
    scale_head(model, 2.5)
    torch.testing.assert_close(model(ids).logits, before / 2.5)


def test_transformers_alone_gives_the_calibrated_probabilities(whole_run):
    folder = whole_run.folder / f"data/06_models/classifier/{whole_run.first}/classifier"

    kept = whole_run.load("history").query("best").iloc[0]
    metrics, classifier = whole_run.load("metrics"), whole_run.load("classifier")
    assert metrics["temperature"] == kept["temperature"] == classifier.settings["temperature"] != 1
    assert metrics["megabytes"]["classifier"] == pytest.approx(
        (folder / "model.safetensors").stat().st_size / 1e6, rel=0.1
    )
    check = whole_run.load("reload_check")
    assert (check["rows"], check["largest_difference"], check["same_predictions"]) == (20, 0.0, True)
    texts = whole_run.load("splits")["test"]["text"][:5]
    answers = pipeline("text-classification", str(folder), device="cpu")(texts)
    expected = whole_run.load("predictions")[:5]
    assert [answer["label"] for answer in answers] == expected["predicted"].tolist()
    likeliest = expected.filter(regex="^proba_").max(axis=1)
    np.testing.assert_allclose([answer["score"] for answer in answers], likeliest, atol=1e-5)
