"""`callgate demo`: real servers, a real model, and an audit without drift."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "callgate", "demo", "--json"]
DEMO_TIMEOUT_S = 900
STOP_TIMEOUT_S = 60


@pytest.mark.timeout(DEMO_TIMEOUT_S + 60)
def test_the_demo_keeps_every_promise() -> None:
    """Duplicates collapse, every request is logged, every refusal is counted, and the audit is clean."""
    done = subprocess.run(  # noqa: S603 - our own module
        DEMO, cwd=CHECKOUT, capture_output=True, text=True, timeout=DEMO_TIMEOUT_S, check=False
    )

    # Shown by pytest where it fails, and with -rP.
    sys.stderr.write(done.stderr)
    assert done.returncode == 0
    [line] = done.stdout.splitlines()
    totals = json.loads(line)
    assert totals.pop("spent_nano_usd") > 0
    assert totals == {
        "submitted": 16 + 16 + 50 + 24 + 4 + 3 * 16,
        "collapsed": 16 + 49,
        "provider_requests": 16 + 1 + 12 + 4 * 3 + 2 + 3 * 16,
        "logged": 16 + 1 + 12 + 4 * 3 + 2 + 3 * 16,
        "succeeded": 16 + 1 + 12 + 2 + 2 + 3 * 16,
        "refused": 12,
        "dead": 2,
        "redriven": 2,
        "drift_nano_usd": 0,
    }


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C ends every process of the demo, removes its folder, and says so with exit code 130."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(  # noqa: S603 - our own module
        DEMO, cwd=CHECKOUT, env=environment, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stderr is not None
        line_of_worker = next(line for line in demo.stderr if "worker process runs" in line)

        demo.send_signal(signal.SIGINT)
        status = demo.wait(STOP_TIMEOUT_S)

    assert line_of_worker
    assert status == 130
    assert list(tmp_path.iterdir()) == []
    assert _processes_that_mention(str(tmp_path)) == []


def _processes_that_mention(text: str) -> list[str]:
    """Command lines and environments of all processes, searched for what only the demo's own can hold."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text_of_process = (entry / "cmdline").read_bytes() + (
                    entry / "environ"
                ).read_bytes()
            except OSError:
                # It ended meanwhile, or belongs to somebody else.
                continue
            if text.encode() in text_of_process:
                found.append(entry.name)
    return found
