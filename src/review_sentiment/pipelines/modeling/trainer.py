"""The Hugging Face Trainer as this project uses it: batches by length, a rate for the head, sorted validation."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainingArguments

from review_sentiment.metrics import headline_metrics, softmax
from review_sentiment.model.forward import TorchForward, score_layer
from review_sentiment.pipelines.modeling.batches import LengthBatches, SharedBatches, mean_loss
from review_sentiment.pipelines.modeling.callbacks import HealthWatch, History, KeepBest, SpeedCheck, WeightAverage
from review_sentiment.pipelines.modeling.checkpointing import Checkpointing, ResumableTrainer, Stateful
from review_sentiment.pipelines.modeling.plan import Clock, Schedule
from review_sentiment.pipelines.modeling.run import Planned
from review_sentiment.pipelines.modeling.temperature import calibrate


@dataclass(frozen=True)
class Parts:
    """What a training knows beside the model and the Trainer; a checkpoint keeps the state of each."""

    schedule: Schedule
    clock: Clock
    average: WeightAverage
    history: History
    health: HealthWatch
    best: KeepBest
    speed: SpeedCheck

    def by_name(self) -> dict[str, Stateful]:
        """Each part by its name."""
        return dict(vars(self))

    def callbacks(self) -> list[TrainerCallback]:
        """Those that the Trainer calls, in this order."""
        return [self.clock, self.average, self.history, self.health, self.best, self.speed]


class ReviewTrainer(ResumableTrainer):
    """The Trainer, with batches of similar length in random order, and validation sorted by length.

    The stock evaluation keeps the rows' order and pads each batch to its longest; sorting spares that padding, and the
    test rows and later inference go through the very same function.
    """

    def __init__(
        self, run: Planned, parts: Parts, checkpointing: Checkpointing, resumed: Mapping[str, Any] | None, folder: str
    ) -> None:
        super().__init__(
            checkpointing=checkpointing,
            resumed=resumed,
            model=run.model,
            args=training_arguments(run, folder),
            train_dataset=run.job.tokenized["train"],
            eval_dataset=run.job.tokenized["validation"],
            data_collator=run.batches.collate,
            compute_loss_func=mean_loss,
            callbacks=parts.callbacks(),
        )
        self._planned, self._parts = run, parts
        self.remove_callback(PrinterCallback)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Make the usual scheduler, with an end that can be moved."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        self._parts.schedule.drive(scheduler)
        return scheduler

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the usual optimizer, with a rate of its own for the last layer, which is new."""
        optimizer = super().create_optimizer(model)
        factor = self._planned.job.training.head_learning_rate_factor
        if factor == 1:
            return optimizer
        head = {id(weight) for weight in score_layer(self.model).parameters()}
        for group in list(optimizer.param_groups):
            moved = [weight for weight in group["params"] if id(weight) in head]
            if moved:
                group["params"] = [weight for weight in group["params"] if id(weight) not in head]
                optimizer.add_param_group({**group, "params": moved, "lr": group["lr"] * factor})
        return optimizer

    def training_step(self, model: PreTrainedModel, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take the usual step at the length of this step, and stop at a NaN loss before it reaches the weights."""
        health, plan = self._parts.health, self._parts.schedule.plan
        health.take_row_ids(inputs)
        max_tokens = self._planned.batches.max_length.at(self.state.global_step, plan)
        inputs |= self._planned.batches.pad(inputs["input_ids"], max_tokens)
        share = super().training_step(model, inputs, *args, **kwargs)
        loss = self._planned.workers.mean(share)
        health.check("loss", loss.item())
        return loss

    def _clip_grad_norm(self, model: PreTrainedModel) -> torch.Tensor:
        norm: torch.Tensor = super()._clip_grad_norm(model)
        self._parts.health.check("gradient norm", float(norm))
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # The plan as the run began: a resumed training must draw the same batches, also after a cut.
        max_tokens = partial(self._planned.batches.max_length.of_epoch, plan=self._parts.schedule.first_plan)
        lengths = self.train_dataset["length"][:]
        return LengthBatches(lengths, self.args.per_device_train_batch_size, self.args.seed, max_tokens)

    def get_train_dataloader(self) -> DataLoader:
        """Give each worker its share of every batch; accelerate's own way repeats rows to fill the last batch up."""
        loader = super().get_train_dataloader()
        workers = self._planned.workers
        if workers.count == 1:
            return loader
        # Only now, for the order of the rows must be the same for all: each worker has its own dropout.
        torch.manual_seed(self.args.seed + workers.rank)
        batches = SharedBatches(loader.batch_sampler.batch_sampler, workers)
        return DataLoaderShard(loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation split: loss, accuracy, F1, precision and recall, each prefixed `eval_`."""
        rows, label_id = self.eval_dataset["input_ids"][:], np.array(self.eval_dataset["label_id"])
        batch_size, workers = self.args.per_device_eval_batch_size, self._planned.workers
        with self._parts.average.applied(self.model):
            forward = TorchForward(self.model, self.model.config.pad_token_id, batch_size, self._planned.compute.dtype)
            logits = workers.gather(forward(workers.share(rows)), len(rows))
            self._parts.best.latest_logits = logits
            figures = {**headline_metrics(label_id, softmax(logits)), **calibrate(label_id, logits)}
            # All must choose the same epoch, though machines that differ may round differently.
            metrics = {f"eval_{name}": value for name, value in workers.of_first(figures).items()}
            self.log(metrics)
            self.control: TrainerControl = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
        return metrics


def training_arguments(run: Planned, folder: str) -> TrainingArguments:
    """The Trainer's arguments; the Trainer insists on a folder, where nothing is saved."""
    params, compute = run.job.training, run.compute
    arguments = TrainingArguments(
        output_dir=folder,
        use_cpu=compute.device == "cpu",
        seed=params.seed,
        max_steps=run.plan.steps,
        per_device_train_batch_size=compute.batch_size,
        per_device_eval_batch_size=compute.eval_batch_size,
        gradient_accumulation_steps=compute.accumulation_steps,
        optim=params.optimizer,
        learning_rate=params.learning_rate * run.learning_rate_scale,
        lr_scheduler_type=params.schedule,
        warmup_steps=run.plan.warmup_steps,
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
    # Of several devices the first, as the plan assumes; else the Trainer gives each of them a batch at a time.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
