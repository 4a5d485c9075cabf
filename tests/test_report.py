"""The report in a real browser, the model card, the terminal, and the texts that they share."""

import copy
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest
from kedro.framework.session import KedroSession
from rich.console import Console

from review_sentiment.datasets.files import ParquetDataset
from review_sentiment.datasets.report import ModelCardDataset
from review_sentiment.headline import figure_text, headline_rows
from review_sentiment.params import parse_parameters
from review_sentiment.pipelines.reporting import figures
from review_sentiment.pipelines.reporting.advice import advice_of, next_steps, reproduce_commands
from review_sentiment.pipelines.reporting.card import write_model_card
from review_sentiment.pipelines.reporting.report import (
    build_report,
    epoch_rows,
    escape_markdown,
    mistake_lists,
    summarize,
)
from review_sentiment.terminal import show_results
from tests.conftest import copy_of

HOSTILE = "<script>document.title='owned'</script> [/i] {{ 7 * 7 }} </script><b>&amp;</b> `x` | y"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_no_browser = pytest.mark.skipif(BROWSER is None, reason="needs Chromium on the PATH: apt-get install chromium")


def needs_browser(test: Callable) -> Callable:
    """Each look at a page starts a browser, which takes seconds."""
    return pytest.mark.slow(_no_browser(test))


def open_page(page: Path, folder: Path, *flags: str) -> str:
    """What a browser made of a page after its scripts ran; requests are logged and answered by nobody."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
         f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}",
         "--virtual-time-budget=10000", "--dump-dom", *flags, page.as_uri()],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    return done.stdout


def requests_of_the_page(folder: Path) -> set[str]:
    """Requests to a network; those that Chromium makes for itself have no page as their origin."""
    events = json.loads((folder / "net.json").read_text("utf-8"))["events"]
    made = [event["params"] for event in events if event.get("params", {}).get("url", "").startswith("http")]
    return {params["url"] for params in made if params.get("initiator", "not an origin") != "not an origin"}


@pytest.fixture(scope="module")
def reported(whole_run):
    """The whole run that all tests share, with what its report was made of; only to be read."""
    made = copy.copy(whole_run)
    names = ("evaluation", "diagnosis", "readiness", "metrics", "data_profile")
    made.results = {name: made.load(name) for name in names}
    made.history, made.mistakes = made.load("history"), made.load("mistakes")
    made.ledger, made.run_info = made.load("run_ledger"), made.load("manifest")
    made.predictions, made.splits = made.load("predictions"), made.load("splits")
    made.page = made.folder / f"data/08_reporting/report.html/{made.first}/report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        yield made


def card_of(reported, results: dict | None = None, **run_info: object) -> str:
    """The text of the model card, with some of the results or of what the run is changed."""
    changed = {**reported.run_info, **run_info}
    return write_model_card(results or reported.results, reported.predictions, reported.splits, changed)["text"]


def classify_as_the_card_says(card: str, folder: Path) -> Callable:
    """Run the card's example; returns the classifier that it makes."""
    names: dict = {}
    example = re.search(r"```python\n(.*?)```", card, re.DOTALL).group(1)
    exec(example.replace("FOLDER_OF_THIS_FILE", str(folder)), names)
    return names["classify"]


@pytest.fixture(scope="module")
def second_report(whole_run, tmp_path_factory):
    """The same, and a report on its run, whose model card was gone by then; only to be read."""
    made = copy_of(whole_run, tmp_path_factory.mktemp("second_report") / "project")
    made.card = made.folder / f"data/06_models/classifier/{made.first}/classifier/README.md"
    made.card.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made.folder)
        done = made.command("--pipelines", "reporting", "--params", f"encoder={made.encoder},training.epochs=2")
    assert done.exit_code == 0, done.output
    made.second, made.shown = max(made.versions()), done.output
    return made


