"""Real runs of a tiny encoder that go wrong in the known ways, and one that goes well."""

import pytest

from tests.conftest import make_corpus

SIZES = {"train_rows": 160, "validation_rows": 40, "test_rows": 400}


def diagnose(project, **params) -> dict:
    project.run(**params)
    return {finding["name"]: finding for finding in project.load("diagnosis")["findings"]}


def shuffle(corpus, share: float):
    """Give a share of the rows the other label."""
    chosen = corpus.sample(frac=share, random_state=1).index
    corpus.loc[chosen, "label"] = corpus.loc[chosen, "label"].map({"negative": "positive", "positive": "negative"})
    return corpus


def test_a_healthy_run_has_no_bad_sign(project):
    make_corpus(600).to_csv(project.folder / "reviews.csv", index=False)

    found = diagnose(project, subset=SIZES, training={"epochs": 3})
    assert {finding["severity"] for finding in found.values()} == {"good"}
    readiness = project.load("readiness")
    # TF-IDF has every word of so simple a corpus, and can't be beaten.
    assert [check["name"] for check in readiness["checks"] if not check["passed"]] == ["above_baseline"]


def test_a_learning_rate_of_1_explodes(project, caplog):
    found = diagnose(project, training={"learning_rate": 1.0})

    assert found["loss_exploding"]["severity"] == "bad"
    assert found["learning_rate_high"]["severity"] == "bad"
    told = [record.getMessage() for record in caplog.records if record.name.endswith("modeling.watch")]
    assert sum("training explodes" in message for message in told) == 1
    assert not project.load("readiness")["ready"]


def test_a_learning_rate_of_1e_7_is_not_learning(project, caplog):
    found = diagnose(project, training={"learning_rate": 1e-7, "head_start": "random"})

    assert "the model is not learning" in found["learning_rate_low"]["title"]
    assert found["loss_flat"]["severity"] == found["chance"]["severity"] == "bad"
    assert sum("training loss is flat" in record.getMessage() for record in caplog.records) == 1


def test_shuffled_labels_are_called_chance(project):
    corpus = make_corpus(600)
    corpus["label"] = corpus["label"].sample(frac=1, random_state=0).to_numpy()
    corpus.to_csv(project.folder / "reviews.csv", index=False)

    found = diagnose(project, subset=SIZES)
    assert found["chance"]["severity"] == "bad"
    assert "labels that do not fit the texts" in found["chance"]["causes"][-3]


@pytest.mark.parametrize(
    "logging_steps", [pytest.param(5, marks=pytest.mark.slow), 20]
)  # 13 steps an epoch: a logged row may cover more than one
def test_many_epochs_on_100_reviews_overfit_and_the_epoch_is_named(project, logging_steps):
    shuffle(make_corpus(200), 0.15).to_csv(project.folder / "reviews.csv", index=False)

    found = diagnose(
        project,
        subset={"train_rows": 100, "validation_rows": 40, "test_rows": 40},
        training={"epochs": 20, "learning_rate": 3e-3, "logging_steps": logging_steps},
    )
    history = project.load("history")
    losses = history.loc[history["split"] == "validation", "loss"].reset_index(drop=True)
    assert found["overfitting"]["title"] == f"Overfitting since epoch {losses.idxmin() + 2}."
    assert f"training.epochs={losses.idxmin() + 1}" in found["overfitting"]["try"]
