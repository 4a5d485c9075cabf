"""Fine-tuning with the Hugging Face Trainer."""

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PrinterCallback, TrainingArguments, set_seed

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.metrics import softmax
from review_sentiment.model.dtype import bf16_hidden_states
from review_sentiment.model.encoder import (
    Classifier,
    Pretrained,
    add_head,
    architecture_of,
    collate,
    freeze_lowest,
    whole_text_tokenizer,
)
from review_sentiment.model.first_token import first_token_only
from review_sentiment.model.forward import head_inputs
from review_sentiment.params import DiagnosisParams, TokenizeParams, TrainingParams
from review_sentiment.pipelines.modeling.adversarial import WordAttack
from review_sentiment.pipelines.modeling.batches import ReadLength, preview_batches
from review_sentiment.pipelines.modeling.callbacks import History, KeepBest, ProgressBar, WeightAverage
from review_sentiment.pipelines.modeling.checkpointing import (
    Checkpointing,
    Stateful,
    identity,
    refuse_another,
)
from review_sentiment.pipelines.modeling.clock import Clock, Schedule, TimeBudget
from review_sentiment.pipelines.modeling.linear_probe import probe_rows, start_head
from review_sentiment.pipelines.modeling.plan import Pace, TrainingPlan, fit_plan, plan_training, scale_learning_rate
from review_sentiment.pipelines.modeling.probe import ComputeSettings, choose_compute, choose_device, measure_pace
from review_sentiment.pipelines.modeling.temperature import cool_head
from review_sentiment.pipelines.modeling.trainer import ReviewTrainer
from review_sentiment.pipelines.modeling.watch import DivergedError, Watch, with_row_ids

if TYPE_CHECKING:
    from review_sentiment.datasets.checkpoints import Checkpoint, Checkpoints

Collator = Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]

logger = logging.getLogger(__name__)

_IGNORED = -100  # a label that cross entropy and the Trainer's count of rows leave out


