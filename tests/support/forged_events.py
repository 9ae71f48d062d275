"""Events that a user of the broker forges for Flower."""

from __future__ import annotations

from typing import Any

from tests.support.flower import HTML, heartbeat, task_event

FORGED: dict[str, dict[str, Any]] = {
    "html as a number": heartbeat(hostname="forged@0", active=HTML),
    "html as a name": heartbeat(hostname=HTML),
    "html as a list": heartbeat(hostname="forged@1", loadavg=[HTML]),
    "a list as a number": heartbeat(hostname="forged@2", processed=[HTML]),
    "not a number": heartbeat(hostname="forged@3", freq=float("nan")),
    "alive without end": heartbeat(hostname="forged@4", freq=1e12),
    "in another century": heartbeat(hostname="forged@5", timestamp=4e9),
    "no time": heartbeat(hostname="forged@6", timestamp="now"),
    "an unknown type": heartbeat(hostname="forged@7", type="worker-hacked"),
    "a long name": heartbeat(hostname="forged@8" + "x" * 10_000),
    "a huge clock": heartbeat(hostname="forged@9", clock=2**100),
    "a truth as a number": heartbeat(hostname="forged@10", active=True),
}
FORGED_TASKS: dict[str, dict[str, Any]] = {
    "html as an id": task_event(uuid=HTML),
    "html as a name": task_event(uuid="forged-0", name=HTML),
    "a list as a name": task_event(uuid="forged-1", name=[HTML]),
    "a list as arguments": task_event(uuid="forged-2", args=[HTML]),
    "a list as retries": task_event(uuid="forged-3", retries=[HTML]),
    "html as a time": task_event(uuid="forged-4", eta=HTML),
    "html as a run time": task_event("succeeded", uuid="forged-5", runtime=HTML, result="1"),
    "html as a state": task_event(f"{HTML}", uuid="forged-6"),
    "a list as an exception": task_event("failed", uuid="forged-7", exception=[HTML]),
    "html as its root": task_event(uuid="forged-8", root_id=HTML),
}