@needs_browser
def test_the_page_draws_every_figure_dark_or_light_and_asks_no_network(reported, tmp_path):
    colors = {}
    for scheme in (0, 1):  # dark, light
        folder = tmp_path / str(scheme)
        dom = open_page(reported.page, folder, f"--blink-settings=preferredColorScheme={scheme}")
        drawn = re.findall(r'<div class="plot js-plotly-plot"[^>]*id="figure-(\w+)"', dom)
        assert drawn == [
            "loss", "accuracy", "grad_norm", "learning_rate", "confusion", "slices", "calibration", "roc",
            "precision_recall",
        ]  # fmt: skip
        assert dom.count('class="main-svg"') >= len(drawn)
        assert requests_of_the_page(folder) == set()
        colors[scheme] = int(re.search(r'class="xtick".*?fill: rgb\((\d+)', dom).group(1))
    assert colors[0] > 200 > 60 > colors[1]


@needs_browser
def test_a_page_that_asks_a_network_would_be_noticed(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="https://example.org/x.png">', "utf-8")
    open_page(page, tmp_path)

    assert requests_of_the_page(tmp_path) == {"https://example.org/x.png"}


@needs_browser
def test_hostile_texts_are_shown_as_text(reported, tmp_path):
    evaluation = reported.results["evaluation"]
    results = json.loads(json.dumps(reported.results).replace('"positive"', json.dumps(HOSTILE)))
    results["evaluation"]["slices"][0]["value"] = HOSTILE
    mistakes = reported.mistakes.assign(text=HOSTILE, style=HOSTILE)
    page = tmp_path / "page.html"
    page.write_text(
        build_report(results, reported.history, mistakes, reported.ledger, reported.run_info), encoding="utf-8"
    )
    dom = open_page(page, tmp_path)

    title = re.search(r"<title>(.*?)</title>", dom).group(1)
    assert title.startswith(figure_text("accuracy", evaluation["headline"][0]["value"]))
    assert dom.count('class="plot js-plotly-plot"') == 9
    cells = re.findall(r'<td role="cell" class="text">(.*?)</td>', dom)
    assert len(cells) == len(mistakes) > 0
    assert {unescape(cell) for cell in cells} == {HOSTILE}
    assert dom.count("<script") == page.read_text("utf-8").count("<script")
    assert not re.search(r"<b>&amp;", dom.split("<script")[0])


def test_the_page_is_small_and_names_no_other_source(reported):
    html = reported.page.read_text("utf-8")

    assert reported.page.stat().st_size < 6e6
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", own)
    assert "default-src 'none'" in own
    headings = [int(level) for level in re.findall(r"<h([1-6])", own)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings) if after != 4)
    assert own.count("<table") == own.count("<thead")


def test_the_page_and_the_summary_begin_with_the_verdict(reported):
    sentence = reported.results["readiness"]["sentence"]
    html, summary = reported.page.read_text("utf-8"), reported.load("summary")

    body = unescape(html[html.index("<body") :])
    assert body.index(sentence) < body.index("What to do next") < body.index("How training went")
    assert summary.startswith(f"**{escape_markdown(sentence)}**")
    assert summary.index("95 % interval") < summary.index("What to do next") < summary.index("Trained on")


def test_kedro_viz_shows_the_verdict_instead_of_the_page(reported):
    with KedroSession.create(reported.folder) as session:
        catalog = session.load_context().catalog

    preview = catalog.get("report").preview()
    assert reported.results["readiness"]["sentence"] in unescape(preview)
    assert f"report.html/{reported.first}/report.html" in preview
    assert len(preview) < 2000
    assert catalog.get("model_card").preview().lstrip().startswith("# Sentiment of reviews")


def test_kedro_viz_shows_long_reviews_shortened(reported, tmp_path):
    dataset = ParquetDataset(filepath=str(tmp_path / "mistakes.parquet"))
    dataset.save(reported.mistakes.assign(text="word " * 100))

    table = dataset.preview(nrows=3)
    assert len(table["data"]) == 3
    assert {len(row[table["columns"].index("text")]) for row in table["data"]} == {81}