def train(
    tokenized: Mapping[str, Any],
    label_names: Sequence[str],
    pretrained: Pretrained,
    params: TrainingParams,
    tokenize: TokenizeParams,
    diagnosis: DiagnosisParams,
    checkpoints: "Checkpoints",
    workers: Workers,
) -> tuple[Classifier, pd.DataFrame]:
    """Fine-tune an encoder with a new head; the best epoch by validation is kept.

    Args:
        tokenized: Splits `train` and `validation` with `input_ids`, `length` and `label_id`.
        label_names: Class names in the order of label_id.
        pretrained: The encoder.
        params: The block `training`.
        tokenize: The block `tokenize`, kept with the classifier so that new texts are read the same way.
        diagnosis: From where on a bad sign is told while it trains.
        checkpoints: Keeps what is needed to go on after a crash, and has what is needed to do so now.
        workers: Those that train together; each calls this function with the same arguments, and gets the same.

    Returns:
        The classifier, and the history: a row for the forecast, for each logged step and for each validation, with
        `step`, `epoch`, `seconds` since the start, `forecast_seconds` (of the whole run, as foreseen at that time),
        `split` (`forecast`, `train` or `validation`), `loss`, `grad_norm`, `learning_rate`, `accuracy`, `f1`,
        `precision`, `recall`, `temperature` (of each validation; the kept epoch's is in the classifier, while `loss`
        is without it), `calibrated_loss` (with it), `best` (true on the epoch that was kept), `planned_steps`, and how
        it was computed: `dtype`, `threads`, `attention`, `compute_reason` (what was measured),
        `learning_rate_scale` (learning rates, by the parameter), `padding_share` (of all tokens of an epoch),
        `megabytes` (of the weights), `resumed` (at which steps of which runs).

    Raises:
        UserError: The schedule, the encoder or the time budget does not fit, or the training that should go on was
            begun with other parameters or data.
        DivergedError: A number became NaN or infinite; it carries the classifier of the best finished epoch.
    """
    start = time.perf_counter()
    rows = len(tokenized["train"]), len(tokenized["validation"])
    same = identity(
        tokenized,
        pretrained.sha256,
        training=params.model_dump(mode="json", exclude={"checkpoint_minutes"}),
        tokenize=tokenize.model_dump(mode="json"),
        data={"label_names": label_names},
        machine={"device": choose_device(params)},
    )
    resumed = workers.of_first(checkpoints.to_resume() if workers.is_first else None)
    if resumed is not None:
        refuse_another(resumed, same)
    architecture_of(pretrained)  # refuses what has no width, for example
    given_rate = params.learning_rate
    params = scale_learning_rate(params, pretrained.config.hidden_size)
    reading = ReadLength(params.early_max_tokens, tokenize, whole_text_tokenizer(pretrained.tokenizer))
    to_length = tokenize.max_tokens if params.padding == "max_tokens" else None
    lengths = tokenized["train"]["length"][:]
    early_cost = reading.early_cost(lengths if to_length is None else [to_length])
    plan = plan_training(*rows, len(label_names), params, early_cost * _early_readings(params))
    collator = _collator(pretrained, reading, to_length is not None)
    set_seed(params.seed)
    model = add_head(pretrained, label_names, params.pooling, params.hidden_dropout, params.attention_dropout)
    freeze_lowest(model, params.freeze_word_embeddings, params.freeze_layers)
    if params.gradient_checkpointing:  # here, and not by the Trainer, so that the forecast counts it
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False  # of keys and values, which only text generators keep; else a warning says so
    with first_token_only(model) if params.first_token_only else nullcontext():

        def typical_batch(params: TrainingParams) -> tuple[dict[str, torch.Tensor], float]:
            typical, padding = preview_batches(lengths, params, to_length)
            return collator([tokenized["train"][row] for row in workers.share(typical)]), padding

        batch, padding = typical_batch(params)
        # All measure at once, since they may share a machine; what the first one finds counts for all. Measured again
        # by a resumed training, it could come out otherwise, and so would the weights.
        if resumed is None:
            compute = workers.of_first(choose_compute(model, batch, params))
        else:
            compute = ComputeSettings(**resumed.state["compute"])
        sized = _with_sizes(params, compute)
        if sized != params:
            params = sized
            batch, padding = typical_batch(params)
        if resumed is None:
            if params.head_start == "linear_probe":
                _probe(model, tokenized["train"], params, reading, compute, workers)
            pace = workers.of_first(measure_pace(model, batch, compute, params))
            plan = fit_plan(plan, *rows, pace, params, workers.of_first(time.perf_counter() - start))
        else:
            pace, plan = Pace(**resumed.state["pace"]), TrainingPlan(**resumed.state["plan"])
        logger.info("Computing in %s, threads: %d (%s)", compute.dtype, compute.threads, compute.reason)
        clock = Clock(pace, plan, rows[1], start)
        reading.follow(plan)
        _log_plan(plan, params, model, clock, padding)
        logged, best = History(clock), KeepBest(params)
        watch = Watch(logged, len(label_names), diagnosis, params, workers)
        begun = {"identity": same, "compute": asdict(compute), "pace": asdict(pace), "plan": asdict(plan)}
        label_id = np.array(tokenized["validation"]["label_id"])
        try:
            with compute.applied(model), bf16_hidden_states(model):
                _run(
                    model, tokenized, collator, params, plan, reading, compute, (clock, logged, watch, best),
                    checkpoints, begun, resumed, workers,
                )  # fmt: skip
        except DivergedError as error:
            rescued = _classifier(model, best, pretrained, tokenize, compute, label_id) if best.weights else None
            raise error.keep(rescued) from None
    classifier = _classifier(model, best, pretrained, tokenize, compute, label_id)
    history = pd.DataFrame(logged.rows)
    seconds, forecast = history["seconds"].iloc[-1], history["forecast_seconds"].iloc[0]
    logger.info(
        "Kept epoch %d; fine-tuning took %.1f minutes, the forecast was %.1f",
        *(best.epoch, seconds / 60, forecast / 60),
    )
    history["best"] = (history["split"] == "validation") & (history["step"] == best.step)
    history = history.assign(
        dtype=compute.dtype, threads=compute.threads, attention=compute.attention,
        compute_reason=compute.reason, learning_rate_scale=params.learning_rate / given_rate, padding_share=padding,
        megabytes=model.get_memory_footprint() / 1e6,
        resumed=", ".join(f"at step {before['step']} of run {before['run']}" for before in checkpoints.resumed),
    )  # fmt: skip
    return classifier, history


