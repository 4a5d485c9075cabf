import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    ConvBertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    NystromformerConfig,
    RemBertConfig,
    RobertaConfig,
    RobertaPreLayerNormConfig,
)

from review_sentiment.model.first_token import first_token_only

SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "roberta": RobertaConfig(**SHAPE),
    "distilbert": DistilBertConfig(vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    "modernbert": ModernBertConfig(
        **SHAPE, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2
    ),
}
# Built of parts that are called like BERT's.
UNLIKE = {
    "convbert": ConvBertConfig(**SHAPE, head_ratio=1),
    "nystromformer": NystromformerConfig(**SHAPE, num_landmarks=12, segment_means_seq_len=12),
    "rembert": RemBertConfig(**SHAPE, input_embedding_size=32),
    "roberta-prelayernorm": RobertaPreLayerNormConfig(**SHAPE),
}


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("name", [*CONFIGS, *UNLIKE, "electra"])
def test_logits_and_gradients_stay_the_same(name, padded):
    torch.manual_seed(0)
    config = {**CONFIGS, **UNLIKE, "electra": ElectraConfig(**SHAPE)}[name]
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, 99, (3, 12))
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 7:] = 0

    def run():
        model.zero_grad()
        logits = model(ids, attention_mask=mask).logits
        logits[:, 1].sum().backward()
        return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}

    logits, gradients = run()
    with first_token_only(model) as sped_up:
        spared, spared_gradients = run()
    assert sped_up == (name in ("bert", "roberta", "distilbert", "electra"))
    torch.testing.assert_close(spared, logits)
    torch.testing.assert_close(spared_gradients, gradients, rtol=1e-4, atol=1e-6)
    assert model(ids, output_hidden_states=True).hidden_states[-1].shape == (3, 12, 32)


def test_it_may_be_entered_twice():
    model = AutoModelForSequenceClassification.from_config(CONFIGS["bert"])
    layer = model.bert.encoder.layer[-1]
    with first_token_only(model):
        with first_token_only(model):
            pass
        assert layer(torch.zeros(1, 4, 32)).shape == (1, 1, 32)
    assert layer(torch.zeros(1, 4, 32)).shape == (1, 4, 32)