def test_the_model_card_lies_with_the_classifier_and_the_hub_reads_it(reported):
    from huggingface_hub import ModelCard

    folder = reported.folder / f"data/06_models/classifier/{reported.first}/classifier"
    card = ModelCard.load(folder / "README.md")
    accuracy = next(row for row in card.data.eval_results if row.metric_type == "accuracy")
    assert accuracy.metric_value == round(reported.results["evaluation"]["headline"][0]["value"], 4)
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "text-classification")
    assert (card.data.base_model, card.data.license) == (None, "unknown")  # nothing is known of a folder's encoder
    assert reported.run_info["local_inputs"] == ["reviews", "encoder"]
    assert str(reported.folder) not in card.content
    assert str(reported.encoder) not in card.content

    parameters = {**reported.run_info["parameters"], "encoder": "minilm"}
    data = ModelCard(card_of(reported, parameters=parameters, local_inputs=["reviews"])).data
    assert (data.base_model, data.license, data.language) == (
        "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0", "en",
    )  # fmt: skip


def test_the_model_card_shows_hostile_names_and_runs_nothing(reported):
    hostile = "<img src=x onerror=alert(1)>"
    results = json.loads(json.dumps(reported.results).replace('"positive"', json.dumps(hostile)))
    parameters = {**reported.run_info["parameters"], "encoder": "owner/name@0123abc", "reviews": f"{hostile}.csv"}
    card = card_of(reported, results, parameters=parameters, local_inputs=["reviews"])

    assert "base_model: owner/name\n" in card
    text = card.split("---\n", 2)[2]
    assert "onerror" in text
    assert "<img" not in re.sub(r"`[^`\n]*`", "", text)  # code is shown as it is


def test_the_cards_example_runs_on_long_reviews(reported):
    folder = reported.folder / f"data/06_models/classifier/{reported.first}/classifier"
    classify = classify_as_the_card_says((folder / "README.md").read_text("utf-8"), folder)

    most = reported.run_info["parameters"]["tokenize"]["scoring_max_tokens"]
    words = "lovely film " * 2500
    (long,) = classify(words)
    (same,) = classify(" ".join(words.split()[: most - 2]))  # beside the two special tokens
    assert long == same


def test_the_card_quotes_only_the_samples_reviews_and_only_correct_answers(reported):
    test = reported.splits["test"].to_pandas()
    assert not [text for text in test["text"] if text in card_of(reported)]  # anyone's reviews may be private

    sample = {**reported.run_info["parameters"], "reviews": "data/01_raw/sample_reviews.csv"}
    card = card_of(reported, parameters=sample)
    ((text, label),) = re.findall(r"^classify\('(.*)'\)\n# (\w+): the shortest of", card, re.MULTILINE)
    folder = reported.folder / f"data/06_models/classifier/{reported.first}/classifier"
    assert classify_as_the_card_says(card, folder)(text)[0]["label"] == label
    correct = reported.predictions.query("label == predicted").merge(test[["row_id", "text"]], on="row_id")
    assert dict(zip(correct["text"], correct["label"], strict=True))[text] == label
    assert len(text) == correct["text"].str.len().min()


def test_the_card_says_where_this_project_reads_other_tokens(reported):
    def card(truncation: str) -> str:
        parameters = reported.run_info["parameters"]
        return card_of(
            reported, parameters={**parameters, "tokenize": {**parameters["tokenize"], "truncation": truncation}}
        )

    assert "the first 32 tokens of a longer one. Without it" in card("head")
    assert "; the metrics above are those of reading its end. Without it" in card("tail")
    assert "; the metrics above are those of reading its beginning and its end. Without it" in card("head_tail")


def test_a_report_on_an_earlier_run_puts_the_card_there(second_report):
    assert second_report.card.is_file()
    folder = second_report.folder / "data/06_models/classifier"
    assert [path.name for path in folder.iterdir()] == [second_report.first]


def test_no_card_is_left_where_a_classifier_is_gone(tmp_path):
    folder = tmp_path / "classifier"
    folder.mkdir()
    ModelCardDataset(filepath=str(folder)).save({"classifier_run": "2026-01-01T00.00.00.000Z", "text": "x"})
    assert list(folder.iterdir()) == []  # a folder with a card would look like a classifier


def test_a_report_on_an_earlier_run_knows_which_and_how_it_was_made(reported, second_report):
    assert (reported.run_info["classifier_run"], reported.run_info["classifier_from"]) == (reported.first, None)
    assert reported.run_info["command_parameters"]["training.epochs"] == 6

    manifest, first = second_report.load("manifest"), second_report.first
    assert (manifest["run"], manifest["classifier_run"]) == (second_report.second, first)
    assert manifest["pipelines"] == ["reporting"]
    assert manifest["versions_read"]["metrics"] == first
    assert manifest["classifier_from"]["parameters"]["training"]["epochs"] == 6
    assert manifest["parameters"]["training"]["epochs"] == 2


