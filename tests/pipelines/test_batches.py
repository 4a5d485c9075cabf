import numpy as np
import pytest

from review_sentiment.datasets.encoder import TokenizerDataset
from review_sentiment.model.tokens import encode_texts
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.batches import LengthBatches, MaxLength
from review_sentiment.pipelines.modeling.trainer import ReviewTrainer


def test_each_row_once_in_even_batches_of_random_order():
    lengths = np.random.default_rng(0).integers(5, 200, size=203)
    batches = LengthBatches(lengths, batch_size=10, seed=1)

    first = list(batches)
    assert sorted(first) == list(range(203))
    assert first == list(batches)
    batches.set_epoch(1)
    assert first != list(batches)
    blocks = lengths[first[:200]].reshape(20, 10)
    padded_share = 1 - blocks.sum() / (blocks.max(axis=1) * 10).sum()
    assert padded_share < 0.1
    means = blocks.mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(20))[0, 1]) < 0.6  # not from long to short


def test_fewer_rows_than_a_batch():
    assert sorted(LengthBatches([3, 1, 2], batch_size=8, seed=0)) == [0, 1, 2]


def test_batches_are_even_in_what_an_epoch_reads():
    lengths = np.concatenate([np.arange(10, 30), np.full(20, 300)])
    batches = LengthBatches(lengths, batch_size=10, seed=0, max_tokens=lambda epoch: (20, 300)[epoch])
    for epoch, most in enumerate((20, 300)):
        batches.set_epoch(epoch)
        read = np.minimum(lengths, most)[list(batches)].reshape(4, 10)
        assert sorted(read.max(axis=1) - read.min(axis=1))[:3] == ([0, 0, 0] if epoch == 0 else [0, 0, 9])


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_a_review_is_cut_as_if_it_had_been_tokenized_so(raw, truncation):
    tokenizer = TokenizerDataset(encoder="minilm").load()
    params = parse_parameters({**raw, "tokenize": {**raw["tokenize"], "max_tokens": 40, "truncation": truncation}})
    text = " ".join(map(str, range(100)))
    for length in (8, 13, 39, 40, 60):
        max_length = MaxLength(length, params.tokenize, tokenizer.tokenizer)
        long = encode_texts(tokenizer, [text], 40, params.tokenize)["input_ids"][0]
        short = encode_texts(tokenizer, [text], min(length, 40), params.tokenize)["input_ids"][0]
        assert max_length.cut(long, max_length.early) == short.tolist()


def test_batches_come_in_another_order_each_epoch(fine_tune, monkeypatch):
    orders = []
    draw = LengthBatches.__iter__
    monkeypatch.setattr(LengthBatches, "__iter__", lambda self: iter(orders.append(list(draw(self))) or orders[-1]))

    fine_tune(epochs=3)
    *_previews, first, second, third = map(tuple, orders)
    assert len({first, second, third}) == 3


def test_only_the_last_epoch_reads_whole_reviews(fine_tune, monkeypatch, caplog):
    read, step = [], ReviewTrainer.training_step

    def look(trainer, model, inputs, *args, **kwargs):
        loss = step(trainer, model, inputs, *args, **kwargs)
        read.append((trainer.state.global_step, inputs["input_ids"].shape[1]))
        return loss

    monkeypatch.setattr(ReviewTrainer, "training_step", look)
    for group_by_length in (True, False):
        read.clear()
        fine_tune(early_max_tokens=12, group_by_length=group_by_length)
        steps = 1 + max(at for at, _ in read)
        early = {length for at, length in read if at < steps * 5 / 6}
        assert (early, {length for at, length in read} - early) == ({12}, {18})
    assert "Until the last epoch reviews are cut to 12 tokens, which leaves 67% of all" in caplog.text
