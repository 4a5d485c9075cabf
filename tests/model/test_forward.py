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


def test_weights_rounded_to_bf16_once_answer_as_autocast_does_and_can_be_sent_to_another_process():
    torch.manual_seed(0)
    shape = BertConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256)
    model = AutoModelForSequenceClassification.from_config(shape).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.bias, std=0.2)  # all 0 in a new model, so that none would be missed
    rows = [torch.randint(5, 30_000, (length,)).tolist() for length in (40, 38, 17, 40)]
    batch = {name: torch.from_numpy(array) for name, array in pad(rows, 0).items()}
    with torch.inference_mode(), computing_in(model, "bf16"):
        expected = model(**batch).logits.float().numpy()

    forward = TorchForward(model, 0, 4, "bf16")
    logits = forward(rows)

    assert np.abs(logits - TorchForward(model, 0, 4, "fp32")(rows)).max() > 1e-4  # it does compute in bf16
    np.testing.assert_allclose(logits, expected, rtol=0, atol=4e-3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(forward))(rows), logits)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_scoring_pads_to_few_lengths_and_to_none_that_the_encoder_has_no_position_for():
    config = BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=61,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    forward = TorchForward(model, 0, 2, "fp32")
    shapes = set()
    forward._ready.base_model.embeddings.register_forward_pre_hook(
        lambda _module, _args, named: shapes.add(tuple(named["input_ids"].shape)), with_kwargs=True
    )

    for length in range(3, 62):  # one text at a time, as a server gets them
        forward([[7] * length])
    forward([[7] * length for length in range(3, 62)])

    assert {length for _, length in shapes} == {8, 16, 24, 32, 40, 48, 56, 61}
    row = torch.full((1, 9), 7)
    np.testing.assert_allclose(forward([[7] * 9]), model(row).logits.detach().numpy(), rtol=0, atol=1e-6)
