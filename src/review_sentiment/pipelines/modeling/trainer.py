"""The Hugging Face Trainer as this project uses it: batches by length, a rate for the head, sorted validation."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, TrainerControl

from review_sentiment.distributed import Workers
from review_sentiment.metrics import headline_metrics, softmax
from review_sentiment.model.dtype import Dtype
from review_sentiment.model.forward import TorchForward, score_layer
from review_sentiment.pipelines.modeling.adversarial import WordAttack
from review_sentiment.pipelines.modeling.batches import LengthBatches, SharedBatches
from review_sentiment.pipelines.modeling.callbacks import KeepBest, WeightAverage
from review_sentiment.pipelines.modeling.checkpointing import ResumableTrainer
from review_sentiment.pipelines.modeling.clock import Schedule
from review_sentiment.pipelines.modeling.temperature import calibrate
from review_sentiment.pipelines.modeling.watch import Watch


class ReviewTrainer(ResumableTrainer):
    """The Trainer, with batches of similar length in random order, and validation sorted by length.

    The stock evaluation keeps the rows' order and pads each batch to its longest; sorting spares that padding, and the
    test rows and later inference go through the very same function.
    """

    def __init__(
        self,
        *,
        pad_id: int,
        dtype: Dtype,
        average: WeightAverage,
        schedule: Schedule,
        max_tokens: Callable[[int], int],
        attack: WordAttack | None,
        attacked_steps: int,
        head_factor: float,
        watch: Watch,
        best: KeepBest,
        workers: Workers,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._workers = workers
        self._pad_id, self._dtype, self._average, self._schedule = pad_id, dtype, average, schedule
        self._max_tokens, self._head_factor = max_tokens, head_factor
        self._watch, self._best = watch, best
        self._attack, self._attacked_steps = attack, attacked_steps
        self._readings = 1

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Make the usual scheduler, with an end that can be moved."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        self._schedule.drive(scheduler)
        return scheduler

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the usual optimizer, with a rate of its own for the last layer, which is new."""
        optimizer = super().create_optimizer(model)
        if self._head_factor == 1:
            return optimizer
        head = {id(weight) for weight in score_layer(self.model).parameters()}
        for group in list(optimizer.param_groups):
            moved = [weight for weight in group["params"] if id(weight) in head]
            if moved:
                group["params"] = [weight for weight in group["params"] if id(weight) not in head]
                optimizer.add_param_group({**group, "params": moved, "lr": group["lr"] * self._head_factor})
        return optimizer

    def training_step(self, model: PreTrainedModel, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Take the usual step, and stop at a loss that is no number, before it reaches the weights.

        A step that is attacked learns from the mean of two losses, and returns that of the batch as it is, which can be
        compared with validation's.
        """
        self._watch.take_row_ids(inputs)
        attack = self._attack if self.state.global_step < self._attacked_steps else None
        self._readings = 2 if attack else 1
        with attack.prepared() if attack else nullcontext():
            share = super().training_step(model, inputs, *args, **kwargs)
        loss = self._workers.mean(share * self._readings)
        self._watch.check("loss", loss.item())
        if attack:
            with attack.made():
                super().training_step(model, inputs, *args, **kwargs)
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the usual loss, as a share of the mean over all readings of the batch."""
        loss: torch.Tensor = super().compute_loss(*args, **kwargs)
        return loss / self._readings

    def _clip_grad_norm(self, model: PreTrainedModel) -> torch.Tensor:
        norm: torch.Tensor = super()._clip_grad_norm(model)
        self._watch.check("gradient norm", float(norm))
        return norm

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        lengths = self.train_dataset["length"][:]
        return LengthBatches(lengths, self.args.per_device_train_batch_size, self.args.seed, self._max_tokens)

    def get_train_dataloader(self) -> DataLoader:
        """Give each worker its share of every batch; accelerate's own way repeats rows to fill the last batch up."""
        loader = super().get_train_dataloader()
        if self._workers.count == 1:
            return loader
        # Only now, for the order of the rows must be the same for all: each worker has its own dropout.
        torch.manual_seed(self.args.seed + self._workers.rank)
        batches = SharedBatches(loader.batch_sampler.batch_sampler, self._workers)
        return DataLoaderShard(loader.dataset, batch_sampler=batches, collate_fn=loader.collate_fn)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation split: loss, accuracy, F1, precision and recall, each prefixed `eval_`."""
        rows, label_id = self.eval_dataset["input_ids"][:], np.array(self.eval_dataset["label_id"])
        batch_size = self.args.per_device_eval_batch_size
        with self._average.applied(self.model):
            forward = TorchForward(self.model, self._pad_id, batch_size, self._dtype)
            shares = self._workers.of_all(forward(self._workers.share(rows)))
            logits = np.empty((len(rows), shares[0].shape[1]), dtype=np.float32)
            for rank, share in enumerate(shares):
                logits[rank :: self._workers.count] = share
            self._best.latest_logits = logits
            figures = {**headline_metrics(label_id, softmax(logits)), **calibrate(label_id, logits)}
            # All must choose the same epoch, though machines that differ may round differently.
            return self._report(self._workers.of_first(figures))

    def _report(self, figures: dict[str, float]) -> dict[str, float]:
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
