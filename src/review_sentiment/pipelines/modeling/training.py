"""One fine-tuning run from top to bottom: prepare, measure, plan, fit, finish.

Each step takes what the step before knew of the run, and returns it with more.
"""

import logging
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from transformers import set_seed

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.metrics import softmax
from review_sentiment.model.dtype import bf16_hidden_states
from review_sentiment.model.encoder import (
    Classifier,
    add_head,
    architecture_of,
    freeze_lowest,
    whole_text_tokenizer,
)
from review_sentiment.model.first_token import first_token_only
from review_sentiment.model.forward import TorchForward
from review_sentiment.params import TrainingParams
from review_sentiment.pipelines.modeling.batches import Batches, MaxLength
from review_sentiment.pipelines.modeling.benchmark import (
    ComputeSettings,
    choose_compute,
    choose_device,
    measure_pace,
)
from review_sentiment.pipelines.modeling.callbacks import (
    HealthWatch,
    History,
    KeepBest,
    ProgressBar,
    SpeedCheck,
    WeightAverage,
)
from review_sentiment.pipelines.modeling.checkpointing import Checkpointing, identity, refuse_another
from review_sentiment.pipelines.modeling.failures import DivergedError
from review_sentiment.pipelines.modeling.linear_probe import probe_rows, start_head
from review_sentiment.pipelines.modeling.plan import (
    Clock,
    Pace,
    Schedule,
    TimeBudget,
    TrainingPlan,
    fit_plan,
    plan_training,
)
from review_sentiment.pipelines.modeling.run import Job, Measured, Planned, Prepared, with_sizes
from review_sentiment.pipelines.modeling.temperature import scale_head
from review_sentiment.pipelines.modeling.trainer import Parts, ReviewTrainer

if TYPE_CHECKING:
    from review_sentiment.datasets.checkpoints import Checkpoints

logger = logging.getLogger(__name__)


def train(job: Job, checkpoints: "Checkpoints", workers: Workers) -> tuple[Classifier, pd.DataFrame]:
    """Fine-tune an encoder with a new head; the best epoch by validation is kept.

    Returns:
        The classifier, and the history: a row for the forecast, each logged step and each validation, with `step`,
        `epoch`, `seconds` since the start, `forecast_seconds` (of the whole run, as forecast then), `split`
        (`forecast`, `train` or `validation`), `loss`, `grad_norm`, `learning_rate`, `accuracy`, `f1`, `precision`,
        `recall`, `temperature` and `calibrated_loss` (the loss with it), `best` (true on the epoch that was kept),
        `planned_steps`, and how it was computed: `dtype`, `threads`, `attention`, `compute_reason`,
        `learning_rate_scale` (learning rates, by the parameter), `padding_share` (of all tokens of an epoch),
        `megabytes` (of the weights), `resumed` (at which steps of which runs).

    Raises:
        UserError: The schedule, the encoder or the time budget does not fit, or the training to resume was begun with
            other parameters or data.
        DivergedError: A loss became NaN or infinite; it carries the classifier of the best finished epoch.
    """
    prepared = prepare(job, checkpoints, workers)
    with first_token_only(prepared.model) if job.training.first_token_only else nullcontext():
        run = plan(measure(prepared))
        parts = fit(run)
    return finish(run, parts)


def prepare(job: Job, checkpoints: "Checkpoints", workers: Workers) -> Prepared:
    """Check that everything fits together, and build the model."""
    start = time.perf_counter()
    params, pretrained, tokenize = job.training, job.pretrained, job.tokenize
    same = identity(
        job.tokenized,
        pretrained.sha256,
        training=params.model_dump(mode="json", exclude={"checkpoint_minutes"}),
        tokenize=tokenize.model_dump(mode="json"),
        data={"label_names": job.label_names},
        machine={"device": choose_device(params)},
    )
    resumed = workers.of_first(checkpoints.to_resume() if workers.is_first else None)
    if resumed is not None:
        refuse_another(resumed, same)
    architecture_of(pretrained)  # refuses what has no width, for example
    pad_id = pretrained.tokenizer.pad_token_id
    if pad_id is None:
        raise UserError(f"the encoder '{pretrained.name}' has no padding token; use one that was made to read texts")
    max_length = MaxLength(params.early_max_tokens, tokenize, whole_text_tokenizer(pretrained.tokenizer))
    pads_to_limit = params.padding == "max_tokens"
    lengths = [tokenize.max_tokens] if pads_to_limit else job.tokenized["train"]["length"][:]
    sizes = len(job.tokenized["train"]), len(job.tokenized["validation"]), len(job.label_names)
    full_plan = plan_training(*sizes, params, max_length.early_cost(lengths))
    set_seed(params.seed)
    model = add_head(pretrained, job.label_names, params.pooling, params.hidden_dropout, params.attention_dropout)
    freeze_lowest(model, params.freeze_word_embeddings, params.freeze_layers)
    if params.gradient_checkpointing:  # here, and not by the Trainer, so that the forecast counts it
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False  # of keys and values, which only text generators keep; else a warning says so
    # Adam's rate of hidden weights falls with 1 / width: Yang et al. 2022, arXiv 2203.03466, table 3.
    scale = (params.learning_rate_width or model.config.hidden_size) / model.config.hidden_size
    batches = Batches(max_length, pad_id, pads_to_limit)
    return Prepared(job, workers, checkpoints, resumed, same, start, model, batches, scale, full_plan)


