import pickle

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from review_sentiment.model.dtype import computing_in
from review_sentiment.model.forward import TorchForward
from review_sentiment.model.padding import pad


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_scoring_by_several_threads_answers_as_by_one_and_leaves_all_as_it_was(tiny_encoder, dtype):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder).train()
    rows = [[5 + (row + place) % 20 for place in range(3 + row)] for row in range(12)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = TorchForward(model, 0, 4, dtype)(rows)
        torch.set_num_threads(3)
        together = TorchForward(model, 0, 4, dtype)(rows)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_products_with_weights_rounded_once_answer_as_those_that_round_anew_and_can_be_sent_to_another_process():
    torch.manual_seed(0)
    shape = BertConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256)
    model = AutoModelForSequenceClassification.from_config(shape).eval()
    rows = [torch.randint(5, 30_000, (length,)).tolist() for length in (40, 38, 17, 40)]
    batch = {name: torch.from_numpy(array) for name, array in pad(rows, 0).items()}
    with torch.inference_mode(), computing_in(model, "bf16"):
        anew = model(**batch).logits.float().numpy()
    ready = TorchForward(model, 0, 4, "bf16")
    answers = ready(rows)
    assert np.abs(answers - TorchForward(model, 0, 4, "fp32")(rows)).max() > 1e-4  # it does compute in bf16
    np.testing.assert_allclose(answers, anew, rtol=0, atol=2e-3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ready))(rows), answers)
