"""Read each request's body whole, within limits, before anything else looks at it."""

import asyncio
from typing import TYPE_CHECKING

from review_sentiment.params import ServingParams
from review_sentiment.serving.messages import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class LimitBody:
    """Answers a body that is too large, or takes too long to come, and lets all others pass."""

    def __init__(self, app: "ASGIApp", limits: ServingParams) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on once its body is here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.max_body_bytes
        body, is_whole = bytearray(), False
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                while not is_whole and len(body) <= most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    is_whole = not message.get("more_body", False)
        except TimeoutError:
            await problem(408, "the body took too long to come")(scope, receive, send)
            return
        if len(body) > most:
            refusal = problem(413, f"the body is larger than {most:,} bytes: send fewer texts at a time")
            await refusal(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> "Message":
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)
