"""The HTTP interface."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from review_sentiment import __version__
from review_sentiment.params import ServingParams
from review_sentiment.runs.manifest import library_versions
from review_sentiment.scoring.answers import Answer, to_answers
from review_sentiment.scoring.scorer import Scorer
from review_sentiment.serving.batching import Batcher, ClosedError, QueueFullError
from review_sentiment.serving.counters import Counters, CountRequests
from review_sentiment.serving.limits import LimitBody
from review_sentiment.serving.log import PredictionLog
from review_sentiment.serving.messages import (
    Confidence,
    Info,
    PredictResponse,
    Problem,
    Status,
    TestFigures,
    problem,
    request_within,
)

_PAGE = Path(__file__).with_name("page.html")
_PATHS = frozenset({"/", "/predict", "/health", "/ready", "/info", "/metrics", "/openapi.json"})
_FAULTS_TOLD = 5
_RETRY = {"Retry-After": "1"}


def build_app(
    scorer: Scorer, on_test: Mapping[str, Any], limits: ServingParams, log: PredictionLog | None = None
) -> FastAPI:
    """Build the application around a classifier.

    Args:
        log: Where predictions are logged; None for nowhere.

    Returns:
        An ASGI application; it answers while its lifespan lasts.
    """

    def work(texts: list[str]) -> list[Answer | None]:
        scores = scorer.score(texts)
        answers = to_answers(scores, scorer.label_names)
        counters.count_batch(answers)
        if log is not None:
            log.add(scores)
        return answers

    batcher = Batcher(work, limits.batch_texts, limits.max_waiting)
    counters = Counters(scorer.run, lambda: batcher.waiting)
    info = _info(scorer, on_test, limits)

    # No /docs: FastAPI's page loads its scripts from elsewhere, which works neither offline nor with the page's policy.
    app = FastAPI(
        title="review_sentiment", version=__version__, description="Scores reviews with a classifier of one run.",
        lifespan=_lifespan(batcher, limits, log), docs_url=None, redoc_url=None,
    )  # fmt: skip
    _tell_problems(app, limits)
    _add_pages(app, counters)
    app.add_middleware(LimitBody, limits=limits)
    app.add_middleware(CountRequests, counters=counters, paths=_PATHS)
    request_model = request_within(limits)

    @app.post("/predict", summary="Score texts", responses=_problems(408, 413, 422, 429, 503))
    async def predict(body: request_model) -> PredictResponse:  # type: ignore[valid-type]
        texts: dict[str, str] = body.by_name()  # type: ignore[attr-defined]
        async with asyncio.timeout(limits.timeout_seconds):
            answers = await batcher.submit(list(texts.values()))
        unread = [name for name, answer in zip(texts, answers, strict=True) if answer is None]
        if unread:
            raise HTTPException(422, f"{_some(unread)}: nothing to read there, only white space or markup")
        return PredictResponse(run=scorer.run, predictions=[answer for answer in answers if answer is not None])

    @app.get("/ready", summary="Whether texts are taken now", responses=_problems(503))
    async def ready() -> Status:
        if not batcher.has_room(1):
            raise HTTPException(503, "the queue is full, or the server is about to stop")
        return Status(status="ready")

    @app.get("/info", summary="What answers here, and how good it is")
    async def get_info() -> Info:
        return info

    return app


def _lifespan(batcher: Batcher[Any], limits: ServingParams, log: PredictionLog | None) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(batcher.run())
        saving = asyncio.create_task(_save_often(log, limits.log_seconds)) if log is not None else None
        yield
        batcher.close()
        await running
        if saving is not None:
            saving.cancel()

    return lifespan


async def _save_often(log: PredictionLog, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(log.flush)


def _info(scorer: Scorer, on_test: Mapping[str, Any], limits: ServingParams) -> Info:
    threshold = scorer.threshold
    return Info(
        run=scorer.run,
        backend=scorer.backend,
        label_names=scorer.label_names,
        test=TestFigures(**on_test),
        confidence=Confidence(
            threshold=threshold.proba if threshold.proba <= 1 else None, max_error=threshold.max_error
        ),
        max_tokens=scorer.tokenize.scoring_max_tokens,
        limits=limits,
        versions=library_versions(),
    )


def _add_pages(app: FastAPI, counters: Counters) -> None:
    page = _PAGE.read_text("utf-8")
    policy = _policy(page)

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})

    @app.get("/health", summary="Whether the process lives")
    async def health() -> Status:
        return Status(status="alive")

    @app.get("/metrics", summary="Counts for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(counters.text(), media_type=CONTENT_TYPE_LATEST)


def _policy(page: str) -> str:
    """A content security policy that lets a page run what it holds, ask this server, and nothing else."""
    hashes = {}
    for tag in ("script", "style"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = hashlib.sha256(content.group(1).encode() if content else b"").digest()
        hashes[tag] = f"'sha256-{base64.b64encode(digest).decode()}'"
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    words = {
        408: "The body took too long to come",
        413: "The body is too large",
        422: "The body is not as it should be",
        429: "Too many texts are waiting",
        503: "The server is about to stop, or took too long",
    }
    return {code: {"model": Problem, "description": words[code]} for code in codes}


def _tell_problems(app: FastAPI, limits: ServingParams) -> None:
    """Word every error; no text that a client sent is repeated to it."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return problem(422, _some([_fault(fault) for fault in error.errors()], "; "))

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's, for JSON that Python's parser fails at: too deep, or no UTF-8
            return problem(422, "the body is not valid JSON")
        words = {
            404: "there is nothing at this address: /openapi.json lists what there is",
            405: "this address takes another method: /openapi.json says which",
        }
        headers = dict(error.headers or {})
        return problem(error.status_code, words.get(error.status_code, error.detail), headers)

    @app.exception_handler(QueueFullError)
    async def full(_request: Request, _error: QueueFullError) -> Response:
        return problem(429, f"{limits.max_waiting:,} texts may wait, and no more: try again later", _RETRY)

    @app.exception_handler(ClosedError)
    async def closed(_request: Request, _error: ClosedError) -> Response:
        return problem(503, "the server is about to stop", _RETRY)

    @app.exception_handler(TimeoutError)
    async def late(_request: Request, _error: TimeoutError) -> Response:
        return problem(503, f"no answer within {limits.timeout_seconds:g} seconds: try again later", _RETRY)

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> Response:
        return problem(500, "something went wrong here; the server's log says what")  # uvicorn logs the traceback


def _fault(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return "the body is not valid JSON"
    # A name may be the client's own, of any length, and hold what UTF-8 has no bytes for.
    where = ".".join(str(part)[:40] for part in fault["loc"][1:]).encode("utf-8", "replace").decode()
    if not where:
        said = fault["msg"].removeprefix("Value error, ")
        return said if fault["type"] == "value_error" else "send a JSON object, with Content-Type: application/json"
    return f"{where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _some(items: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - _FAULTS_TOLD} more" if len(items) > _FAULTS_TOLD else ""
    return separator.join(items[:_FAULTS_TOLD]) + more
