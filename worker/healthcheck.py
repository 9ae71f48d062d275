"""
Ask the process of this container how it is: `python -m worker.healthcheck ready` (or `live`).

The exit code is 0 if it is. Otherwise the answer, which says why not, is printed for `docker inspect`.
"""

from __future__ import annotations

import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException

from callgate.domain.errors import CallgateError
from config.settings import WorkerOptions, load_worker_settings

TIMEOUT_S = 10.0
ANSWER_MAX_BYTES = 8_192
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


def main(question: str = "ready", process: str = "worker") -> int:
    """Return 0 if the process answers that it is live, or ready."""
    try:
        host, port, prefix = _place(load_worker_settings().worker, process)
        with closing(HTTPConnection(host, port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", f"{prefix}/{question}")
            answer = connection.getresponse()
            text = answer.read(ANSWER_MAX_BYTES).decode(errors="replace")
    except (CallgateError, HTTPException, OSError) as exc:
        print(f"the {process} cannot be asked: {exc}", file=sys.stderr)  # noqa: T201 - for the operator
        return 1
    if answer.status != 200:
        print(text, file=sys.stderr)  # noqa: T201 - for the operator
        return 1
    return 0


def _place(options: WorkerOptions, process: str) -> tuple[str, int, str]:
    """Host, port and path prefix of a process on this machine."""
    if process == "flower":
        prefix = f"/{options.flower_url_prefix}" if options.flower_url_prefix else ""
        host, port = options.flower_address, options.flower_port
    else:
        host, port, prefix = options.status_address, options.status_port, ""
    return EVERYWHERE.get(host, host), port, prefix


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
