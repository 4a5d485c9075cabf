import copy

import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from review_sentiment.pipelines.modeling.adversarial import WordAttack
from tests.model.test_first_token import CONFIGS

UNTIMED = ["split", "step", "loss", "grad_norm", "learning_rate", "accuracy", "f1"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("frozen", [True, False])
def test_the_moved_words_have_a_higher_loss(name, frozen):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(copy.deepcopy(CONFIGS[name])).eval()
    words = model.get_input_embeddings()
    words.requires_grad_(not frozen)
    batch = {"input_ids": torch.randint(2, 20, (4, 9)), "attention_mask": torch.ones(4, 9, dtype=torch.long)}
    label_id = torch.tensor([0, 1, 1, 0])
    read = []
    words.register_forward_hook(lambda _module, _inputs, output: read.append(output.detach().clone()))

    def losses() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(**batch).logits, label_id, reduction="none")

    attack = WordAttack(model, 0.01)
    with attack.prepared():
        first = losses()
        first.sum().backward()
    seen = []
    with attack.made():
        handle = words.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
        moved = losses()
        handle.remove()
    assert (moved > first).all()
    usual = words.weight.detach().norm(dim=1).mean()
    torch.testing.assert_close((seen[0] - read[0]).flatten(1).norm(dim=1), 0.01 * usual.expand(4), rtol=1e-3, atol=0)
    torch.testing.assert_close(losses(), first)
    assert (words.weight.grad is None) == frozen


def test_early_epochs_learn_from_both_readings_of_a_batch(fine_tune, caplog):
    """A move that no float can tell makes both readings the same, and their mean what one reading gives."""
    caplog.set_level("INFO")
    histories = {}
    for distance in (None, 1e-30, 0.5):
        _, history = fine_tune(epochs=3, accumulation_steps=2, logging_steps=1, adversarial_distance=distance)
        histories[distance] = history[UNTIMED]
        assert ("each batch is read twice" in caplog.text) == (distance is not None)
        caplog.clear()
    pd.testing.assert_frame_equal(histories[None], histories[1e-30])
    assert not histories[None]["loss"].equals(histories[0.5]["loss"])


def test_one_epoch_is_the_last_and_not_attacked(fine_tune):
    (usual, history), (attacked, other) = (
        fine_tune(epochs=1, adversarial_distance=distance) for distance in (None, 0.5)
    )
    pd.testing.assert_frame_equal(history[UNTIMED], other[UNTIMED])
    torch.testing.assert_close(attacked.model.state_dict(), usual.model.state_dict(), rtol=0, atol=0)