def measure(run: Prepared) -> Measured:
    """Choose how to compute, start the head, and time a step.

    All workers measure at once, since they may share a machine, and what the first one finds counts for all. A resumed
    training takes what was found before: measured again, it could differ, and so would the weights.
    """
    params, workers = run.job.training, run.workers
    if run.resumed is not None:
        compute = ComputeSettings(**run.resumed.state["compute"])
    else:
        compute = workers.of_first(choose_compute(run.model, run.typical_batch(params)[0], params))
    sized = with_sizes(params, compute)
    batch, padding_share = run.typical_batch(sized)
    if run.resumed is not None:
        pace = Pace(**run.resumed.state["pace"])
    else:
        if params.head_start == "linear_probe":
            _start_head(run, sized, compute)
        pace = workers.of_first(measure_pace(run.model, batch, compute, sized))
    logger.info("Computing in %s, threads: %d (%s)", compute.dtype, compute.threads, compute.reason)
    return Measured(**vars(run), compute=compute, pace=pace, padding_share=padding_share)


def plan(run: Measured) -> Planned:
    """Settle the steps: all of them, or as many as the time budget allows."""
    if run.resumed is not None:
        steps = TrainingPlan(**run.resumed.state["plan"])
    else:
        rows = len(run.job.tokenized["train"]), len(run.job.tokenized["validation"])
        spent = run.workers.of_first(time.perf_counter() - run.start)
        steps = fit_plan(run.full_plan, *rows, run.pace, run.job.training, spent)
    return Planned(**vars(run), plan=steps)


def fit(run: Planned) -> Parts:
    """Train to the last step; returns what is worth knowing of it.

    Raises:
        DivergedError: A loss became NaN or infinite.
    """
    params, workers = run.job.training, run.workers
    schedule = Schedule(run.plan)
    clock = Clock(run.pace, schedule, len(run.job.tokenized["validation"]), run.start)
    history = History(clock)
    learning_rate = params.learning_rate * run.learning_rate_scale
    parts = Parts(
        schedule=schedule,
        clock=clock,
        average=WeightAverage(params.average_decay),
        history=history,
        health=HealthWatch(history, len(run.job.label_names), run.job.diagnosis, learning_rate, workers),
        best=KeepBest(params),
        speed=SpeedCheck(run.compute, run.pace, params, lambda: run.typical_batch(run.sized_params)[0], clock, workers),
    )
    if run.resumed is not None:
        logger.info("Resuming at step %d of run %s", run.resumed.step, run.resumed.run)
        for name, part in parts.by_name().items():
            part.restore(run.resumed.state[name])
    _log_plan(run, clock)
    begun = {name: asdict(getattr(run, name)) for name in ("compute", "pace", "plan")} | {"identity": run.identity}
    minutes = params.checkpoint_minutes if workers.is_first else None
    checkpointing = Checkpointing(run.checkpoints, parts.by_name(), begun, clock, minutes)
    bar = ProgressBar(clock)
    with (
        run.compute.applied(run.model),
        bf16_hidden_states(run.model),
        tempfile.TemporaryDirectory() as folder,
    ):
        resumed = run.resumed.state["trainer"] if run.resumed else None
        trainer = ReviewTrainer(run, parts, checkpointing, resumed, folder)
        trainer.add_callback(bar)
        if params.time_budget_minutes is not None:
            trainer.add_callback(TimeBudget(params.time_budget_minutes, clock, schedule, workers))
        try:
            trainer.run()
        except DivergedError as error:
            raise error.keep(_classifier(run, parts) if parts.best.weights else None) from None
        finally:
            bar.stop()
    return parts


