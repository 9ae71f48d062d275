"""The HTTP side of the simulated provider: counts each request, asks limits and script, and answers or fails."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from aiohttp import web
from multidict import CIMultiDict
from pydantic import TypeAdapter, ValidationError

from devkit.simulator import messages, responses
from devkit.simulator.chat import CHAT_PATH, BadRequest, ChatRequest, Reply, error_body, reply_to
from devkit.simulator.journal import (
    BAD_REQUEST,
    RATE_LIMITED,
    REQUESTS_MAX,
    ReceivedBody,
    ReceivedRequest,
    RequestJournal,
)
from devkit.simulator.limits import Arrival, Decision, ProviderLimits, RateLimiter, cost_of
from devkit.simulator.script import RULES, ErrorBody, Kind, Rule, Script, Step

ATTEMPT_HEADER = "X-Callgate-Attempt-Id"
REQUEST_MAX_BYTES = 256 * 1024 * 1024
RECORDS_PER_PAGE_MAX = 50_000
DRIP_PIECES = 20

RECORDS: TypeAdapter[list[ReceivedRequest]] = TypeAdapter(list[ReceivedRequest])
BODIES: TypeAdapter[list[ReceivedBody]] = TypeAdapter(list[ReceivedBody])
ARRIVALS: TypeAdapter[list[Arrival]] = TypeAdapter(list[Arrival])
LIMITS: TypeAdapter[ProviderLimits | None] = TypeAdapter(ProviderLimits | None)

# SO_LINGER for 0 s: closing the socket sends a reset.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How the requests of a path are read, and how they are answered."""

    parse: Callable[[bytes], ChatRequest]
    reply_to: Callable[[ChatRequest, Step], Reply]
    error_body: Callable[[int, ErrorBody], bytes] = error_body
    limit_headers: Callable[[Decision], Mapping[str, str]] = attrgetter("headers")
    key_header: str = "Authorization"


PROTOCOLS = {
    CHAT_PATH: Protocol(ChatRequest.parse, reply_to),
    responses.RESPONSES_PATH: Protocol(responses.parse, responses.reply_to),
    messages.MESSAGES_PATH: Protocol(
        messages.parse, messages.reply_to, messages.error_body, messages.limit_headers, "x-api-key"
    ),
}


class ProviderServer:
    """Answers `/v1` like a provider. Its owner sends scripts and limits to `/__control`."""

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        requests_max: int = REQUESTS_MAX,
        limits: ProviderLimits | None = None,
    ) -> None:
        self._first_rules = rules
        self._first_limits = limits
        self._requests_max = requests_max
        self._start_over()

    def app(self) -> web.Application:
        """Return the web application. It must be served with handler cancellation."""
        app = web.Application(client_max_size=REQUEST_MAX_BYTES)
        for path in PROTOCOLS:
            app.router.add_post(path, self._generate)
        app.router.add_get("/v1/models", _models)
        app.router.add_post("/__control/script", self._control_script)
        app.router.add_post("/__control/reset", self._control_reset)
        app.router.add_get("/__control/counts", self._control_counts)
        app.router.add_get("/__control/records", self._control_records)
        app.router.add_get("/__control/bodies", self._control_bodies)
        app.router.add_post("/__control/limits", self._control_limits)
        app.router.add_get("/__control/limits", self._control_limit_counts)
        app.router.add_get("/__control/arrivals", self._control_arrivals)
        app.router.add_route("*", "/{path:.*}", _not_found)
        return app

    def _start_over(self) -> None:
        self._script = Script(self._first_rules)
        self._journal = RequestJournal(self._requests_max)
        self._limiter = RateLimiter(self._first_limits)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        # Counted when only the head has been read, so that no request is missed.
        journal, attempt_id = self._journal, request.headers.get(ATTEMPT_HEADER)
        number = journal.arrived(attempt_id, request.path)
        response: web.StreamResponse = web.Response()
        try:
            response = await self._answer(request, journal, number)
        except ConnectionError:
            # The client disconnected while the answer was written.
            pass
        finally:
            journal.finished(number, response.status if response.prepared else None)
        return response

    async def _answer(
        self, request: web.Request, journal: RequestJournal, number: int | None
    ) -> web.StreamResponse:
        protocol, body = PROTOCOLS[request.path], await request.read()
        journal.keep_body(request.headers.get(ATTEMPT_HEADER), body)
        try:
            chat = protocol.parse(body)
        except BadRequest as refusal:
            journal.decided(number, "", BAD_REQUEST)
            return await _send(request, _error(400, str(refusal), protocol.error_body))
        limiter, key = self._limiter, request.headers.get(protocol.key_header, "")
        cost = cost_of(chat.input_tokens, chat.output_tokens_max)
        decision = limiter.arrived(key, chat.model, cost, time.monotonic())
        if decision.refusal is not None:
            journal.decided(number, chat.model, RATE_LIMITED)
            error = decision.refusal.error(chat.model)
            headers = protocol.limit_headers(decision)
            step = Step(kind=Kind.STATUS, status=429, error=error, headers=headers)
            return await _send(request, protocol.reply_to(chat, step))
        try:
            return await self._answer_accepted(request, chat, decision, (journal, number))
        finally:
            limiter.finished(key, chat.model)

    async def _answer_accepted(
        self,
        request: web.Request,
        chat: ChatRequest,
        decision: Decision,
        entry: tuple[RequestJournal, int | None],
    ) -> web.StreamResponse:
        journal, number = entry
        step, latency_s = self._script.next_step(chat.model, chat.asked_last)
        protocol = PROTOCOLS[request.path]
        reply = protocol.reply_to(chat, step)
        # The script may say something else about limits.
        reply.headers.update({**protocol.limit_headers(decision), **step.headers})
        journal.decided(number, chat.model, step.kind)
        if latency_s:
            await asyncio.sleep(latency_s)
        return await _send_as_scripted(request, step, reply)

    async def _control_script(self, request: web.Request) -> web.Response:
        try:
            self._script = Script(RULES.validate_json(await request.read()))
        except ValidationError as error:
            return web.Response(status=400, text=str(error))
        return web.Response(status=204)

    async def _control_reset(self, _request: web.Request) -> web.Response:
        self._start_over()
        return web.Response(status=204)

    async def _control_counts(self, _request: web.Request) -> web.Response:
        return web.json_response(text=self._journal.counts().model_dump_json())

    async def _control_records(self, request: web.Request) -> web.Response:
        records = self._journal.records(int(request.query["first"]), RECORDS_PER_PAGE_MAX)
        return web.json_response(body=RECORDS.dump_json(records))

    async def _control_bodies(self, _request: web.Request) -> web.Response:
        return web.json_response(body=BODIES.dump_json(self._journal.bodies()))

    async def _control_limits(self, request: web.Request) -> web.Response:
        try:
            self._limiter.limits = LIMITS.validate_json(await request.read())
        except ValidationError as error:
            return web.Response(status=400, text=str(error))
        return web.Response(status=204)

    async def _control_limit_counts(self, _request: web.Request) -> web.Response:
        return web.json_response(text=self._limiter.counts().model_dump_json())

    async def _control_arrivals(self, request: web.Request) -> web.Response:
        arrivals = self._limiter.arrivals(int(request.query["first"]), RECORDS_PER_PAGE_MAX)
        return web.json_response(body=ARRIVALS.dump_json(arrivals))


