"""Trainings that are killed go on as if nothing had happened."""

import signal
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from review_sentiment.datasets.checkpoints import Checkpoints
from review_sentiment.errors import UserError
from review_sentiment.pipelines.modeling.trainer import ReviewTrainer
from tests.conftest import UP_TO_MODELING

# Dropout draws random numbers in every step, and of 80 rows the last of four steps in an epoch gets only 8.
TRAINING = {
    "epochs": 4, "batch_size": 12, "accumulation_steps": 2, "hidden_dropout": 0.1, "attention_dropout": 0.1,
    "logging_steps": 3, "checkpoint_minutes": 0, "early_max_tokens": 12,
}  # fmt: skip


def weights(project, run: str) -> dict:
    return load_file(project.folder / f"data/06_models/classifier/{run}/classifier/model.safetensors")


def assert_same(project, one: str, other: str) -> None:
    """Two runs ended with the same weights, figures and rows of history, bit for bit."""
    first, second = weights(project, one), weights(project, other)
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []
    timed = ["seconds", "forecast_seconds", "resumed", "compute_reason"]
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
    for path in sorted(project.folder.glob("data/06_models/checkpoints/*/step-*")):
        found.setdefault(path.parent.name, []).append(int(path.name.removeprefix("step-")))
    return found


def test_a_killed_training_ends_as_if_it_had_not_been(finished, crash, caplog):
    whole = finished.run("modeling", training=TRAINING)
    assert checkpoints(finished) == {}

    killed = []
    for number, resume in ((8, False), (20, True)):  # after the first epoch, and in the last
        crash(number)
        with pytest.raises(RuntimeError, match="killed"):
            finished.run("modeling", training=TRAINING, resume=resume)
        killed.append(finished.load("manifest")["run"])
    assert checkpoints(finished) == {killed[0]: [3, 4], killed[1]: [13, 14]}

    crash(None)
    with pytest.raises(UserError) as error:
        finished.run(
            *UP_TO_MODELING, training={**TRAINING, "learning_rate": 2e-3}, subset={"seed": 7}, resume=killed[1]
        )
    assert "training.learning_rate was 0.01, and is 0.002\n  - train rows was" in str(error.value)

    tensors = finished.folder / f"data/06_models/checkpoints/{killed[1]}/step-000000014/tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    # Data engineering too, as by the same command: the refused run has left other splits.
    resumed = finished.run(*UP_TO_MODELING, training=TRAINING, resume=True)

    assert f"{tensors.parent} is damaged" in caplog.text
    assert_same(finished, whole, resumed)
    history = finished.load("history", resumed)
    assert set(history["resumed"]) == {f"at step 4 of run {killed[0]}, at step 13 of run {killed[1]}"}
    assert finished.load("manifest")["resumed"] == [{"run": killed[0], "step": 4}, {"run": killed[1], "step": 13}]
    assert checkpoints(finished) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adafactor", "group_by_length": False},
        {"optimizer": "sgd", "schedule": "cosine", "average_decay": 0, "learning_rate": 0.1},
        {"optimizer": "adamw_torch", "freeze_layers": 1, "gradient_checkpointing": True, "accumulation_steps": 1},
    ],
)
def test_so_it_does_by_any_recipe(project, crash, changes):
    training = {**TRAINING, **changes}
    project.run("data_engineering")
    whole = project.run("modeling", training=training)
    crash(17)
    with pytest.raises(RuntimeError, match="killed"):
        project.run("modeling", training=training)
    crash(None)
    assert_same(project, whole, project.run("modeling", training=training, resume=True))
    assert len(project.load("manifest")["resumed"]) == 1


@pytest.fixture
def keeper(tmp_path) -> Callable[..., Checkpoints]:
    return lambda run, resume=False: Checkpoints(tmp_path / "checkpoints", run, resume)