def _probe(
    model: PreTrainedModel,
    train_rows: Any,
    params: TrainingParams,
    reading: ReadLength,
    compute: ComputeSettings,
    workers: Workers,
) -> None:
    """Start the head along a logistic regression on the untrained encoder's answers; the workers share the rows."""
    label_id = np.array(train_rows["label_id"])
    chosen = probe_rows(label_id, params.seed)
    logger.info("Fitting the new last layer to the untrained encoder on %s reviews", f"{len(chosen):,}")
    token_ids = [
        reading.cut(ids, reading.early) for ids in train_rows.select(workers.share(chosen.tolist()))["input_ids"]
    ]
    with compute.applied(model.to(compute.device)):
        inputs = head_inputs(model, token_ids, model.config.pad_token_id, params.eval_batch_size, compute.dtype)
    shared = np.empty((len(chosen), inputs.shape[1]), dtype=np.float32)
    for rank, share in enumerate(workers.of_all(inputs)):
        shared[rank :: workers.count] = share
    right = start_head(model, shared, label_id[chosen])
    logger.info("A logistic regression has %.1f%% of them right, and training starts in its direction", 100 * right)


def _early_readings(params: TrainingParams) -> int:
    """How often an epoch before the last reads each batch."""
    return 1 if params.adversarial_distance is None else 2


def _with_sizes(params: TrainingParams, compute: ComputeSettings) -> TrainingParams:
    names = ("batch_size", "accumulation_steps", "eval_batch_size")
    return params.model_copy(update={name: getattr(compute, name) for name in names})


def _classifier(
    model: PreTrainedModel,
    best: KeepBest,
    pretrained: Pretrained,
    tokenize: TokenizeParams,
    compute: ComputeSettings,
    label_id: np.ndarray,
) -> Classifier:
    """The best epoch, with calibrated scores, and how sure and how right it was on the validation rows."""
    model.load_state_dict(best.weights, strict=False)  # the others are frozen, and have not changed
    cool_head(model, best.temperature)
    proba = softmax(best.logits / best.temperature)
    settings = {
        "encoder": pretrained.name,
        "encoder_sha256": pretrained.sha256,
        "tokenize": tokenize.model_dump(mode="json"),
        "compute": asdict(compute),
        "best_epoch": best.epoch,
        "temperature": best.temperature,
        # What a threshold for "sure enough" is chosen from, wherever the classifier is used.
        "validation": {
            "confidence": proba.max(axis=1).round(6).tolist(),
            "correct": (proba.argmax(axis=1) == label_id).tolist(),
        },
    }
    pretrained.tokenizer.model_max_length = tokenize.scoring_max_tokens
    return Classifier(model.cpu().eval(), pretrained.tokenizer, settings)


def _collator(pretrained: Pretrained, reading: ReadLength, pads_to_limit: bool) -> Collator:
    pad_id = pretrained.tokenizer.pad_token_id
    if pad_id is None:
        raise UserError(f"the encoder '{pretrained.name}' has no padding token; use one that was made to read texts")

    def collate_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        # A worker without a share of a batch computes with the others nevertheless, who wait for its gradients.
        rows = rows or [{"input_ids": [pad_id], "label_id": _IGNORED}]
        labels = torch.tensor([row["label_id"] for row in rows])
        token_ids = [reading.cut(row["input_ids"], reading.now) for row in rows]
        return {**collate(token_ids, pad_id, reading.now if pads_to_limit else None), "labels": labels}

    return collate_rows