def test_the_terminal_shows_the_results_of_a_run_that_made_them(second_report, project, capsys):
    shown = second_report.shown
    assert "95 % interval" in shown
    place = f"data/08_reporting/report.html/{second_report.second}/report.html"
    assert shown.replace("\n", "").endswith(f"Report: {place}")

    project.run("data_engineering")
    assert "95 % interval" not in capsys.readouterr().out


def test_the_terminal_quotes_names_as_they_are(reported):
    console = Console(width=100, record=True)
    readiness = {**reported.results["readiness"], "sentence": "Not ready: [/i] [bold]x"}
    show_results(console, reported.results["evaluation"], readiness, "a" * 150)

    text = console.export_text()
    assert "Not ready: [/i] [bold]x" in text
    assert "a" * 150 in text


def test_three_classes_are_reported_without_two_class_curves(project, corpus):
    three = corpus.copy()
    three.loc[::4, "label"] = "mixed"
    three.to_csv(project.folder / "reviews.csv", index=False)
    run = project.run(
        data={"label_names": "negative/mixed/positive", "min_rows_per_class": 5},
        subset={"train_rows": 60}, training={"epochs": 1},
    )  # fmt: skip

    assert project.load("evaluation")["curves"] is None
    assert "exactly two classes" in project.load("roc_curve").layout.title.text
    html = (project.folder / f"data/08_reporting/report.html/{run}/report.html").read_text("utf-8")
    assert 'id="figure-confusion"' in html
    assert 'id="figure-roc"' not in html


def test_headline_figures_have_units():
    row = {"name": "A", "low": 0.8, "high": 0.9, "baseline": 0.5, "value": 0.876, "method": "Wilson"}
    shown = headline_rows({"headline": [{**row, "metric": "accuracy"}, {**row, "metric": "loss"}]})

    assert [line["value"] for line in shown] == ["87.6%", "0.876"]
    assert shown[0]["interval"] == "80.0% to 90.0%"


def test_what_to_do_next_puts_bad_signs_first_and_gives_commands(reported):
    results = json.loads(json.dumps(reported.results))
    bad = {"name": "x", "severity": "bad", "title": "It is bad.", "evidence": "", "causes": [],
           "try": ["training.learning_rate=1e-4", "Read the reviews"]}  # fmt: skip
    results["diagnosis"]["findings"].insert(0, bad)

    first = next_steps(results, {**reported.run_info, "env": "imdb"})[0]
    assert first["text"] == "It is bad. Read the reviews."
    (command,) = (shlex.split(command) for command in first["commands"])
    assert command[:4] == ["kedro", "run", "--env", "imdb"]
    assert "reviews=reviews.csv" in command[5].split(",")
    assert [value for value in command[5].split(",") if "learning_rate=" in value] == ["training.learning_rate=1e-4"]
    bad["try"] = ["training.learning_rate=0.01", "training.epochs=6", "subset.sampling=balanced", "training.epochs=2"]
    results["diagnosis"]["findings"][0] = bad  # all but the last is what the run had
    (command,) = next_steps(results, reported.run_info)[0]["commands"]
    assert "training.epochs=2" in command.split(",")
    # The run read 32 tokens, with a weight decay of 0.01: fewer do not fix truncation, nor do more fix slowness.
    bad["try"] = ["tokenize.max_tokens=16", "tokenize.max_tokens=64", "training.weight_decay=0.1"]
    for name, kept in (("truncation", bad["try"][1:]), ("slow", [bad["try"][0], bad["try"][2]])):
        commands = [item["text"] for item in advice_of({**bad, "name": name}, reported.run_info)]
        assert len(commands) == len(kept)
        assert all(change in command for change, command in zip(kept, commands, strict=True))
    results["diagnosis"]["findings"] = []
    for check in results["readiness"]["checks"]:
        check["passed"] = True
    results["evaluation"]["versus_baseline"] |= {"proven": True, "difference": 0.1}
    assert next_steps(results, reported.run_info)[0]["text"].startswith("Nothing asks for a change.")


