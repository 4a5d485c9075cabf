"""Find out, in a few seconds and on the model itself, how this machine trains it fastest, and how long that takes."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from review_sentiment.errors import UserError
from review_sentiment.model.attention import SDPA_FP32
from review_sentiment.model.dtype import Dtype, computing_in
from review_sentiment.model.forward import computing_threads
from review_sentiment.model.timing import best_seconds, best_seconds_of, bf16_products_gain
from review_sentiment.params import TrainingParams
from review_sentiment.pipelines.modeling.plan import Pace

Batch = Mapping[str, torch.Tensor]

# A choice other than the usual one must gain this much, or noise would decide and runs would not repeat.
_WORTHWHILE = 1.1
# Plain attention must gain more, since it keeps every score of every layer: gigabytes.
_EAGER_WORTHWHILE = 1.3
# Fewer threads must gain more: what keeps the other cores busy now may soon be over.
_FEWER_THREADS_WORTHWHILE = 1.3
# bf16 keeps 8 bits; over an encoder's layers the roundings add up to one or two percent of its hidden states.
_BF16_BOUND = 0.05
# The longest batches take more than the one that was measured.
_MEMORY_SHARE = 0.3
_SCORED_AT_MOST = 256
# Choices are compared on as many rows of a batch as make one step about this long.
_TRIAL_SECONDS = 0.25


@dataclass(frozen=True)
class ComputeSettings:
    """How this machine computes.

    Attributes:
        device: torch device.
        dtype: Number format of the matrix products.
        threads: CPU threads of one operation.
        attention: transformers' name of the attention implementation.
        reason: What was measured, in words.
        batch_size: Reviews per forward pass.
        accumulation_steps: Forward passes per optimizer step.
        eval_batch_size: Reviews per forward pass when scoring.
    """

    device: str
    dtype: Dtype
    threads: int
    attention: str
    reason: str
    batch_size: int
    accumulation_steps: int
    eval_batch_size: int

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Let torch and `model` compute this way for a while."""
        attention = model.config._attn_implementation
        model.set_attn_implementation(self.attention)
        try:
            with computing_threads(self.threads):
                yield
        finally:
            model.set_attn_implementation(attention)


def choose_device(params: TrainingParams) -> str:
    """The torch device that `training.device` means on this machine."""
    return device_among(params.device, torch.cuda.is_available(), torch.backends.mps.is_available())


def device_among(wanted: str, cuda: bool, mps: bool) -> str:
    """Choose among the devices of a machine.

    Args:
        wanted: The parameter `training.device`.
        cuda: Whether there is a CUDA accelerator.
        mps: Whether there is an Apple one; `auto` never takes it, since trainings on it have crashed.

    Returns:
        torch's name of the device.

    Raises:
        UserError: It is not there.
    """
    if wanted == "auto":
        return "cuda" if cuda else "cpu"
    if not {"cpu": True, "cuda": cuda, "mps": mps}[wanted]:
        raise UserError(f"training.device is {wanted}, but PyTorch finds no such accelerator here: set auto or cpu")
    return wanted


def choose_compute(model: PreTrainedModel, batch: Batch, params: TrainingParams) -> ComputeSettings:
    """Measure threads, number format and attention by training steps on a copy of the model.

    Args:
        model: The classifier that will train; neither it nor the random state is changed.
        batch: A real batch with labels.
        params: The block `training`.

    Returns:
        What was chosen, and why.

    Raises:
        UserError: The encoder does not support the attention that is asked for.
    """
    reasons = []
    threads = torch.get_num_threads() if params.threads == "auto" else params.threads
    with _trial(model, choose_device(params)) as trial, computing_threads(threads):
        rows = _few_rows(trial, batch)
        if params.threads == "auto" and trial.device.type == "cpu":
            reasons.append(_set_threads(lambda: _step(trial, rows, "fp32")))
        dtype, attention, reason = _choose_format(trial, rows, params)
        if reason:
            reasons.append(reason)
        sizes = params.batch_size, params.accumulation_steps, params.eval_batch_size
        if trial.device.type == "cuda":
            sizes = merge_passes(params, _row_bytes(trial, rows, dtype), torch.cuda.mem_get_info()[0])
        return ComputeSettings(trial.device.type, dtype, torch.get_num_threads(), attention, ", ".join(reasons), *sizes)


def merge_passes(params: TrainingParams, row_bytes: float, free_bytes: float) -> tuple[int, int, int]:
    """Take as few forward passes as memory allows, since an accelerator is idle in small ones.

    Args:
        params: The block `training`; an optimizer step sees as many reviews as it says.
        row_bytes: Memory that training on one review takes.
        free_bytes: Memory that is free.

    Returns:
        `batch_size`, `accumulation_steps` and `eval_batch_size`.
    """
    most = int(free_bytes * _MEMORY_SHARE / row_bytes)
    merged = max(
        passes
        for passes in range(1, params.accumulation_steps + 1)
        if passes == 1
        or (params.accumulation_steps % passes == 0 and params.batch_size * passes <= most * params.workers)
    )
    scored = max(params.eval_batch_size, min(_SCORED_AT_MOST, most))
    return params.batch_size * merged, params.accumulation_steps // merged, scored


def _row_bytes(trial: PreTrainedModel, rows: Batch, dtype: Dtype) -> float:
    trial.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _step(trial, rows, dtype)
    return (torch.cuda.max_memory_allocated() - before) / len(rows["labels"])


