"""The server over real HTTP, with a real classifier."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection

import httpx
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from kedro.io import DatasetError

from review_sentiment.catalog import open_context, open_scorer
from review_sentiment.cli import cli
from review_sentiment.datasets.prediction_log import PredictionLogDataset
from review_sentiment.params import ServingParams, parse_parameters
from review_sentiment.scoring.confidence import check_on_test
from review_sentiment.serving.app import build_app
from review_sentiment.serving.log import PredictionLog
from review_sentiment.serving.server import make_server
from tests.conftest import BAD, GOOD, make_corpus
from tests.test_report import BROWSER, needs_browser

TEXTS = list(make_corpus(20, seed=7)["text"])


@pytest.fixture(scope="module")
def trained(trained):
    """The project with one run, and its classifier."""
    opened = open_context()
    trained.scorer = open_scorer(opened, None)
    trained.on_test = check_on_test(opened.catalog.load("predictions", version=trained.first), trained.scorer.threshold)
    trained.limits = parse_parameters(opened.config_loader["parameters"]).serving
    return trained


@contextmanager
def serving(trained, scorer=None, log=None, **limits):
    """A server in a thread; gives a client for it, which also knows the server."""
    params = ServingParams(**{**trained.limits.model_dump(), **limits})
    app = build_app(scorer or trained.scorer, trained.on_test, params, log)
    server = make_server(app, params)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    port = listener.getsockname()[1]
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            client.server, client.thread = server, thread
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(trained):
    with serving(trained) as made:
        yield made


@pytest.fixture(scope="module")
def strict_client(trained):
    with serving(trained, max_texts=3, max_characters=10) as made:
        yield made


class Gate:
    """The classifier, held back until it is let go."""

    def __init__(self, scorer):
        self.begun, self.opened = threading.Event(), threading.Event()

        def forward(rows):
            self.begun.set()
            assert self.opened.wait(30)
            return scorer.forward(rows)

        self.scorer = dataclasses.replace(scorer, forward=forward)


def ask(client, *texts: str) -> httpx.Response:
    return client.post("/predict", json={"texts": texts})


def positive(response: httpx.Response) -> list[float]:
    assert response.status_code == 200, response.text
    return [prediction["proba"]["positive"] for prediction in response.json()["predictions"]]


def test_texts_get_the_classifiers_answers_alone_as_together(trained, client):
    scores = trained.scorer.score(TEXTS)

    together = ask(client, *TEXTS)

    answer = together.json()
    assert answer["run"] == trained.first
    names = ["negative", "positive"]
    assert [prediction["label"] for prediction in answer["predictions"]] == [names[i] for i in scores.label_id]
    np.testing.assert_allclose(positive(together), scores.proba[:, 1], atol=1e-5)
    alone = [positive(client.post("/predict", json={"text": text}))[0] for text in TEXTS[:5]]
    np.testing.assert_allclose(alone, scores.proba[:5, 1], atol=1e-5)
    long = ask(client, "lovely " * 60).json()["predictions"][0]
    assert long["seen_share"] == pytest.approx(32 / 62)


def test_it_says_what_answers_and_counts(trained):
    with serving(trained) as client:
        info = client.get("/info").json()
        assert (info["run"], info["label_names"], info["test"]["rows"]) == (trained.first, ["negative", "positive"], 20)
        assert info["backend"] == "torch"
        low, high = info["test"]["accuracy_interval"]
        assert low < info["test"]["accuracy"] <= high
        assert info["confidence"] == {"threshold": None, "max_error": 0.03}
        assert info["limits"]["max_texts"] == 100
        assert client.get("/health").json() == {"status": "alive"}
        assert client.get("/ready").json() == {"status": "ready"}
        ask(client, "superb", "lovely superb", "boring")
        ask(client, " ")
        assert client.get("/nothing").status_code == 404
        with socket.create_connection(("127.0.0.1", client.base_url.port)) as gone:
            gone.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        while "499" not in client.get("/metrics").text:
            time.sleep(0.01)
        counts = client.get("/metrics").text

    for line in (
        f'review_sentiment_classifier_info{{run="{trained.first}"}} 1.0',
        'review_sentiment_requests_total{code="200",path="/predict"} 1.0',
        'review_sentiment_requests_total{code="422",path="/predict"} 1.0',
        'review_sentiment_requests_total{code="499",path="/predict"} 1.0',
        'review_sentiment_requests_total{code="404",path="other"} 1.0',
        'review_sentiment_request_seconds_count{path="/predict"} 3.0',
        'review_sentiment_predictions_total{confident="false",label="positive"} 2.0',
        'review_sentiment_predictions_total{confident="false",label="negative"} 1.0',
        "review_sentiment_batch_texts_sum 4.0",
        "review_sentiment_confidence_count 3.0",
        "review_sentiment_waiting_texts 0.0",
    ):
        assert line in counts.splitlines()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "text: field required|send a JSON object"),
        (b"x", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "send a JSON object"),
        (b"{}", "give either text or texts"),
        (b'{"text": "a", "texts": ["b"]}', "give either text or texts"),
        (b'{"text": null}', "text: input should be a valid string"),
        (b'{"text": 1}', "text: input should be a valid string"),
        (b'{"text": NaN}', "text: input should be a valid string"),
        (b'{"text": "\\ud800"}', "text: input should be a valid string"),
        (b'{"text": "a", "model": "b"}', "model: extra inputs are not permitted"),
        (b'{"texts": []}', "texts: list should have at least 1 item"),
        (b'{"texts": ["a", "b", "c", "d"]}', "texts: list should have at most 3 items"),
        (b'{"texts": ["a", "elevenchars"]}', r"texts.1: string should have at most 10 characters"),
        (b'{"texts": ["a", " ", "<br/>"]}', r"texts.1, texts.2: nothing to read"),
        (b'{"text": "&nbsp;"}', "text: nothing to read"),
    ],
)
def test_a_bad_body_is_422_and_says_why(strict_client, content, message):
    response = strict_client.post("/predict", content=content, headers={"Content-Type": "application/json"})

    assert response.status_code == 422
    assert list(response.json()) == ["detail"]
    assert re.match(message, response.json()["detail"]) or message in response.json()["detail"]


def test_other_content_than_json_is_refused(client):
    response = client.post("/predict", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["detail"]


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_is_413_however_it_comes(client, is_chunked):
    body = json.dumps({"text": "a" * 1_000_000}).encode()
    response = client.post("/predict", content=iter([body[:500_000], body[500_000:]]) if is_chunked else body)
    assert ("content-length" in response.request.headers) != is_chunked
    assert (response.status_code, response.json()) == (
        413, {"detail": "the body is larger than 1,000,000 bytes: send fewer texts at a time"},
    )  # fmt: skip
    assert client.get("/health").status_code == 200


def test_a_body_that_does_not_come_is_408(trained):
    with serving(trained, timeout_seconds=0.2) as client, socket.create_connection(
        ("127.0.0.1", client.base_url.port), timeout=10
    ) as connection:  # fmt: skip
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_full_queue_is_429_and_not_ready(trained):
    gate = Gate(trained.scorer)
    with serving(trained, gate.scorer, max_texts=2, max_waiting=3) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, client, "superb")
        assert gate.begun.wait(10)
        waiting = pool.submit(ask, client, "boring", "superb")
        while "waiting_texts 2.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        assert client.get("/ready").status_code == 200
        refused = ask(client, "a", "b")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["detail"] == "3 texts may wait, and no more: try again later"
        gate.opened.set()
        assert [len(positive(future.result())) for future in (first, waiting)] == [1, 2]


def test_who_waits_too_long_is_told_503_and_leaves_the_queue(trained):
    gate = Gate(trained.scorer)
    with serving(trained, gate.scorer, timeout_seconds=0.3, max_texts=1, max_waiting=1) as client:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(ask, client, "superb")
            assert gate.begun.wait(10)
            late = ask(client, "boring")
            assert first.result().status_code == 503
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert late.json()["detail"] == "no answer within 0.3 seconds: try again later"
        assert client.get("/ready").status_code == 200
        gate.opened.set()
        assert len(positive(ask(client, "superb"))) == 1


def test_a_fault_of_the_program_is_500_without_its_words(trained):
    def forward(rows):
        raise RuntimeError("secret of /home/somebody")

    with serving(trained, dataclasses.replace(trained.scorer, forward=forward)) as client:
        response = ask(client, "superb")
        assert httpx.get(client.base_url.join("/health")).status_code == 200  # uvicorn has closed that connection
    assert response.status_code == 500
    assert response.json() == {"detail": "something went wrong here; the server's log says what"}


def test_each_of_many_clients_gets_its_own_answers(trained, client):
    texts = list(make_corpus(160, seed=3)["text"])
    expected = trained.scorer.score(texts).proba[:, 1]

    def one(number: int) -> list[float]:
        mine = texts[5 * number : 5 * number + 5]
        return [*positive(ask(client, *mine[:2])), *(positive(ask(client, text))[0] for text in mine[2:])]

    with ThreadPoolExecutor(32) as pool:
        got = list(pool.map(one, range(32)))

    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-5)


def test_a_stopping_server_answers_what_waits(trained):
    gate = Gate(trained.scorer)
    with serving(trained, gate.scorer, batch_texts=1) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, client, text) for text in TEXTS[:8]]
        while "waiting_texts 7.0" not in client.get("/metrics").text:
            time.sleep(0.01)
        client.server.should_exit = True
        time.sleep(0.2)
        assert client.thread.is_alive()
        gate.opened.set()
        assert {future.result().headers.get("connection") for future in asked} == {"close"}
        got = [positive(future.result())[0] for future in asked]
        np.testing.assert_allclose(got, trained.scorer.score(TEXTS[:8]).proba[:, 1], atol=1e-5)


@pytest.mark.slow
def test_the_command_serves_until_it_is_stopped(trained):
    command = [sys.executable, "-m", "kedro", "serve", "--port", "0", "--log-predictions"]
    process = subprocess.Popen(command, cwd=trained.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "COLUMNS": "200"})  # fmt: skip
    said = ""
    while "http" not in said or "accuracy" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    assert f"Serving run {trained.first}, computed by torch, at " in said
    url = re.search(r"http://127.0.0.1:\d+/", said).group()
    with ExitStack() as stack:
        asked = [stack.enter_context(closing(HTTPConnection("127.0.0.1", httpx.URL(url).port, timeout=60)))
                 for _ in range(8)]  # fmt: skip
        for connection, text in zip(asked, TEXTS, strict=False):
            body = json.dumps({"text": f"superb zebra {text}"})
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        # Connections are taken in turn: the answer to a later one says that the server has all eight.
        assert httpx.get(f"{url}health").headers["x-content-type-options"] == "nosniff"
        process.send_signal(signal.SIGTERM)
        responses = [stack.enter_context(connection.getresponse()) for connection in asked]
        codes = {response.status for response in responses if response.read()}
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said + rest
    assert codes == {200}
    assert "Traceback" not in said + rest
    assert rest.count("Stopped") == 1

    log = trained.load("prediction_log")
    assert log.schema.metadata[b"classifier_run"].decode() == trained.first
    table = next(log.chunks())
    assert list(table) == [
        "time", "words", "unknown_share", "tokens", "predicted", "proba_negative", "proba_positive", "confident",
        "seen_share",
    ]  # fmt: skip
    assert len(table) == 8
    assert set(table["words"]) == {18}
    assert set(table["tokens"]) == {18}  # as in the fingerprint of training, without special ones
    # Of 18 words the vocabulary lacks "zebra" and each review's number.
    np.testing.assert_allclose(table["unknown_share"], round(2 / 18, 4))


def test_a_log_grows_by_whole_files_and_holds_texts_only_if_asked(trained, tmp_path, caplog):
    dataset = PredictionLogDataset(filepath=str(tmp_path / "log"))
    assert not dataset.exists()
    with pytest.raises(DatasetError, match="holds no predictions yet"):
        dataset.load()
    for keeps_texts, texts in ((False, ["superb", " "]), (True, ["a  <b>boring</b> film"])):
        log = PredictionLog(dataset.save, trained.scorer, keeps_texts)
        log.flush()  # nothing yet: no file
        log.add(trained.scorer.score(texts))
        log.flush()

    files = sorted(path for path in (tmp_path / "log").rglob("*") if path.is_file())
    assert [path.parent.name for path in files] == [trained.first] * 2
    assert ["text" in pq.read_schema(path).names for path in files] == [False, True]
    table = pd.concat(dataset.load().chunks())
    assert list(table["text"].fillna("-")) == ["-", "a boring film"]
    assert list(table["predicted"]) == ["positive", "negative"]
    assert table["time"].dt.tz is not None

    other = dataclasses.replace(trained.scorer, run="2999")
    late = PredictionLog(dataset.save, other, False)
    late.add(other.score(["superb"]))
    late.flush()
    assert dataset.load().schema.metadata == {b"classifier_run": b"2999"}
    assert dataset.load().rows == 1

    def full(_table):
        raise OSError("no space left on device")

    broken = PredictionLog(full, trained.scorer, False)
    broken.add(trained.scorer.score(["superb"]))
    broken.flush()
    assert "1 predictions could not be logged: no space left on device" in caplog.text


def test_predictions_are_logged_while_the_server_runs(trained, tmp_path):
    dataset = PredictionLogDataset(filepath=str(tmp_path / "log"))
    log = PredictionLog(dataset.save, trained.scorer, True)
    with serving(trained, log=log, log_seconds=0.05) as client:
        ask(client, "superb", "boring")
        for _ in range(200):
            if dataset.exists():
                break
            time.sleep(0.02)
        assert list(next(dataset.load().chunks())["text"]) == ["superb", "boring"]


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["serve", *arguments])
    assert done.exit_code, done.output
    assert "Traceback" not in done.output
    return done.output


def test_mistakes_with_the_command_are_one_message(trained, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "Address already in use): name another" in call("--port", str(taken.getsockname()[1]))
    assert "can't listen on 127..0.0.1, port 8000 (" in call("--host", "127..0.0.1")
    assert "name another with --host" in call("--host", "no-such-host.invalid")
    assert "begins with '2999'" in call("--port", "0", "--run", "2999")
    assert "give both" in call("--log-texts")
    monkeypatch.delitem(sys.modules, "review_sentiment.serving.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert 'kedro serve needs uvicorn: pip install -e ".[serve]"' in call()


def test_without_a_classifier_it_does_not_start(project):
    assert "there is no classifier yet" in call("--port", "0")


def test_a_queue_that_never_takes_a_full_request_is_refused(trained):
    with pytest.raises(ValueError, match=r"max_waiting \(5\) must be at least max_texts \(100\)"):
        ServingParams(**{**trained.limits.model_dump(), "max_waiting": 5})


def test_what_is_made_from_its_openapi_gets_a_documented_answer(trained):
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    schema = schemathesis.openapi.from_asgi("/openapi.json", build_app(trained.scorer, trained.on_test, trained.limits))
    seen = Counter()

    def check(case):
        response = case.call()
        is_valid = case.meta.generation.mode is GenerationMode.POSITIVE
        seen[is_valid, response.status_code] += 1
        # The first does not know that a text may hold nothing to read, the second that 413 is a refusal too.
        case.validate_response(response, excluded_checks=[positive_data_acceptance, negative_data_rejection])
        # Hypothesis tries strings that stand in our own code too, and a refusal names the fields that a client sent.
        told = [word for word in ("site-packages", str(trained.folder)) if word in response.text]
        assert all(word in str(case.body) for word in told)

    for operation in (found.ok() for found in schema.get_all_operations()):
        for mode in GenerationMode:
            examples = 25 if operation.method == "post" else 5
            quick = settings(max_examples=examples, database=None, derandomize=True, deadline=None,
                             phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
            with suppress(Unsatisfiable):  # nothing can be wrong with a request that takes no parameters
                quick(given(operation.as_strategy(mode))(check))()
    assert seen[True, 200] > 15 < seen[False, 422]
    assert set(seen) <= {(True, 200), (True, 422), (False, 413), (False, 422)}


@contextmanager
def browsing(folder, url):
    """A page in a headless Chromium, reached by its DevTools protocol."""
    from websockets.sync.client import connect

    flags = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0",
    ]  # fmt: skip
    process = subprocess.Popen([BROWSER, *flags, url], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        said = next(line for line in process.stderr if "DevTools listening on" in line)
        port = re.search(r":(\d+)/", said).group(1)
        pages = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        with connect(address, max_size=None, proxy=None) as socket_:
            yield Page(socket_)
    finally:
        process.kill()
        process.communicate()


class Page:
    """What a person can do with a page, and see of it."""

    def __init__(self, socket_):
        self.socket, self.number, self.said = socket_, 0, []
        self.command("Log.enable")
        self.command("Runtime.enable")

    def command(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv(timeout=60))).get("id") != self.number:
            if message["method"] in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                self.said.append(message["params"])
        assert "error" not in message, message
        return message["result"]

    def value(self, script):
        return self.command("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, text):
        end = time.monotonic() + 30
        while text not in (shown := self.value("document.body?.innerText ?? ''")) and time.monotonic() < end:
            time.sleep(0.05)
        assert text in shown
        return shown

    def type(self, text):
        self.value("document.getElementById('text').focus(); document.getElementById('text').select()")
        self.command("Input.insertText", text=text)

    def press(self, key, code, modifiers=0):
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                         modifiers=modifiers, text="\r" if kind == "keyDown" and key == "Enter" else "")  # fmt: skip


@needs_browser
def test_the_page_answers_a_person(trained, tmp_path):
    short = "a superb lovely <b>film</b>"
    mixed = [f"the film was {good} {bad} quite " + "the " * 60 for good in GOOD for bad in BAD]
    confidence = trained.scorer.score([short, *mixed]).proba.max(axis=1)
    long = mixed[confidence[1:].argmin()]
    confidence = confidence[0], confidence.min()
    threshold = dataclasses.replace(trained.scorer.threshold, proba=sum(confidence) / 2)
    lenient = dataclasses.replace(trained.scorer, threshold=threshold)
    with serving(trained, lenient) as client, browsing(tmp_path, f"{client.base_url}/") as page:
        accuracy = f"{100 * trained.on_test['accuracy']:.1f} % of 20 test reviews right"
        assert f"Run {trained.first} answers. It had {accuracy}" in page.wait_for("Run ")

        page.type(short)
        page.press("Tab", 9)
        assert page.value("document.activeElement.id") == "ask"
        page.press("Enter", 13)
        shown = page.wait_for(f"Answered by run {trained.first}.")
        sure = positive(ask(client, short))[0]
        assert f"positive, {100 * sure:.1f} %" in shown
        assert "not sure" not in shown
        bars = page.value("[...document.querySelectorAll('.bar > div')].map((bar) => parseFloat(bar.style.width))")
        assert bars == pytest.approx([100 * (1 - sure), 100 * sure], abs=0.01)

        page.type(long)
        page.press("Enter", 13, modifiers=2)
        shown = page.wait_for("(not sure)")
        assert (
            f"is below {100 * threshold.proba:.1f} %. Only from there on were at most 3.0 % of the answers wrong"
            in shown
        )
        assert "the classifier read 47.1 % of it" in shown

        page.type("<br>")
        page.press("Enter", 13, modifiers=2)
        page.wait_for("nothing to read there")
        assert page.value("document.getElementById('result').getAttribute('aria-live')") == "polite"
        assert page.value("document.querySelector('label').htmlFor") == "text"
        narrow = {"width": 360, "height": 640, "deviceScaleFactor": 1, "mobile": True}
        page.command("Emulation.setDeviceMetricsOverride", **narrow)
        assert page.value("document.documentElement.scrollWidth") <= 360
        # The 422 is all that the browser had to say: no script or style was blocked, nothing came from elsewhere.
        assert [entry for entry in page.said if "422" not in json.dumps(entry)] == []
