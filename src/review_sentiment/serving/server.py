"""Run the server: open the classifier, listen, and stop in good order."""

import logging
import math
import signal
import socket
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI

from review_sentiment.catalog import open_context, open_scorer
from review_sentiment.errors import UserError
from review_sentiment.params import ServingParams, load_parameters
from review_sentiment.scoring.confidence import accuracy_text, check_on_test
from review_sentiment.serving.app import build_app
from review_sentiment.serving.log import PredictionLog

logger = logging.getLogger(__name__)

_BACKLOG = 128


def serve_classifier(run: str | None, host: str, port: int, log_predictions: bool, log_texts: bool) -> None:
    """Serve one run's classifier until the process is stopped.

    Args:
        run: Version of the run, or the beginning of it; None for the newest. It never changes by itself.
        port: Port; 0 for a free one.

    Raises:
        UserError: There is no such classifier, or the address can't be listened on.
    """
    with _bind(host, port) as listener:  # before the classifier is read: so that a taken port is reported at once
        context = open_context()
        limits = load_parameters(context.config_loader).serving
        scorer = open_scorer(context, run, limits.batch_size)
        on_test = check_on_test(context.catalog.load("predictions", version=scorer.run), scorer.threshold)
        first = "The first text takes longer than those after it, and so do the first that come together."
        scorer.score([first])
        scorer.score([first, first])
        save = partial(context.catalog.save, "prediction_log")
        log = PredictionLog(save, scorer, log_texts) if log_predictions else None
        server = make_server(build_app(scorer, on_test, limits, log), limits)
        # uvicorn stops in good order, and then raises the signal once more, as if it had not: that must not kill.
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, lambda *_: None)
        try:
            listener.listen(_BACKLOG)
        except OSError as error:  # another process, that did not listen yet either when this one bound, does by now
            raise _cannot_listen(host, port, error) from error
        logger.info(
            "Serving run %s, computed by %s, at %s: %s",
            *(scorer.run, scorer.backend, _url(host, listener), accuracy_text(on_test)),
        )
        try:
            server.run(sockets=[listener])
        finally:
            if log is not None:
                log.flush()
    logger.info("Stopped")


def _bind(host: str, port: int) -> socket.socket:
    listener = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: what can be no host's name
        if listener is not None:
            listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> UserError:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return UserError(f"can't listen on {host}, port {port} ({why}): name another with --host or --port")


class _Server(uvicorn.Server):
    """uvicorn's server, which says that it closes a connection after its last answer; uvicorn 0.54 just closes it."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; a client that would have used a connection again finds no server there, instead of an error."""
        for connection in self.server_state.connections:
            cycle: Any = connection.cycle  # type: ignore[union-attr]
            if cycle is not None:
                cycle.default_headers = [*cycle.default_headers, (b"connection", b"close")]
        await super().shutdown(sockets)


def make_server(app: FastAPI, limits: ServingParams) -> uvicorn.Server:
    """Set uvicorn up.

    Returns:
        A server that runs until it gets SIGINT or SIGTERM, or `should_exit` is set.
    """
    return _Server(
        uvicorn.Config(
            app,
            # h11 bounds the size of headers, which httptools does not; and neither it nor uvloop is in the extra.
            http="h11", loop="asyncio", ws="none", lifespan="on", log_config=None, access_log=False,
            server_header=False, headers=[("X-Content-Type-Options", "nosniff")],
            timeout_graceful_shutdown=math.ceil(limits.timeout_seconds),
        )
    )  # fmt: skip


def _url(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"
