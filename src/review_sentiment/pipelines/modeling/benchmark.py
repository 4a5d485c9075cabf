"""Measure in a few seconds, on the model itself, how this machine trains it fastest, and how long a step takes."""

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
from review_sentiment.model.timing import best_seconds, best_seconds_of, bf16_matmul_gain
from review_sentiment.params import TrainingParams
from review_sentiment.pipelines.modeling.plan import Pace

Batch = Mapping[str, torch.Tensor]
Choice = tuple[Dtype, str]  # dtype and attention

# A choice other than the default must gain this much, or noise would decide and runs would not repeat.
_WORTHWHILE = 1.1
# Plain attention must gain more, since it keeps the attention scores of every layer: gigabytes.
_EAGER_WORTHWHILE = 1.3
# Fewer threads must gain more: what keeps the other cores busy now may soon be over.
_FEWER_THREADS_WORTHWHILE = 1.3
# Half the threads can't be this much faster on cores of one's own, so another process is using them.
_IMPLAUSIBLE = 1.5
# bf16 has 8 significant bits; over an encoder's layers the errors add up to one or two percent of its hidden states.
_BF16_BOUND = 0.05
# The longest batches take more than the one that is measured.
_MEMORY_SHARE = 0.3
_SCORED_AT_MOST = 256
# Choices are compared on as many rows of a batch as make one step about this long.
_TRIAL_SECONDS = 0.25


@dataclass(frozen=True)
class ComputeSettings:
    """How this machine computes.

    Attributes:
        attention: transformers' name of the attention implementation.
        eval_batch_size: Reviews per forward pass when scoring.
        busy: Whether other processes used the cores while threads were compared.
    """

    device: str
    dtype: Dtype
    threads: int
    attention: str
    reason: str
    batch_size: int
    accumulation_steps: int
    eval_batch_size: int
    busy: bool = False

    @contextmanager
    def applied(self, model: PreTrainedModel) -> Iterator[None]:
        """Let torch and `model` compute with these settings inside the context."""
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
    """Choose a device; `auto` never takes MPS, since trainings on it have crashed.

    Raises:
        UserError: The machine has no such device.
    """
    if wanted == "auto":
        return "cuda" if cuda else "cpu"
    if not {"cpu": True, "cuda": cuda, "mps": mps}[wanted]:
        raise UserError(f"training.device is {wanted}, but PyTorch finds no such accelerator here: set auto or cpu")
    return wanted


def choose_compute(model: PreTrainedModel, batch: Batch, params: TrainingParams) -> ComputeSettings:
    """Choose threads, dtype and attention by timing training steps on a copy of the model.

    Args:
        model: The classifier to train; neither it nor the random state is changed.

    Raises:
        UserError: The encoder does not support the attention that is asked for.
    """
    busy, reasons = False, []
    threads = torch.get_num_threads() if params.threads == "auto" else params.threads
    with _trial(model, choose_device(params)) as trial, computing_threads(threads):
        rows = _few_rows(trial, batch)
        if params.threads == "auto" and trial.device.type == "cpu":
            threads, busy, reason = choose_threads(lambda: _step(trial, rows, "fp32"), threads)
            torch.set_num_threads(threads)
            reasons.append(reason)
        (dtype, attention), reason = _choose_dtype_and_attention(trial, rows, params)
        reasons.append(reason)
        sizes = params.batch_size, params.accumulation_steps, params.eval_batch_size
        if trial.device.type == "cuda":
            sizes = merge_passes(params, _row_bytes(trial, rows, dtype), torch.cuda.mem_get_info()[0])
        reason = ", ".join(filter(None, reasons))
        return ComputeSettings(trial.device.type, dtype, threads, attention, reason, *sizes, busy=busy)


def choose_threads(step: Callable[[], Any], threads: int, trust: bool = False) -> tuple[int, bool, str]:
    """Halve the threads for as long as that pays: a container may own fewer cores than it sees.

    Args:
        step: The work to time, in turn with each number of threads.

    Returns:
        The number of threads; whether the machine is too busy to tell, and the default was kept; what was measured.
    """

    def step_with(count: int) -> None:
        with computing_threads(count):
            step()

    compared = []
    while threads > 1:
        fewer = threads // 2
        works = [partial(step_with, threads), partial(step_with, fewer)]
        times = best_seconds_of(works)
        if times[0] >= _IMPLAUSIBLE * times[1]:  # once more: it may have been one unlucky second
            times = [min(pair) for pair in zip(times, best_seconds_of(works), strict=True)]
        gain = times[0] / times[1]
        compared.append(f"{threads} threads {1 / gain:.2f} times as fast as {fewer}")
        if gain >= _IMPLAUSIBLE and not trust:
            return threads, True, f"{', '.join(compared)}: the machine is busy, so {threads} are kept for now"
        if gain < _FEWER_THREADS_WORTHWHILE:
            break
        threads = fewer
    return threads, False, ", ".join(compared) or "1 thread"


def choose_threads_again(model: PreTrainedModel, batch: Batch, compute: ComputeSettings, most: int) -> tuple[int, str]:
    """Compare numbers of threads once more, with dtype and attention as they are; also what was measured."""
    with _trial(model, compute.device) as trial, computing_threads(most):
        rows = _few_rows(trial, batch)
        threads, _, reason = choose_threads(lambda: _step(trial, rows, compute.dtype), most, trust=True)
    return threads, reason


