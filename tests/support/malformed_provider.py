"""A server with malformed answers. The text of a request's last message selects the case."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MIB = 2**20
GOOD_USAGE = {"prompt_tokens": 11, "completion_tokens": 7}


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    body: bytes | Callable[[], bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        """The body's bytes."""
        return self.body if isinstance(self.body, bytes) else self.body()


def completion(text: object = "fine", usage: object = GOOD_USAGE, **fields: Any) -> bytes:
    """A chat completion; values may be invalid."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return json.dumps({"id": "odd", "choices": [choice], "usage": usage, **fields}).encode()


def limited(retry_after: str) -> list[Answer]:
    """A 429 with this Retry-After, then a good answer."""
    return [Answer(b"{}", 429, {"Retry-After": retry_after}), Answer(completion())]


def encoded(name: str, body: bytes) -> list[Answer]:
    """A good answer in this Content-Encoding."""
    return [Answer(body, headers={"Content-Encoding": name})]


def counted(**counts: object) -> list[Answer]:
    """A good answer with these token counts."""
    return [Answer(completion(usage={**GOOD_USAGE, **counts}))]


@cache
def bomb() -> bytes:
    """200 MiB, compressed. Made when it is asked for: it takes a second and much memory."""
    return gzip.compress(completion("x" * 200 * MIB), 1)


CASES: Mapping[str, list[Answer]] = {
    "nested too deeply": [Answer(b'{"choices":' + b"[" * 300_000)],
    "a text nested too deeply": [Answer(completion("[" * 300_000))],
    "a number of a million digits": [Answer(b'{"choices": ' + b"9" * MIB + b"}")],
    "huge": [Answer(completion("x" * 9 * MIB))],
    "a bomb": [Answer(bomb, headers={"Content-Encoding": "gzip"})],
    "encoded gzip, two members": encoded(
        "gzip", gzip.compress(completion()[:40]) + gzip.compress(completion()[40:])
    ),
    "encoded x-gzip": encoded("x-gzip", gzip.compress(completion())),
    "encoded deflate, raw": encoded("deflate", zlib.compress(completion())[2:-4]),
    "large": [Answer(completion("é" * MIB))],
    "half a character": [Answer(completion("a\ud800b"))],
    "NUL": [Answer(completion("a\x00b", id="\x00", model="\x00", service_tier="\x00"))],
    "retry-after nan": limited("nan"),
    "retry-after inf": limited("inf"),
    "retry-after 1e999": limited("1e999"),
    "retry-after -1": limited("-1"),
    "retry-after words": limited("when it suits"),
    "tokens over int4": counted(prompt_tokens=2**31),
    "tokens over int8": counted(completion_tokens=2**63),
    "negative tokens": counted(prompt_tokens=-11),
    "half a token": counted(completion_tokens=7.5),
    "infinite tokens": counted(prompt_tokens=float("inf")),
    "no number of tokens": counted(prompt_tokens=float("nan")),
    "more cached than read": counted(prompt_tokens_details={"cached_tokens": 12}),
    "more reasoned than written": counted(completion_tokens_details={"reasoning_tokens": 8}),
    "a usage in words": [Answer(completion(usage="much"))],
}


@contextmanager
def malformed_provider() -> Iterator[str]:
    """Run the server and yield its base URL. The k-th request of a case gets its k-th answer; the last one repeats."""
    bomb()
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            case = json.loads(body)["messages"][-1]["content"]
            with lock:
                answer = CASES[case][min(asked[case], len(CASES[case]) - 1)]
                asked[case] += 1
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.data)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.data)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Log nothing: clients may hang up early."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
