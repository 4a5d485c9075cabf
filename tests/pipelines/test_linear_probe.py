import copy

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from review_sentiment.metrics import headline_metrics, softmax
from review_sentiment.model.forward import TorchForward, score_layer
from review_sentiment.pipelines.modeling.linear_probe import probe_rows, start_head
from tests.model.test_first_token import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_of_any_encoder_starts_as_the_regression_that_it_reports(name, classes):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[name])
    config.num_labels = classes
    model = AutoModelForSequenceClassification.from_config(config).eval()
    draw = np.random.default_rng(0)
    label_id = np.arange(60) % classes
    # Ids that no encoder takes for padding; each class has some of its own.
    rows = [(2 + 3 * label + draw.integers(3, size=3 + index % 4)).tolist() for index, label in enumerate(label_id)]

    size = score_layer(model).weight.norm()
    right = start_head(model, TorchForward(model, 0, 7, "fp32").head_inputs(rows), label_id)
    answers = TorchForward(model, 0, 8, "fp32")(rows)
    assert (answers.argmax(axis=1) == label_id).mean() == right > 0.8
    assert headline_metrics(label_id, softmax(answers))["loss"] < np.log(classes)
    torch.testing.assert_close(score_layer(model).weight.norm(), size)


def test_few_rows_of_a_rare_class_are_all_among_the_chosen():
    label_id = np.where(np.arange(6000) % 1000 == 999, 1, 0)
    chosen = probe_rows(label_id, seed=0)
    assert len(chosen) == len(np.unique(chosen)) == 2500
    assert label_id[chosen].sum() == 6
    assert probe_rows(label_id[:50], seed=0).tolist() == list(range(50))


def test_the_start_tells_the_classes_apart_before_anything_is_learned(fine_tune):
    accuracy = {}
    for start in ("linear_probe", "random"):
        _, history = fine_tune(learning_rate=1e-8, epochs=1, head_start=start)
        accuracy[start] = history.loc[history["split"] == "validation", "accuracy"].item()
    assert accuracy["linear_probe"] > 0.8 > accuracy["random"]