def finish(run: Planned, parts: Parts) -> tuple[Classifier, pd.DataFrame]:
    """Put the best epoch into the classifier, and the run into its history."""
    classifier = _classifier(run, parts)
    history, best, compute = pd.DataFrame(parts.history.rows), parts.best, classifier.settings["compute"]
    seconds, forecast = history["seconds"].iloc[-1], history["forecast_seconds"].iloc[0]
    logger.info(
        "Kept epoch %d; fine-tuning took %.1f minutes, the forecast was %.1f",
        *(best.epoch, seconds / 60, forecast / 60),
    )
    history["best"] = (history["split"] == "validation") & (history["step"] == best.step)
    return classifier, history.assign(
        dtype=compute["dtype"],
        threads=compute["threads"],
        attention=compute["attention"],
        compute_reason=compute["reason"],
        learning_rate_scale=run.learning_rate_scale,
        padding_share=run.padding_share,
        megabytes=run.model.get_memory_footprint() / 1e6,
        resumed=", ".join(f"at step {before['step']} of run {before['run']}" for before in run.checkpoints.resumed),
    )


def _start_head(run: Prepared, params: TrainingParams, compute: ComputeSettings) -> None:
    """Start the head as a linear probe on the untrained encoder's features, of which each worker computes a share."""
    train_rows, workers, max_length = run.job.tokenized["train"], run.workers, run.batches.max_length
    label_id = np.array(train_rows["label_id"])
    chosen = probe_rows(label_id, params.seed)
    logger.info("Fitting the new last layer to the untrained encoder on %s reviews", f"{len(chosen):,}")
    own = train_rows.select(workers.share(chosen.tolist()))["input_ids"]
    token_ids = [max_length.cut(ids, max_length.early) for ids in own]
    model = run.model.to(compute.device)
    with compute.applied(model):
        forward = TorchForward(model, model.config.pad_token_id, params.eval_batch_size, compute.dtype)
        features = forward.head_inputs(token_ids)
    accuracy = start_head(model, workers.gather(features, len(chosen)), label_id[chosen])
    logger.info("The linear probe reaches %.1f%% accuracy on them, and training starts from it", 100 * accuracy)


def _classifier(run: Planned, parts: Parts) -> Classifier:
    """The best epoch, with calibrated logits, and how confident and how right it was on the validation rows."""
    best, pretrained, model = parts.best, run.job.pretrained, run.model
    model.load_state_dict(best.weights, strict=False)  # the others are frozen, and have not changed
    scale_head(model, best.temperature)
    proba = softmax(best.logits / best.temperature)
    label_id = np.array(run.job.tokenized["validation"]["label_id"])
    settings = {
        "encoder": pretrained.name,
        "encoder_sha256": pretrained.sha256,
        "tokenize": run.job.tokenize.model_dump(mode="json"),
        "compute": asdict(replace(run.compute, threads=parts.speed.threads, reason=parts.speed.reason)),
        "best_epoch": best.epoch,
        "temperature": best.temperature,
        # What the threshold of a confident answer is chosen from, wherever the classifier is used.
        "validation": {
            "confidence": proba.max(axis=1).round(6).tolist(),
            "correct": (proba.argmax(axis=1) == label_id).tolist(),
        },
    }
    pretrained.tokenizer.model_max_length = run.job.tokenize.scoring_max_tokens
    return Classifier(model.cpu().eval(), pretrained.tokenizer, settings)


def _log_plan(run: Planned, clock: Clock) -> None:
    steps, max_length = run.plan, run.batches.max_length
    learning_rate = run.job.training.learning_rate * run.learning_rate_scale
    weights = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    logger.info(
        "Fine-tuning %.1f M parameters for %d steps of %d reviews (%d an epoch, %.1f%% of the tokens padding); learning"
        " rate rises for %d steps to %.2e",
        *(sum(weight.numel() for weight in weights) / 1e6, steps.steps),
        *(run.compute.batch_size * run.compute.accumulation_steps, steps.steps_per_epoch, 100 * run.padding_share),
        *(steps.warmup_steps, learning_rate * steps.peak_share),
    )
    if steps.early_steps and steps.early_cost < 1:
        logger.info(
            "Until the last epoch reviews are cut to %d tokens, which leaves %.0f%% of all",
            *(max_length.early, 100 * steps.early_cost),
        )
    logger.info(
        "Forecast: %.1f minutes, %.1f of them for validation, at %.2f s a step",
        *(clock.remaining(0) / 60, clock.validation_left / 60, clock.step_seconds),
    )
    if steps.warmup_steps >= steps.steps:
        logger.warning(
            "Warm-up (%d steps) is not shorter than the run (%d): the learning rate rises to the end and reaches %.2e"
            " instead of %.2e, and never decays",
            *(steps.warmup_steps, steps.steps, learning_rate * steps.peak_share, learning_rate),
        )
