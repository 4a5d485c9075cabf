"""Fine-tuning with the Hugging Face Trainer."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerControl, TrainingArguments, set_seed

from review_sentiment.encoder import Classifier, Precision, Pretrained, add_head, collate, predict_logits
from review_sentiment.errors import UserError
from review_sentiment.metrics import headline_metrics, softmax
from review_sentiment.params import TokenizeParams, TrainingParams
from review_sentiment.pipelines.modeling.batches import LengthBatches
from review_sentiment.pipelines.modeling.callbacks import History, KeepBest, ProgressBar, WeightAverage
from review_sentiment.pipelines.modeling.plan import TrainingPlan, plan_training, scale_learning_rate
from review_sentiment.pipelines.modeling.precision import choose_device, choose_precision

logger = logging.getLogger(__name__)


class ReviewTrainer(Trainer):
    """The Trainer, with batches of similar length in random order, and validation sorted by length.

    The stock evaluation keeps the rows' order and pads each batch to its longest; sorting spares that padding, and the
    test rows and later inference go through the very same function.
    """

    def __init__(self, *, pad_id: int, precision: Precision, average: WeightAverage, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._pad_id, self._precision, self._average = pad_id, precision, average

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = self.train_dataset["length"][:]
        return LengthBatches(lengths, self.args.per_device_train_batch_size, self.args.seed)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation split: loss, accuracy, F1, precision and recall, each prefixed `eval_`."""
        rows = self.eval_dataset
        with self._average.applied(self.model):
            logits = predict_logits(
                self.model, rows["input_ids"][:], self._pad_id, self.args.per_device_eval_batch_size, self._precision
            )
            return self._report(headline_metrics(np.array(rows["label_id"]), softmax(logits)))

    def _report(self, figures: dict[str, float]) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(
    tokenized: Mapping[str, Any],
    label_names: Sequence[str],
    pretrained: Pretrained,
    params: TrainingParams,
    tokenize: TokenizeParams,
) -> tuple[Classifier, pd.DataFrame]:
    """Fine-tune an encoder with a new head; the best epoch by validation is kept.

    Args:
        tokenized: Splits `train` and `validation` with `input_ids`, `length` and `label_id`.
        label_names: Class names in the order of label_id.
        pretrained: The encoder.
        params: The block `training`.
        tokenize: The block `tokenize`, kept with the classifier so that new texts are read the same way.

    Returns:
        The classifier, and the history: one row for each logged step and each validation with `step`, `epoch`,
        `seconds` since the start, `split`, `loss`, `grad_norm`, `learning_rate`, `accuracy`, `f1`, `precision`,
        `recall`, and `best` (true on the epoch that was kept).

    Raises:
        UserError: The schedule or the encoder does not fit, or training diverged.
    """
    params = scale_learning_rate(params, pretrained.config.hidden_size)
    plan = plan_training(len(tokenized["train"]), len(tokenized["validation"]), len(label_names), params)
    pad_id = pretrained.tokenizer.pad_token_id
    if pad_id is None:
        raise UserError(f"the encoder '{pretrained.name}' has no padding token; use one that was made to read texts")
    set_seed(params.seed)
    model = add_head(pretrained, label_names, params.hidden_dropout, params.attention_dropout)
    device = choose_device(params)
    precision, reason = choose_precision(params.precision, model.config.hidden_size, device)
    _log_plan(plan, params, model, f"{precision} on {device} ({reason})")
    history, best, bar, average = History(params), KeepBest(params), ProgressBar(), WeightAverage(params)
    to_length = tokenize.max_tokens if params.padding == "max_tokens" else None
    # The Trainer insists on a folder of its own; nothing is saved there, since the best weights stay in memory.
    with tempfile.TemporaryDirectory() as folder:
        trainer = ReviewTrainer(
            model=model,
            args=_arguments(params, precision, device, folder),
            train_dataset=tokenized["train"],
            eval_dataset=tokenized["validation"],
            data_collator=lambda rows: {
                **collate([row["input_ids"] for row in rows], pad_id, to_length),
                "labels": torch.tensor([row["label_id"] for row in rows]),
            },
            callbacks=[average, history, best, bar],
            average=average,
            pad_id=pad_id,
            precision=precision,
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        finally:
            bar.stop()
    model.load_state_dict(best.weights)
    rows = pd.DataFrame(history.rows)
    rows["best"] = (rows["split"] == "validation") & (rows["step"] == best.step)
    kept = rows[rows["best"]].iloc[0]
    logger.info("Kept epoch %d of %d: validation accuracy %.4f", round(kept.epoch), params.epochs, kept.accuracy)
    settings = {
        "encoder": pretrained.name,
        "encoder_sha256": pretrained.sha256,
        "tokenize": tokenize.model_dump(mode="json"),
        "precision": precision,
        "precision_reason": reason,
        "best_epoch": round(kept.epoch),
    }
    pretrained.tokenizer.model_max_length = tokenize.max_tokens
    return Classifier(model.cpu().eval(), pretrained.tokenizer, settings), rows


def _arguments(params: TrainingParams, precision: Precision, device: str, folder: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        use_cpu=device == "cpu",
        seed=params.seed,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_size,
        per_device_eval_batch_size=params.eval_batch_size,
        gradient_accumulation_steps=params.accumulation_steps,
        optim=params.optimizer,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.schedule,
        warmup_steps=params.warmup_steps,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        # The name since transformers 5; the old one warns.
        activation_checkpointing=params.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if params.gradient_checkpointing else None,
        bf16=precision == "bf16",
        train_sampling_strategy="group_by_length" if params.group_by_length else "random",
        logging_steps=params.logging_steps,
        logging_nan_inf_filter=False,  # its default turns a NaN into the loss of the step before
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _log_plan(plan: TrainingPlan, params: TrainingParams, model: torch.nn.Module, number_format: str) -> None:
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    logger.info(
        "Fine-tuning %.1f M parameters for %d steps (%d epochs of %d) in %s; learning rate rises for %d steps to %.2e",
        *(millions, plan.steps, params.epochs, plan.steps_per_epoch, number_format, plan.warmup_steps),
        plan.peak_learning_rate,
    )
    if plan.warmup_steps >= plan.steps:
        logger.warning(
            "Warm-up (%d steps) is not shorter than the run (%d): the learning rate rises to the end and reaches %.2e"
            " instead of %.2e, and never decays",
            *(plan.warmup_steps, plan.steps, plan.peak_learning_rate, params.learning_rate),
        )