async def _models(_request: web.Request) -> web.Response:
    model = {"id": "simulator", "object": "model", "created": 0, "owned_by": "callgate"}
    return web.json_response({"object": "list", "data": [model]})


async def _not_found(request: web.Request) -> web.StreamResponse:
    return await _send(request, _error(404, f"Invalid URL ({request.method} {request.path})"))


def _error(
    status: int, message: str, body_of: Callable[[int, ErrorBody], bytes] = error_body
) -> Reply:
    headers = CIMultiDict({"Content-Type": "application/json"})
    error = ErrorBody(message=message, type="invalid_request_error")
    return Reply(status, headers, body_of(status, error))


async def _send_as_scripted(request: web.Request, step: Step, reply: Reply) -> web.StreamResponse:
    """Send the reply as the step requires. If no head was sent, the response is not prepared."""
    match step.kind:
        case Kind.HANG:
            await asyncio.sleep(step.hang_s)
            return _reset(request, web.Response())
        case Kind.RESET_BEFORE_HEADERS:
            return _reset(request, web.Response())
        case Kind.RESET_AFTER_HEADERS:
            return _reset(request, await _send_head(request, reply))
        case Kind.TRUNCATED_BODY:
            return await _send_half(request, reply)
        case Kind.SLOW_DRIP:
            return await _send_slowly(request, reply, step.drip_s)
        case _:
            return await _send(request, reply)


async def _send(request: web.Request, reply: Reply) -> web.StreamResponse:
    response = web.Response(status=reply.status, headers=reply.headers, body=reply.body)
    await response.prepare(request)
    await response.write_eof()
    return response


async def _send_head(request: web.Request, reply: Reply) -> web.StreamResponse:
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.content_length = len(reply.body)
    await response.prepare(request)
    return response


async def _send_half(request: web.Request, reply: Reply) -> web.StreamResponse:
    response = await _send_head(request, reply)
    await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _send_slowly(request: web.Request, reply: Reply, drip_s: float) -> web.StreamResponse:
    response = await _send_head(request, reply)
    piece_bytes = -(-len(reply.body) // DRIP_PIECES)
    for start in range(0, len(reply.body), piece_bytes):
        await asyncio.sleep(drip_s / DRIP_PIECES)
        await response.write(reply.body[start : start + piece_bytes])
    await response.write_eof()
    return response


def _reset(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection with a reset, so that the client does not read an end of file."""
    if request.transport is not None:
        connection: socket.socket = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        request.transport.abort()
    return response
