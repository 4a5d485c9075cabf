import pytest
import torch
from transformers import AutoModelForSequenceClassification, TrainerControl, TrainerState

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.model.dtype import computing_in
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.benchmark import (
    ComputeSettings,
    choose_compute,
    choose_threads,
    device_among,
    measure_pace,
    merge_passes,
    pick,
)
from review_sentiment.pipelines.modeling.callbacks import SpeedCheck
from review_sentiment.pipelines.modeling.plan import Clock, Pace, Schedule, TrainingPlan


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


def test_the_benchmark_leaves_model_and_random_state_as_they_were(model, batch, training):
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


def test_auto_compares_every_way_to_compute(model, batch, training, monkeypatch):
    from review_sentiment.pipelines.modeling import benchmark

    monkeypatch.setattr(benchmark, "bf16_matmul_gain", lambda width, device: 2.0)  # as on a CPU with bf16
    reason = choose_compute(model, batch, training).reason
    for choice in ("fp32 eager", "bf16 sdpa", "bf16 sdpa_fp32", "bf16 eager"):
        assert f"{choice} " in reason
    assert "times as fast as fp32 sdpa" in reason
    assert "hidden states in bf16 differ by" in reason


def test_another_choice_than_the_default_must_gain_enough():
    def picked(bf16_error: float = 0.01, **seconds: float) -> str:
        times = {("fp32", "sdpa"): 1.0, **{tuple(name.split("_", 1)): value for name, value in seconds.items()}}
        return " ".join(pick(times, bf16_error))

    assert picked(bf16_sdpa=0.95) == "fp32 sdpa"  # a gain that may be noise
    assert picked(bf16_sdpa=0.90) == "bf16 sdpa"
    assert picked(bf16_sdpa=0.5, bf16_sdpa_fp32=0.48) == "bf16 sdpa"
    assert picked(bf16_sdpa=0.5, bf16_sdpa_fp32=0.4) == "bf16 sdpa_fp32"
    assert picked(fp32_eager=0.8) == "fp32 sdpa"  # which keeps every attention score
    assert picked(fp32_eager=0.7) == "fp32 eager"
    assert picked(bf16_sdpa=0.1, bf16_error=0.06) == "fp32 sdpa"  # however fast


@pytest.fixture
def four_threads(monkeypatch):
    """A machine of four cores, on which a step takes as long as a test says."""
    before = torch.get_num_threads()
    taken = []

    def choose(seconds: dict[int, list[float]], trust: bool = False) -> tuple[int, bool, str]:
        from review_sentiment.model import timing

        clock = [0.0]
        monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

        def step() -> None:
            threads = torch.get_num_threads()
            taken.append(threads)
            times = seconds[threads]
            clock[0] += times.pop(0) if len(times) > 1 else times[0]

        return choose_threads(step, 4, trust)

    yield choose
    torch.set_num_threads(before)


def test_one_unlucky_second_does_not_decide_the_threads(four_threads):
    threads, busy, reason = four_threads({4: [1.2, 1.2, 1.2, 0.25], 2: [0.5], 1: [1.0]})
    assert (threads, busy) == (4, False)
    assert reason == "4 threads 2.00 times as fast as 2"


def test_a_busy_machine_keeps_the_default_and_says_so(four_threads):
    threads, busy, reason = four_threads({4: [4.0], 2: [0.5], 1: [1.0]})
    assert (threads, busy) == (4, True)
    assert reason == "4 threads 0.12 times as fast as 2: the machine is busy, so 4 are kept for now"
    # Where steps were slow for a whole epoch, the same figures count.
    assert four_threads({4: [4.0], 2: [0.5], 1: [1.0]}, trust=True)[:2] == (2, False)


@pytest.mark.parametrize(
    ("threads", "busy", "step_seconds", "compared"),
    [(2, False, 1.0, False), (2, True, 1.0, True), (1, False, 1.0, True), (2, False, 2.0, True)],
)
def test_threads_are_compared_again_after_the_first_epoch_where_that_may_pay(
    model, batch, training, caplog, threads, busy, step_seconds, compared
):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compute = ComputeSettings("cpu", "fp32", threads, "sdpa", "measured", 8, 1, 8, busy)
        pace = Pace(step_seconds=1.0, row_seconds=0.1)
        clock = Clock(pace, Schedule(TrainingPlan(10, 30, 3, 0.5)), 10, 0.0)
        clock.restart(step_seconds)
        check = SpeedCheck(compute, pace, training, lambda: batch, clock, Workers())
        with caplog.at_level("INFO"):
            check.on_evaluate(None, TrainerState(), TrainerControl(), model=model)
            check.on_evaluate(None, TrainerState(), TrainerControl(), model=model)
        assert caplog.text.count("Threads compared again after the first epoch") == compared
        assert (clock.full_step_seconds < 0.9) == compared  # timed again
        assert ("after the first epoch" in check.reason) == compared
    finally:
        torch.set_num_threads(before)


def test_fewer_threads_are_taken_where_cores_are_missing(four_threads):
    assert four_threads({4: [0.7], 2: [0.5], 1: [0.45]})[:2] == (2, False)
    assert four_threads({4: [0.6], 2: [0.5], 1: [1.0]})[:2] == (4, False)


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
