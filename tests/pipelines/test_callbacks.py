from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer, TrainerControl, TrainerState

from review_sentiment.distributed import Workers
from review_sentiment.errors import UserError
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.modeling.callbacks import HealthWatch, WeightAverage
from review_sentiment.pipelines.modeling.failures import out_of_memory_explained


def test_the_average_is_a_plain_mean_at_first_and_then_forgets_old_weights():
    average = WeightAverage(0.5)
    model = torch.nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    seen = []
    for step, value in enumerate([4.0, 2.0, 9.0, 0.0], start=1):
        model.weight.data.fill_(value)
        average.on_step_end(None, TrainerState(global_step=step), TrainerControl(), model=model)
        with average.applied(model):
            seen.append(model.weight.item())
    assert seen == [4.0, 3.0, 6.0, 3.0]  # half way to each next value
    assert model.weight.item() == 0.0

    slow = WeightAverage(0.99)
    for step, value in enumerate([4.0, 2.0, 9.0], start=1):
        model.weight.data.fill_(value)
        slow.on_step_end(None, TrainerState(global_step=step), TrainerControl(), model=model)
    with slow.applied(model):
        assert model.weight.item() == pytest.approx(5.0)  # each step counts once


@pytest.fixture
def break_at(monkeypatch):
    """Let the loss, or the gradients, of one step become NaN or infinite."""

    def arrange(step: int, gradients: bool) -> None:
        usual = Trainer.training_step

        def broken(self, model, inputs, *args, **kwargs):
            loss = usual(self, model, inputs, *args, **kwargs)
            if self.state.global_step + 1 != step:
                return loss
            if gradients:
                next(model.parameters()).grad[0, 0] = float("inf")
                return loss
            return loss * float("nan")

        monkeypatch.setattr(Trainer, "training_step", broken)

    return arrange


@pytest.mark.parametrize(("gradients", "name"), [(False, "the loss became nan"), (True, "the gradient norm became ")])
def test_a_nan_stops_training_at_its_step_and_keeps_the_best_epoch(finished, break_at, gradients, name):
    break_at(23, gradients)  # between two logged steps, in the third epoch

    with pytest.raises(UserError, match=name) as error:
        finished.run("modeling")
    message = str(error.value)
    assert "at step 23, on the reviews " in message
    named = message.partition("on the reviews ")[2].partition(":")[0].split(", ")
    assert len(named) == 8
    assert set(named) <= set(finished.load("splits")["train"]["row_id"])
    assert "lower training.learning_rate (now 0.01)" in message
    kept = finished.load("rescued_classifier")
    assert f"The classifier of epoch {kept.settings['best_epoch']} is kept as rescued_classifier" in message
    assert kept.settings["best_epoch"] in (1, 2)
    assert all(torch.isfinite(weight).all() for weight in kept.model.parameters())
    for name in ("06_models/classifier", "07_model_output/metrics.json"):
        assert [path.name for path in (finished.folder / "data" / name).iterdir()] == [finished.first]
    assert not finished.load("manifest")["complete"]


def test_nothing_is_kept_of_a_run_without_a_finished_epoch(finished, break_at):
    break_at(3, gradients=False)

    with pytest.raises(UserError, match=r"at step 3, .* No epoch was finished, so nothing is kept\."):
        finished.run("modeling")
    models = finished.folder / "data/06_models"
    assert [path.relative_to(models).as_posix() for path in models.glob("*/*")] == [f"classifier/{finished.first}"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("MPS backend out of memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_out_of_memory_says_what_to_lower(raw, error):
    parameters = parse_parameters(raw)
    words = r"lower training.batch_size \(now 16.*tokenize.max_tokens \(now 384\)"
    with pytest.raises(UserError, match=words), out_of_memory_explained(parameters.training, parameters.tokenize):
        raise error


def test_other_errors_stay_as_they_are(raw):
    parameters = parse_parameters(raw)
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained(parameters.training, None):
        raise RuntimeError("shapes do not match")


def test_each_sign_is_logged_once_as_it_appears(raw, caplog):
    parameters = parse_parameters(raw)
    history = SimpleNamespace(rows=[{"split": "forecast", "step": 0, "forecast_seconds": 100.0}])
    watch = HealthWatch(history, 2, parameters.diagnosis, 1e-4, Workers())

    def log(**row):
        history.rows.append({"forecast_seconds": 100.0, **row})
        watch.on_log(None, TrainerState(), TrainerControl())
        return [record.getMessage() for record in caplog.records]

    for step, norm in ((10, 150.0), (20, 300.0)):
        assert not log(split="train", step=step, loss=0.5, grad_norm=norm)
    assert log(split="train", step=30, loss=0.5, grad_norm=200.0) == [
        "Step 30: gradients explode (norm 200.0): lower training.learning_rate"
    ]
    log(split="train", step=40, loss=0.4, grad_norm=200.0, forecast_seconds=300.0)
    log(split="validation", step=40, loss=0.4, calibrated_loss=0.39, accuracy=0.8, recall=0.8)
    log(split="train", step=80, loss=0.1, grad_norm=5.0)
    calibrated = {"split": "validation", "step": 80, "loss": 0.6, "calibrated_loss": 0.38}
    assert not [line for line in log(**calibrated, accuracy=0.8, recall=0.8) if "overfitting" in line]
    logged = log(**calibrated | {"calibrated_loss": 0.4}, accuracy=0.8, recall=0.8)
    assert logged[1:] == [
        "Step 40: far slower than forecast: 5.0 minutes instead of 1.7",
        "Step 80: overfitting since epoch 2: validation loss rises while training falls",
    ]
