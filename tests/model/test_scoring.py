import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from review_sentiment.model.encoder import predict_logits


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scoring_by_several_threads_answers_as_by_one_and_leaves_all_as_it_was(tiny_encoder, precision):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder).train()
    rows = [[5 + (row + place) % 20 for place in range(3 + row)] for row in range(12)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = predict_logits(model, rows, 0, 4, precision)
        torch.set_num_threads(3)
        together = predict_logits(model, rows, 0, 4, precision)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
