"""The HTTP interface: an ASGI application, which checks, asks the batcher, and answers in JSON.

It is written against ASGI itself, because a framework's routing and validation would cost more than
the prediction of a short text. Texts of requests are neither logged nor repeated in answers.
"""

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from distlstm.json_text import to_json
from distlstm.stages.serving.batcher import Answered, Batcher
from distlstm.stages.serving.card import card_of
from distlstm.stages.serving.current_model import CurrentModel
from distlstm.stages.serving.figures import Figures, exposition
from distlstm.stages.serving.openapi import document, page
from distlstm.stages.serving.payload import Question, RefusedError, read_question
from distlstm.stages.serving.settings import ServiceSettings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = b"application/json"
_OPEN = ("/healthz",)
"""Paths that need no token: they tell nothing but that a model is there."""


@dataclass(frozen=True)
class Response:
    """What is sent back."""

    body: bytes
    status: int = 200
    kind: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())

    @classmethod
    def of(cls, value: Any, status: int = 200, **headers: str) -> "Response":
        """A response in JSON."""
        pairs = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]
        return cls(to_json(value).encode(), status, headers=tuple(pairs))


class ServiceApp:
    """Answers requests with the current model."""

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        model: CurrentModel,
        batcher: Batcher,
        figures: Figures,
    ) -> None:
        self.settings = settings
        self.model = model
        self.batcher = batcher
        self.figures = figures
        self.routes: dict[str, tuple[str, Callable[[Scope, Receive], Awaitable[Response]]]] = {
            "/predict": ("POST", self._predict),
            "/model": ("GET", self._card),
            "/healthz": ("GET", self._health),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._document),
            "/docs": ("GET", self._page),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; the interface of ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # a WebSocket
            await send({"type": "websocket.close", "code": 1003})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        path = scope["path"]
        try:
            response = await self._routed(path, scope, receive)
        except RefusedError as error:
            response = Response.of({"error": str(error)}, error.status)
            if error.status == 413:  # the rest of the body is not read
                response = Response.of({"error": str(error)}, 413, connection="close")
        except Exception:
            response = Response.of({"error": "The prediction failed."}, 500)
        known = path if path in self.routes else "other"
        self.figures.request(known, response.status, time.perf_counter() - started)
        await _send(send, response, without_body=scope["method"] == "HEAD")

    async def _routed(self, path: str, scope: Scope, receive: Receive) -> Response:
        if path not in _OPEN and not self._is_allowed(scope):
            return Response.of(
                {"error": "This service needs a token: Authorization: Bearer TOKEN."},
                401,
                www_authenticate="Bearer",
            )
        if path not in self.routes:
            return Response.of({"error": f"There are: {', '.join(self.routes)}."}, 404)
        method, answer = self.routes[path]
        if scope["method"] not in (method, "HEAD" if method == "GET" else method):
            return Response.of({"error": f"Use {method}."}, 405, allow=method)
        return await answer(scope, receive)

    def _is_allowed(self, scope: Scope) -> bool:
        """Whether the request has the token, compared in constant time by its digest."""
        wanted = self.settings.token_digest
        if wanted is None:
            return True
        scheme, _, token = _header(scope, b"authorization").partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        return hmac.compare_digest(given, wanted) and scheme.lower() == b"bearer"

    async def _predict(self, scope: Scope, receive: Receive) -> Response:
        limits = self.settings.limits
        body = await _body(scope, receive, most=limits.body_bytes)
        gives_sets = self.model.predictor.model.kind.gives_sets
        question = read_question(body, limits, gives_sets=gives_sets)
        answered = await self._ask(question)
        rows = answered.rows
        answer = {"predictions": rows} if question.is_list else dict(rows[0])
        return Response.of({**answer, "model": answered.fingerprint})

    async def _ask(self, question: Question) -> Answered:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answered] = loop.create_future()

        def settle(answer: Answered | Exception) -> None:
            if future.done():  # the client has gone
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        def on_answer(answer: Answered | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, answer)

        self.batcher.ask(question, on_answer)
        return await future

    async def _card(self, scope: Scope, receive: Receive) -> Response:
        del scope, receive
        return Response.of(card_of(self.model.loaded, self.settings.limits))

    async def _health(self, scope: Scope, receive: Receive) -> Response:
        del scope, receive
        return Response.of({"status": "ok"})

    async def _metrics(self, scope: Scope, receive: Receive) -> Response:
        del scope, receive
        text = await asyncio.to_thread(exposition)
        return Response(text.encode(), kind=b"text/plain; version=0.0.4; charset=utf-8")

    async def _document(self, scope: Scope, receive: Receive) -> Response:
        del scope, receive
        return Response.of(document(self.settings))

    async def _page(self, scope: Scope, receive: Receive) -> Response:
        del scope, receive
        return Response(page(self.settings).encode(), kind=b"text/html; charset=utf-8")


def _header(scope: Scope, name: bytes) -> bytes:
    found: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return found


async def _body(scope: Scope, receive: Receive, *, most: int) -> bytes:
    too_large = RefusedError(413, f"The body is too large; at most {most:,} bytes are allowed.")
    length = _header(scope, b"content-length")
    if length.isdigit() and int(length[:20]) > most:
        raise too_large
    pieces, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > most:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(pieces)


async def _send(send: Send, response: Response, *, without_body: bool) -> None:
    headers = [
        (b"content-type", response.kind),
        (b"content-length", str(len(response.body)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if without_body else response.body
    await send({"type": "http.response.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    """The start and the end of the server, as ASGI has it."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