def merge_passes(params: TrainingParams, row_bytes: float, free_bytes: float) -> tuple[int, int, int]:
    """Take as few forward passes as memory allows, since an accelerator is idle in small ones.

    Args:
        params: The block `training`; an optimizer step sees as many reviews as it says.

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


def measure_pace(model: PreTrainedModel, batch: Batch, compute: ComputeSettings, params: TrainingParams) -> Pace:
    """Time whole training steps, and scoring, on a copy of the model.

    Args:
        model: The classifier to train; neither it nor the random state is changed.
        batch: A real batch with labels, of about the mean size.
    """
    with _trial(model, compute.device) as trial, compute.applied(trial):
        weights = [weight for weight in trial.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, fused=params.optimizer == "adamw_torch_fused")
        placed = {name: tensor.to(trial.device) for name, tensor in batch.items()}
        passes = best_seconds(lambda: _step(trial, placed, compute.dtype))
        optimizer.step()  # the first one makes its state
        update = best_seconds(lambda: (torch.nn.utils.clip_grad_norm_(weights, params.max_grad_norm), optimizer.step()))
        score = best_seconds(lambda: _score(trial.eval(), placed, compute.dtype))
    return Pace(passes * compute.accumulation_steps + update, score / len(batch["labels"]))


def pick(seconds: Mapping[Choice, float], bf16_error: float) -> Choice:
    """Pick the fastest of several ways to compute, among those that gain enough over the first, which is the default.

    Args:
        bf16_error: Difference that bf16 makes to hidden states, as a share of them.
    """
    default, *others = seconds
    chosen = default
    for choice in others:
        dtype, attention = choice
        enough = _EAGER_WORTHWHILE if attention == "eager" != default[1] else _WORTHWHILE
        if seconds[choice] * enough < seconds[chosen] and (dtype == "fp32" or bf16_error <= _BF16_BOUND):
            chosen = choice
    return chosen


def _choose_dtype_and_attention(trial: PreTrainedModel, rows: Batch, params: TrainingParams) -> tuple[Choice, str]:
    """Choose both together, since which attention is fastest depends on the dtype; also what was measured."""
    reasons = []
    dtypes: list[Dtype] = ["fp32", "bf16"] if params.dtype == "auto" else [params.dtype]
    if params.dtype == "auto":
        # Bare matmuls first: where a CPU only emulates bf16, a whole step in it could take a minute.
        gain = bf16_matmul_gain(trial.config.hidden_size, trial.device)
        if gain < 1:
            dtypes.remove("bf16")
            reasons.append(f"bf16 matmuls {gain:.2f} times as fast as fp32")
    choices = [(dtype, attention) for dtype in dtypes for attention in _attentions(trial, dtype, params.attention)]
    if len(choices) == 1:
        return choices[0], ", ".join(reasons)
    times = best_seconds_of([partial(_step_with, attention, trial, rows, dtype) for dtype, attention in choices])
    seconds = dict(zip(choices, times, strict=True))
    error = _bf16_error(trial, rows) if len(dtypes) > 1 else 0.0
    gains = [f"{' '.join(choice)} {times[0] / seconds[choice]:.2f}" for choice in choices[1:]]
    reasons.append(f"{', '.join(gains)} times as fast as {' '.join(choices[0])}")
    if error:
        reasons.append(f"hidden states in bf16 differ by {error:.1%}")
    return pick(seconds, error), ", ".join(reasons)


def _attentions(trial: PreTrainedModel, dtype: Dtype, wanted: str) -> list[str]:
    """Implementations to compare: the default first, and last the one that needs most memory."""
    default = trial.config._attn_implementation
    if wanted != "auto":
        if default == "eager" != wanted:
            raise UserError(f"training.attention is {wanted}, which this encoder does not support: take auto or eager")
        return [wanted]
    if default == "eager":
        return [default]
    in_fp32 = [SDPA_FP32] if dtype == "bf16" and trial.device.type == "cpu" else []
    return [default, *in_fp32, "eager"]


@contextmanager
def _trial(model: PreTrainedModel, device: str) -> Iterator[PreTrainedModel]:
    with torch.random.fork_rng():
        yield copy.deepcopy(model).to(device).train()


def _few_rows(trial: PreTrainedModel, batch: Batch) -> Batch:
    one = {name: tensor[:1].to(trial.device) for name, tensor in batch.items()}
    rows = int(_TRIAL_SECONDS / best_seconds(lambda: _step(trial, one, "fp32")))
    return {name: tensor[: max(1, rows)].to(trial.device) for name, tensor in batch.items()}


def _row_bytes(trial: PreTrainedModel, rows: Batch, dtype: Dtype) -> float:
    trial.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _step(trial, rows, dtype)
    return (torch.cuda.max_memory_allocated() - before) / len(rows["labels"])


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
    default = trial.config._attn_implementation
    trial.set_attn_implementation(attention)
    _step(trial, rows, dtype)
    trial.set_attn_implementation(default)


def _score(trial: PreTrainedModel, rows: Batch, dtype: Dtype) -> None:
    with torch.inference_mode(), computing_in(trial, dtype):
        trial(**rows)