def _run(
    model: PreTrainedModel,
    tokenized: Mapping[str, Any],
    collator: Collator,
    params: TrainingParams,
    plan: TrainingPlan,
    reading: ReadLength,
    compute: ComputeSettings,
    watchers: tuple[Clock, History, Watch, KeepBest],
    checkpoints: "Checkpoints",
    begun: Mapping[str, Any],
    resumed: "Checkpoint | None",
    workers: Workers,
) -> None:
    """Train; what is worth knowing of it stays in the watchers."""
    average, schedule = WeightAverage(params), Schedule(plan.steps)
    clock, history, watch, best = watchers
    parts: dict[str, Stateful] = {
        "clock": clock, "schedule": schedule, "average": average, "history": history, "watch": watch, "best": best,
    }  # fmt: skip
    if resumed is not None:
        logger.info("Resuming at step %d of run %s", resumed.step, resumed.run)
        for name, part in parts.items():
            part.restore(resumed.state[name])
    bar = ProgressBar(clock)
    callbacks = [reading, clock, average, history, watch, best, bar]
    if params.time_budget_minutes is not None:
        callbacks.append(TimeBudget(60 * params.time_budget_minutes, clock, schedule, workers))
    # The Trainer insists on a folder of its own; nothing is saved there, since the best weights stay in memory.
    with tempfile.TemporaryDirectory() as folder:
        trainer = ReviewTrainer(
            model=model,
            args=_arguments(params, plan, compute, folder),
            train_dataset=tokenized["train"],
            eval_dataset=tokenized["validation"],
            data_collator=with_row_ids(collator),
            compute_loss_func=_mean_loss,
            callbacks=callbacks,
            average=average,
            schedule=schedule,
            max_tokens=reading.of_epoch,
            attack=WordAttack(model, params.adversarial_distance) if params.adversarial_distance else None,
            attacked_steps=plan.early_steps,
            head_factor=params.head_learning_rate_factor,
            watch=watch,
            best=best,
            pad_id=model.config.pad_token_id,
            dtype=compute.dtype,
            workers=workers,
            checkpointing=Checkpointing(
                checkpoints, parts, begun, clock, params.checkpoint_minutes if workers.is_first else None
            ),
            resumed=resumed.state["trainer"] if resumed else None,
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.run()
        finally:
            bar.stop()


def _mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """The part of the optimizer step's mean loss that these rows are.

    Without it the encoders' own loss is taken, the mean over one forward pass, and transformers (5.24) takes it for a
    share of the step: with accumulation, or several workers, loss and gradients came out as many times too large.
    """
    loss = torch.nn.functional.cross_entropy(outputs.logits, labels, ignore_index=_IGNORED, reduction="sum")
    return loss / num_items_in_batch


def _arguments(params: TrainingParams, plan: TrainingPlan, compute: ComputeSettings, folder: str) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=folder,
        use_cpu=compute.device == "cpu",
        seed=params.seed,
        max_steps=plan.steps,
        per_device_train_batch_size=params.batch_size,
        per_device_eval_batch_size=params.eval_batch_size,
        gradient_accumulation_steps=params.accumulation_steps,
        optim=params.optimizer,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.schedule,
        warmup_steps=plan.warmup_steps,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        bf16=compute.dtype == "bf16",
        train_sampling_strategy="group_by_length" if params.group_by_length else "random",
        logging_steps=params.logging_steps,
        logging_nan_inf_filter=False,  # its default turns a NaN into the loss of the step before
        eval_strategy="epoch",
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    # Of several devices the first, as the plan counts on; else the Trainer gives each of them a batch at a time.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def _log_plan(plan: TrainingPlan, params: TrainingParams, model: torch.nn.Module, clock: Clock, padding: float) -> None:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    logger.info(
        "Fine-tuning %.1f M parameters for %d steps of %d reviews (%d a pass, %.1f%% of the tokens padding); learning"
        " rate rises for %d steps to %.2e",
        *(sum(weight.numel() for weight in weights) / 1e6, plan.steps, params.batch_size * params.accumulation_steps),
        *(plan.steps_per_epoch, 100 * padding, plan.warmup_steps, plan.peak_learning_rate),
    )
    early_share = plan.early_cost / _early_readings(params)
    if plan.early_steps and early_share < 1:
        logger.info(
            "Before the last pass at most %d tokens of a review are read, %.0f%% of all",
            *(params.early_max_tokens, 100 * early_share),
        )
    if plan.early_steps and params.adversarial_distance:
        logger.info(
            "Before the last pass each batch is read twice: as it is, and with its word vectors moved against the model"
        )
    left = clock.remaining(0, plan.steps)
    logger.info(
        "Forecast: %.1f minutes, %.1f of them for validation, at %.2f s a step",
        *(left / 60, clock.validation_left(plan.steps) / 60, clock.step_seconds),
    )
    if plan.warmup_steps >= plan.steps:
        logger.warning(
            "Warm-up (%d steps) is not shorter than the run (%d): the learning rate rises to the end and reaches %.2e"
            " instead of %.2e, and never decays",
            *(plan.warmup_steps, plan.steps, plan.peak_learning_rate, params.learning_rate),
        )