def measure_pace(model: PreTrainedModel, batch: Batch, compute: ComputeSettings, params: TrainingParams) -> Pace:
    """Measure whole training steps, and scoring, on a copy of the model.

    Args:
        model: The classifier that will train; neither it nor the random state is changed.
        batch: A real batch with labels, of about the mean size.
        compute: How to compute.
        params: The block `training`.

    Returns:
        Seconds that a step and the scoring of a review take.
    """
    with _trial(model, compute.device) as trial, compute.applied(trial):
        weights = [weight for weight in trial.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, fused=params.optimizer == "adamw_torch_fused")
        placed = {name: tensor.to(trial.device) for name, tensor in batch.items()}
        passes = best_seconds(lambda: _step(trial, placed, compute.dtype))
        optimizer.step()  # the first one makes its state
        update = best_seconds(lambda: (torch.nn.utils.clip_grad_norm_(weights, params.max_grad_norm), optimizer.step()))
        score = best_seconds(lambda: _score(trial.eval(), placed, compute.dtype))
    return Pace(passes * params.accumulation_steps + update, score / len(batch["labels"]))


@contextmanager
def _trial(model: PreTrainedModel, device: str) -> Iterator[PreTrainedModel]:
    with torch.random.fork_rng():
        yield copy.deepcopy(model).to(device).train()


def _few_rows(trial: PreTrainedModel, batch: Batch) -> Batch:
    one = {name: tensor[:1].to(trial.device) for name, tensor in batch.items()}
    rows = int(_TRIAL_SECONDS / best_seconds(lambda: _step(trial, one, "fp32")))
    return {name: tensor[: max(1, rows)].to(trial.device) for name, tensor in batch.items()}


def _set_threads(step: Callable[[], Any]) -> str:
    """Halve torch's threads for as long as that pays: a container may own fewer cores than it sees."""
    compared = []
    threads, seconds = torch.get_num_threads(), best_seconds(step)
    while threads > 1:
        torch.set_num_threads(threads // 2)
        fewer = best_seconds(step)
        compared.append(f"{threads} threads {fewer / seconds:.2f} times as fast as {threads // 2}")
        if fewer * _FEWER_THREADS_WORTHWHILE > seconds:
            break
        threads, seconds = threads // 2, fewer
    torch.set_num_threads(threads)
    return ", ".join(compared) or "1 thread"


def _choose_format(trial: PreTrainedModel, rows: Batch, params: TrainingParams) -> tuple[Dtype, str, str]:
    """Choose number format and attention together, for which attention is fastest hangs on the format.

    The usual one comes first, and what is as fast but for noise does not replace it. bf16 is taken only if the hidden
    states agree.
    """
    reasons = []
    precisions: list[Dtype] = ["fp32", "bf16"] if params.dtype == "auto" else [params.dtype]
    if params.dtype == "auto":
        # Bare products first: where a CPU only emulates bf16, a whole step in it could take a minute.
        products = bf16_products_gain(trial.config.hidden_size, trial.device)
        if products < 1:
            precisions.remove("bf16")
            reasons.append(f"bf16 products {products:.2f} times as fast as fp32")
    choices = [(dtype, attention) for dtype in precisions for attention in _attentions(trial, dtype, params.attention)]
    chosen = usual = choices[0]
    if len(choices) > 1:
        works = [partial(_step_with, attention, trial, rows, dtype) for dtype, attention in choices]
        seconds = dict(zip(choices, best_seconds_of(works), strict=True))
        error = _bf16_error(trial, rows) if len(precisions) > 1 else 0.0
        for choice in choices[1:]:
            dtype, attention = choice
            enough = _EAGER_WORTHWHILE if attention == "eager" != usual[1] else _WORTHWHILE
            if seconds[choice] * enough < seconds[chosen] and (dtype == "fp32" or error <= _BF16_BOUND):
                chosen = choice
        gains = [f"{' '.join(choice)} {seconds[usual] / seconds[choice]:.2f}" for choice in choices[1:]]
        reasons.append(f"{', '.join(gains)} times as fast as {' '.join(usual)}")
        if error:
            reasons.append(f"hidden states in bf16 differ by {error:.1%}")
    return *chosen, ", ".join(reasons)


def _attentions(trial: PreTrainedModel, dtype: Dtype, wanted: str) -> list[str]:
    """Names of the kinds of attention to compare, the usual one first, and that which needs most memory last."""
    usual = trial.config._attn_implementation
    if wanted != "auto":
        if usual == "eager" != wanted:
            raise UserError(f"training.attention is {wanted}, which this encoder does not support: take auto or eager")
        return [wanted]
    if usual == "eager":
        return [usual]
    in_fp32 = [SDPA_FP32] if dtype == "bf16" and trial.device.type == "cpu" else []
    return [usual, *in_fp32, "eager"]


def _bf16_error(trial: PreTrainedModel, rows: Batch) -> float:
    """Root mean square of the difference to fp32, as a share of the hidden states' own."""
    trial.eval()
    inputs = {name: tensor for name, tensor in rows.items() if name != "labels"}
    with torch.inference_mode():
        exact = trial.base_model(**inputs)[0]
        with computing_in(trial, "bf16"):
            rounded = trial.base_model(**inputs)[0]
    trial.train()
    return float((rounded.float() - exact).norm() / exact.norm())


def _step(trial: PreTrainedModel, rows: Batch, dtype: Dtype) -> None:
    trial.zero_grad()
    with computing_in(trial, dtype):
        loss = trial(**rows).loss
    loss.backward()


def _step_with(attention: str, trial: PreTrainedModel, rows: Batch, dtype: Dtype) -> None:
    usual = trial.config._attn_implementation
    trial.set_attn_implementation(attention)
    _step(trial, rows, dtype)
    trial.set_attn_implementation(usual)


def _score(trial: PreTrainedModel, rows: Batch, dtype: Dtype) -> None:
    with torch.inference_mode(), computing_in(trial, dtype):
        trial(**rows)
