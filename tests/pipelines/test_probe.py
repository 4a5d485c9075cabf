import pytest
import torch
from transformers import AutoModelForSequenceClassification

from review_sentiment.errors import UserError
from review_sentiment.model.dtype import computing_in
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.probe import choose_compute, device_among, measure_pace, merge_passes


@pytest.fixture
def training(raw):
    return parse_parameters(raw).training


@pytest.fixture
def model(tiny_encoder):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(tiny_encoder)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return {"input_ids": torch.randint(5, 25, (8, 30)), "labels": torch.arange(8) % 2}


def test_probing_leaves_model_and_random_state_as_they_were(model, batch, training):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    compute = choose_compute(model, batch, training)
    pace = measure_pace(model, batch, compute, training)
    assert 0 < pace.row_seconds < pace.step_seconds < 1
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert compute.threads <= threads


def test_what_is_asked_for_is_taken_and_not_measured(model, batch, training):
    asked = training.model_copy(update={"dtype": "bf16", "threads": 1, "attention": "eager"})
    compute = choose_compute(model, batch, asked)

    assert (compute.dtype, compute.threads, compute.attention, compute.device) == ("bf16", 1, "eager", "cpu")
    assert "bf16" not in compute.reason
    assert "eager" not in compute.reason
    with compute.applied(model):
        assert torch.get_num_threads() == 1


def test_attention_in_fp32_learns_as_in_fp32_and_scores_as_in_bf16(model, batch, training):
    asked = training.model_copy(update={"dtype": "bf16", "threads": 1, "attention": "sdpa_fp32"})
    compute = choose_compute(model, batch, asked)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": torch.ones(8, 30, dtype=torch.int64)}
    inputs["attention_mask"][0, 20:] = 0
    query = model.base_model.encoder.layer[0].attention.self.query.weight

    def gradient_and_scores():
        model.zero_grad()
        with computing_in(model, "bf16"):
            model(**inputs, labels=batch["labels"]).loss.backward()
            with torch.no_grad():
                return query.grad.clone(), model(**inputs).logits

    model.zero_grad()
    model(**inputs, labels=batch["labels"]).loss.backward()
    exact = query.grad.clone()
    rounded, scores = gradient_and_scores()
    with compute.applied(model):
        learned, scores_then = gradient_and_scores()
    assert torch.equal(scores_then, scores)
    assert 0 < (learned - exact).norm() < (rounded - exact).norm()


@pytest.mark.parametrize("attention", ["sdpa", "sdpa_fp32"])
def test_attention_that_the_encoder_lacks_is_refused(model, batch, training, attention):
    model.set_attn_implementation("eager")
    with pytest.raises(UserError, match=rf"training\.attention is {attention}, which this encoder does not support"):
        choose_compute(model, batch, training.model_copy(update={"attention": attention}))


def test_bf16_that_disagrees_is_refused_however_fast(model, batch, training, monkeypatch):
    from review_sentiment.pipelines.modeling import probe

    monkeypatch.setattr(probe, "_WORTHWHILE", 0.0)
    monkeypatch.setattr(probe, "bf16_products_gain", lambda width, device: 2.0)
    assert choose_compute(model, batch, training).dtype == "bf16"

    monkeypatch.setattr(probe, "_BF16_BOUND", 1e-6)
    assert choose_compute(model, batch, training).dtype == "fp32"


@pytest.mark.parametrize(
    ("wanted", "cuda", "mps", "taken"),
    [
        ("auto", True, False, "cuda"),
        ("auto", False, True, "cpu"),
        ("auto", False, False, "cpu"),
        ("cpu", True, True, "cpu"),
        ("cuda", True, False, "cuda"),
        ("mps", False, True, "mps"),
    ],
)
def test_auto_takes_cuda_where_there_is_one_and_never_mps(wanted, cuda, mps, taken):
    assert device_among(wanted, cuda, mps) == taken


@pytest.mark.parametrize("wanted", ["cuda", "mps"])
def test_an_accelerator_that_is_not_there_is_refused(wanted):
    with pytest.raises(UserError, match=f"training.device is {wanted}, but PyTorch finds no such accelerator here"):
        device_among(wanted, cuda=False, mps=False)


@pytest.mark.parametrize(
    ("rows", "workers", "sizes"),
    [
        (1000, 1, (48, 1, 256)),
        (47, 1, (24, 2, 47)),
        (24, 2, (48, 1, 32)),
        (10, 1, (8, 6, 32)),
        (0, 1, (8, 6, 32)),
    ],
)
def test_passes_are_merged_as_far_as_memory_goes_and_steps_stay_as_large(training, rows, workers, sizes):
    training = training.model_copy(update={"batch_size": 8, "accumulation_steps": 6, "workers": workers})
    assert merge_passes(training, row_bytes=3e6, free_bytes=(rows + 0.5) * 1e7) == sizes
