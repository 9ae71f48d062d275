"""
One of several processes that submit the same call at once, for `callgate demo`.

    standard input    the request as JSON, then an empty line when all processes are ready
    standard output   "ready", then a `SubmitterReport` as JSON
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog
from pydantic import BaseModel

from callgate import Client, LLMRequest
from callgate.client import Handle

THREADS_MAX = 32


class SubmitterReport(BaseModel):
    """What one process observed."""

    collapsed: int
    texts: tuple[str, ...]
    """The different answers to its submissions."""


def main() -> None:
    """Submit the request of standard input `--times` times at once, and wait for every result."""
    parser = argparse.ArgumentParser(prog="python -m devkit.demo.submitter")
    parser.add_argument("--times", type=int, required=True)
    parser.add_argument("--timeout-s", type=float, required=True)
    options = parser.parse_args()
    # Standard output is for the report.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    request = LLMRequest.model_validate_json(sys.stdin.readline())
    with Client.from_env() as client, ThreadPoolExecutor(THREADS_MAX) as threads:
        _print_line("ready")
        sys.stdin.readline()
        handles = list(threads.map(lambda _: client.submit(request), range(options.times)))
        _print_line(_report(handles, options.timeout_s).model_dump_json())


def _report(handles: Sequence[Handle], timeout_s: float) -> SubmitterReport:
    texts = {handle.get(timeout=timeout_s).text for handle in handles}
    return SubmitterReport(
        collapsed=sum(handle.collapsed for handle in handles), texts=tuple(texts)
    )


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
