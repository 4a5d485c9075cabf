"""`kedro predict`, as a user types it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from review_sentiment.cli import cli


def predict(*arguments: str, given: bytes | str = ""):
    done = CliRunner().invoke(cli, ["predict", *arguments], input=given)
    assert "Traceback" not in done.output
    return done


def fails(*arguments: str, given: bytes | str = "") -> str:
    done = predict(*arguments, given=given)
    assert done.exit_code == 1
    assert done.stderr.count("Error: ") == 1
    return done.stderr


def test_test_reviews_get_the_probabilities_that_were_evaluated(trained):
    predictions = trained.load("predictions")
    texts = list(trained.load("splits")["test"]["text"])

    done = predict("--json", given="\n".join(texts))

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["label"] for row in rows] == list(predictions["predicted"])
    np.testing.assert_allclose([row["proba"]["positive"] for row in rows], predictions["proba_positive"], atol=1e-5)
    assert {row["run"] for row in rows} == {trained.first}
    assert all(set(row) == {"label", "proba", "confident", "seen_share", "run"} for row in rows)


def test_texts_are_answered_in_words(trained):
    long = "lovely " * 60
    done = predict("a superb lovely film", f"dreadful\x1b[31m <b>{long}</b>", "--run", trained.first[:-3])

    assert done.exit_code == 0, done.output
    first, second, last = done.stdout.splitlines()
    assert first.startswith("positive  ")
    assert first.endswith("%  not sure  a superb lovely film")  # 20 validation rows make no threshold
    assert "dreadful[31m lovely" in second  # what a terminal would obey is taken off
    assert second.endswith("…  (saw 49% of it)")  # 32 of 65 tokens
    accuracy = (trained.load("predictions")["predicted"] == trained.load("predictions")["label"]).mean()
    assert last.startswith(
        f"Answered by run {trained.first}, computed by torch: {accuracy:.1%} accuracy on 20 test reviews ("
    )


def test_mistakes_are_one_message(trained):
    assert "text 2 holds nothing to read" in fails("fine", " <br> ")
    assert "line 2 of the input holds nothing to read" in fails(given="fine\n\nfine\n")
    assert "line 1 of the input is not valid UTF-8" in fails(given=b"sch\xf6n\n")
    assert "text 2 is not valid UTF-8" in fails("fine", os.fsdecode(b"sch\xf6n"))
    assert "standard input holds no text" in fails()
    assert "begins with '2999'" in fails("fine", "--run", "2999")


def test_without_a_classifier_it_says_how_to_make_one(project):
    assert "there is no classifier yet: `kedro run` makes one" in fails("fine")


@pytest.mark.slow
def test_a_terminal_without_input_gets_the_usage():
    code = (
        "import pty, os, sys; parent, child = pty.openpty(); os.dup2(child, 0);"
        "from review_sentiment.cli import cli; cli(['predict'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Usage: " in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_kedro_gives_scripts_nothing_but_json(trained):
    command = [sys.executable, "-m", "kedro", "predict", "--json", "superb"]
    done = subprocess.run(command, cwd=trained.folder, capture_output=True, text=True, timeout=100, check=True)
    assert json.loads(done.stdout)["label"] == "positive"


def test_it_works_below_the_project(trained, monkeypatch):
    below = trained.folder / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    assert predict("superb").stdout.startswith("positive  ")
