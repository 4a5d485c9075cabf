"""Trainings that are killed go on as if nothing had happened."""

import pandas as pd
import pytest
from safetensors.torch import load_file

from review_sentiment.pipelines.modeling.training import ReviewTrainer

# Dropout draws random numbers in every step, and 16 rows of 80 make the last step of each epoch a short one.
TRAINING = {
    "epochs": 4, "batch_size": 8, "accumulation_steps": 2, "hidden_dropout": 0.1, "attention_dropout": 0.1,
    "logging_steps": 3, "checkpoint_minutes": 0,
}  # fmt: skip


def weights(project, run: str) -> dict:
    return load_file(project.folder / f"data/06_models/classifier/{run}/classifier/model.safetensors")


def assert_same(project, one: str, other: str) -> None:
    """Two runs ended with the same weights, figures and rows of history, bit for bit."""
    first, second = weights(project, one), weights(project, other)
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []
    timed = ["seconds", "forecast_seconds", "resumed", "engine_reason"]
    pd.testing.assert_frame_equal(
        project.load("history", one).drop(columns=timed), project.load("history", other).drop(columns=timed)
    )
    pd.testing.assert_frame_equal(project.load("predictions", one), project.load("predictions", other))


@pytest.fixture
def crash(monkeypatch):
    """Let the training crash in a forward pass, counted from 1."""
    real, counted = ReviewTrainer.training_step, [0]

    def at(number: int | None) -> None:
        counted[0] = 0

        def step(self, *args, **kwargs):
            counted[0] += 1
            if counted[0] == number:
                raise RuntimeError("killed")
            return real(self, *args, **kwargs)

        monkeypatch.setattr(ReviewTrainer, "training_step", step)

    return at


def checkpoints(project) -> dict[str, list[int]]:
    found = {}
    for path in sorted(project.folder.glob("data/06_models/checkpoints/*/*")):
        found.setdefault(path.parent.name, []).append(int(path.name.removeprefix("step-")))
    return found


@pytest.mark.parametrize("grouped", [True, False])
def test_a_killed_training_ends_as_if_it_had_not_been(project, crash, grouped):
    training = {**TRAINING, "group_by_length": grouped}
    whole = project.run(training=training)
    assert checkpoints(project) == {}

    killed = []
    for number, resume in ((8, False), (17, True)):  # in the first epoch, and in the third
        crash(number)
        with pytest.raises(RuntimeError, match="killed"):
            project.run(training=training, resume=resume)
        killed.append(project.load("manifest")["run"])
    assert checkpoints(project) == {killed[0]: [2, 3], killed[1]: [10, 11]}
    crash(None)
    resumed = project.run(training=training, resume=True)

    assert_same(project, whole, resumed)
    history = project.load("history", resumed)
    assert set(history["resumed"]) == {f"at step 3 of run {killed[0]}, at step 11 of run {killed[1]}"}
    assert project.load("manifest")["resumed"] == [{"run": killed[0], "step": 3}, {"run": killed[1], "step": 11}]
    assert checkpoints(project) == {}