def test_the_commands_to_repeat_a_run_hold_its_parameters(reported):
    commands = reproduce_commands(reported.run_info, reported.history.assign(attention="eager"))

    words = shlex.split(commands["full"])
    assert words[:3] == ["kedro", "run", "--params"]
    given = dict(pair.split("=", 1) for pair in words[3].split(","))
    assert given["training.epochs"] == "6"
    measured = [given[f"training.{name}"] for name in ("dtype", "threads", "attention")]
    assert measured == ["fp32", "1", "eager"]
    assert given["data.label_names"] == "negative/positive"
    nested: dict = {"run": None, "resume": False}  # which say nothing of how it was trained
    for name, value in given.items():
        block, _, key = name.rpartition(".")
        (nested.setdefault(block, {}) if block else nested)[key] = None if value == "null" else value
    assert parse_parameters(nested).training.learning_rate == 1e-2
    assert "subset.train_rows=80" in commands["short"]
    assert "training.attention=eager" in commands["short"]
    resumed = {**reported.run_info, "parameters": {**reported.run_info["parameters"], "resume": True, "run": "2026"}}
    assert reproduce_commands(resumed, reported.history.assign(attention="eager"))["full"] == commands["full"]


def test_epochs_have_the_mean_loss_of_their_own_steps(reported):
    history = reported.history
    rows = epoch_rows(history)

    before = history.loc[history["split"] == "validation", "step"].iloc[-2]
    last = history[(history["split"] == "train") & (history["step"] > before)]
    assert rows[-1]["train_loss"] == pytest.approx(last["loss"].mean())
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sum(row["kept"] for row in rows) == 1


def test_long_reviews_are_cut_between_words(reported):
    text = "word " * 200
    first = mistake_lists(reported.mistakes.assign(text=text))[-1]["rows"][0]

    assert first["text"].endswith("word")
    assert first["text"] + first["more"] == text


def test_titles_say_the_finding():
    matrix = {"rows": 20, "label_names": ["bad", "good"], "confusion_matrix": [[9, 1], [3, 7]]}
    assert figures.confusion_title(matrix) == "4 of 20 test reviews misclassified, most often good as bad (3)"
    perfect = {**matrix, "confusion_matrix": [[10, 0], [0, 10]]}
    assert figures.confusion_title(perfect) == "All 20 test reviews are classified correctly"

    accuracy = {"metric": "accuracy", "value": 0.9}
    row = {"column": "style", "value": "plain", "rows": 50, "accuracy": 0.7, "low": 0.6, "high": 0.8}
    few = {**row, "value": "rare", "rows": 3, "accuracy": 0.3, "high": 0.7}
    title = figures.slice_title({"headline": [accuracy], "slices": [few, row]})
    assert title == "Clearly weaker than the whole (90.0%): style plain, 70.0% of 50"
    assert "No part" in figures.slice_title({"headline": [accuracy], "slices": [{**row, "high": 0.95}]})


def test_the_model_card_takes_no_folder_for_a_name_on_the_hub(reported):
    parameters = {**reported.run_info["parameters"], "encoder": "models/mine", "reviews": "secret/reviews"}
    run_info = {**reported.run_info, "parameters": parameters}
    card = card_of(reported, parameters=parameters)
    assert ("base_model" in card, "secret" in card, "models/" in card) == (False, False, False)
    assert ("`mine`" in card, "`reviews`" in card) == (True, True)

    older = {name: value for name, value in run_info.items() if name != "local_inputs"}
    assert write_model_card(reported.results, reported.predictions, reported.splits, older)["text"] == card

    card = card_of(reported, parameters=parameters, local_inputs=[])
    assert ("base_model: models/mine\n" in card, "`secret/reviews`" in card) == (True, True)


def test_the_summary_keeps_its_table_whatever_names_hold(reported):
    results = json.loads(json.dumps(reported.results).replace("positive", "a|b<c>"))
    text = summarize(results, reported.history, reported.run_info)

    assert "<c>" not in text.replace("\\<c\\>", "")