def test_a_checkpoint_is_read_as_it_was_written_and_the_last_two_are_kept(keeper, tmp_path):
    state = {"tensors": {"1": torch.arange(3), "none": torch.empty(0, 0)}, "rows": [{"loss": 0.1 + 0.2, "n": None}]}
    saved = keeper("a")
    for step in (1, 2, 10):
        saved.save(step, {**state, "best": float("inf")})
    assert [path.name for path in sorted((tmp_path / "checkpoints/a").iterdir())] == [
        "step-000000002",
        "step-000000010",
    ]
    saved.release()

    other = keeper("b", True)
    read = other.to_resume()
    assert other.newest_step() == 10  # of the run it goes on with; it has none of its own yet
    assert (read.run, read.step, read.state["rows"], read.state["best"]) == ("a", 10, state["rows"], float("inf"))
    assert {name: tensor.tolist() for name, tensor in read.state["tensors"].items()} == {"1": [0, 1, 2], "none": []}


def test_damage_anywhere_is_noticed(keeper, tmp_path):
    saved = keeper("a")
    saved.save(1, {"tensor": torch.ones(1)})
    saved.save(2, {"tensor": torch.ones(1)})
    saved.release()
    for path in (tmp_path / "checkpoints/a/step-000000002").iterdir():
        whole = path.read_bytes()
        for broken in (whole[:-1], whole + b" ", bytes([whole[0] ^ 1]) + whole[1:], b"", None):
            path.unlink() if broken is None else path.write_bytes(broken)
            again = keeper("b", True)
            assert again.to_resume().step == 1
            again.release()
        path.write_bytes(whole)
    (tmp_path / "checkpoints/a/step-000000001/SHA256SUMS").unlink()
    (tmp_path / "checkpoints/a/step-000000002/SHA256SUMS").unlink()
    with pytest.raises(
        UserError, match=r"all checkpoints of the run a are damaged: delete .*; without `resume` training st"
    ):
        keeper("b", True).to_resume()


def test_a_run_to_resume_is_named_by_its_beginning(keeper):
    with pytest.raises(UserError, match=r"no checkpoint to resume from in .*: without `resume` training starts over"):
        keeper("c", True).run_to_resume()
    alive = [keeper(run) for run in ("2026-01", "2026-02")]
    for one in alive:
        one.save(1, {"tensor": torch.ones(1)})

    assert keeper("c").run_to_resume() is None
    assert keeper("c", "2026-01").run_to_resume() == "2026-01"
    with pytest.raises(UserError, match=r"resume=2026 could be 2 runs \(2026-01, 2026-02\)"):
        keeper("c", "2026").run_to_resume()
    with pytest.raises(UserError, match=r"the run '2027' has no checkpoint \(2026-01, 2026-02 have\)"):
        keeper("c", "2027").run_to_resume()
    with pytest.raises(UserError, match="the run 2026-02 is still going on, or is being resumed"):
        keeper("c", "2026-02").to_resume()
    alive[0].release()
    assert keeper("c", True).run_to_resume() == "2026-01"  # the newer one is alive


def test_without_a_checkpoint_nothing_runs(project):
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        project.run(resume=True)
    assert project.versions() == set()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_an_interrupted_run_says_how_to_go_on(project, number, code, name):
    process = project.start(training={"epochs": 2000, "checkpoint_minutes": None})
    for line in process.stdout:
        if "step 20/" in line:
            process.send_signal(number)
            break
    *_, last = process.communicate(timeout=60)[0].splitlines()

    assert process.returncode == code
    (run,) = checkpoints(project)
    (step,) = checkpoints(project)[run]
    assert step >= 20
    message = f"interrupted by {name}; the same command with resume=true among its --params continues from step {step}"
    assert last == f"Error: {message}"
    manifest = project.load("manifest")
    assert (manifest["complete"], manifest["error"]) == (False, f"Interrupted: {message}")
    assert not (project.folder / "data/06_models/classifier").exists()


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(finished, caplog):
    (finished.folder / "data/06_models/checkpoints").write_text("in the way")
    finished.run("modeling", training={"epochs": 1, "checkpoint_minutes": 0})

    assert "No checkpoint could be written: " in caplog.text
    assert finished.load("metrics")["steps"] == 10
