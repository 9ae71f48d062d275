"""The lines of a worker's log."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOSTILE = "\\x1b[2J\\x9b31m"
WRITES = f"""
import structlog
from worker.log_config import configure_logging
configure_logging(as_json=AS_JSON)
log = structlog.get_logger("callgate")
log.warning("ev{HOSTILE}ent", queue="q{HOSTILE}", n=1)
try:
    raise ValueError("boom {HOSTILE}")
except ValueError:
    log.exception("failed")
"""


@pytest.mark.parametrize("as_json", [True, False])
def test_control_characters_in_a_log_line_are_escaped(as_json: bool) -> None:
    """Events, values and tracebacks quote what strangers chose; a traceback keeps its lines."""
    program = WRITES.replace("AS_JSON", str(as_json))

    argv = [sys.executable, "-c", program]
    ran = subprocess.run(argv, capture_output=True, text=True)  # noqa: S603 - ours

    assert ran.returncode == 0
    assert "boom" in ran.stderr
    assert [c for c in ran.stderr if c != "\n" and not c.isprintable()] == []
    assert as_json or len(ran.stderr.splitlines()) > 3
