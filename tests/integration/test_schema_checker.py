"""The process that checks answers: its limits, its end, and the effect on others."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from callgate.adapters.json_schema_validator import COMPLAINTS_CHARS_MAX
from callgate.domain.answers import Answer
from callgate.domain.errors import CheckerUnavailable, OutputUnchecked, SchemaTooCostly
from tests.support.deployment import until
from worker.isolation import schema_checker
from worker.isolation.schema_checker import KILLS_MAX, SchemaChecker
from worker.isolation.schema_child import DATA_MAX_BYTES, KEPT_MAX_KIB

pytestmark = pytest.mark.long
NODE = {"$ref": "#/$defs/node"}
INNER = {"type": "object", "properties": {"in": NODE}, "required": ["in"]}
DOUBLING = json.dumps({"$defs": {"node": {"anyOf": [INNER, INNER, {"type": "string"}]}}, **NODE})
"""Visited twice as often at each level of the answer."""
DEEP = '{"in":' * 60 + "1" + "}" * 60
ENUM = json.dumps({"items": {"enum": [{"value": n} for n in range(15_000)]}})
FEW = json.dumps([{"value": 14_999}] * 10_000)
INTEGER = '{"type": "integer"}'
PATIENCE_S = 120.0
"""Checks are limited by processor time; how long that takes depends on what else the machine does."""


@pytest.fixture
def checker() -> Iterator[SchemaChecker]:
    """A checker without a child yet."""
    checker = SchemaChecker()
    yield checker
    checker.close()


def check(checker: SchemaChecker, schema: str, text: str, org_id: str) -> str | None:
    """Have one text checked; raise the reason if it could not be checked."""
    (found,) = checker.check_all([Answer(org_id, schema, (text,))], PATIENCE_S)
    if isinstance(found, Exception):
        raise found
    return found


def pid_of(checker: SchemaChecker) -> int:
    """The pid of its child, which is started if there is none."""
    assert check(checker, INTEGER, "1", "acme") is None
    assert checker.child_pid is not None
    return checker.child_pid


def costly_answers() -> list[Answer]:
    """Forty answers of one organisation; each takes a second of CPU time and ends its child."""
    schema = json.loads(DOUBLING)
    return [Answer("acme", json.dumps({**schema, "title": str(n)}), (DEEP,)) for n in range(40)]


def test_it_returns_the_findings_of_the_validator(checker: SchemaChecker) -> None:
    """One child checks all of them."""
    pid = pid_of(checker)
    named = '{"properties": {"größe": {"type": "string"}}}'

    assert check(checker, INTEGER, '"x"', "acme") == "$: breaks 'type'"
    assert check(checker, named, '{"größe": 1}', "acme") == "$.größe: breaks 'type'"
    assert check(checker, INTEGER, "no json \ud83d", "acme") == "is not JSON"
    assert check(checker, '{"type": "objct"}', "1", "acme") == "$.type: breaks 'anyOf'"
    assert check(checker, "{}", json.dumps("x" * 3_000_000), "acme") is None
    assert checker.child_pid == pid


def test_it_finds_more_than_one_complaint_if_asked(checker: SchemaChecker) -> None:
    """Answers in the same batch that are asked for one have one, and all are of one child."""
    pid = pid_of(checker)
    schema = json.dumps({"type": "object", "required": ["a", "b"]})
    asked = [Answer("acme", schema, ("{}",), most) for most in (1, 10, 1)]

    found = checker.check_all(asked, PATIENCE_S)

    assert found == [
        "$.a: breaks 'required'",
        "$.a: breaks 'required'\n$.b: breaks 'required'",
        "$.a: breaks 'required'",
    ]
    assert checker.check_all([Answer("acme", schema, ('{"a":1,"b":2}',), 10)], PATIENCE_S) == [None]
    assert checker.child_pid == pid


def test_a_costly_search_for_complaints_leaves_the_first_one(checker: SchemaChecker) -> None:
    """The answer surely breaks its schema, so it is no answer that is too costly to check."""
    most = COMPLAINTS_CHARS_MAX // 20
    schema = json.dumps({"items": {"required": [f"name {n}" for n in range(400)]}})
    pid = pid_of(checker)

    found = checker.check_all([Answer("acme", schema, (json.dumps([{}] * most),), 10)], PATIENCE_S)

    assert found == ["$[0].name 0: breaks 'required'"]
    assert pid_of(checker) != pid


@pytest.mark.parametrize(("schema", "text"), [(DOUBLING, DEEP), (ENUM, FEW)])
def test_a_costly_check_ends_only_itself(checker: SchemaChecker, schema: str, text: str) -> None:
    """Two to the sixtieth visits, or gigabytes: the next check has another child."""
    pid = pid_of(checker)

    with pytest.raises(SchemaTooCostly):
        check(checker, schema, text, "acme")

    assert check(checker, INTEGER, "1", "acme") is None
    assert checker.child_pid != pid
    assert not Path(f"/proc/{pid}").exists()


def test_a_costly_schema_is_not_tried_again(checker: SchemaChecker) -> None:
    """Not with another answer either; the same schema of another organisation is."""
    with pytest.raises(SchemaTooCostly):
        check(checker, DOUBLING, DEEP, "acme")
    pid, begun = pid_of(checker), time.monotonic()

    for _ in range(50):
        with pytest.raises(SchemaTooCostly):
            check(checker, DOUBLING, '"fits"', "acme")

    assert time.monotonic() - begun < 20
    assert check(checker, DOUBLING, '"fits"', "globex") is None
    assert checker.child_pid == pid


def test_eight_megabytes_of_brackets_do_not_grow_the_child(checker: SchemaChecker) -> None:
    """The largest answer: it is checked or too costly, and a process that has grown ends."""
    pid = pid_of(checker)

    with suppress(SchemaTooCostly):
        check(checker, '{"type": "array"}', "[" + "[]," * 2_600_000 + "[]]", "acme")

    assert check(checker, INTEGER, "1", "acme") is None
    assert checker.child_pid != pid


def test_the_child_of_a_large_process_is_kept(checker: SchemaChecker) -> None:
    """`ru_maxrss` of a program starts with the peak of its parent."""
    large = bytearray(KEPT_MAX_KIB * 1_024)
    large[::4_096] = b"x" * len(large[::4_096])
    pid = pid_of(checker)

    assert check(checker, INTEGER, "2", "acme") is None
    assert checker.child_pid == pid


def test_the_child_inherits_nothing(
    checker: SchemaChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No socket, no file but its pipes, no variable: a schema that broke out would find nothing."""
    monkeypatch.setenv("CALLGATE_DATABASE_URL", "postgresql://worker:secret@ledger/callgate")
    process = Path(f"/proc/{pid_of(checker)}")

    names = {str(fd.readlink()).partition(":")[0] for fd in (process / "fd").iterdir()}
    variables = {
        line.partition(b"=")[0] for line in (process / "environ").read_bytes().split(b"\0")
    }

    assert names == {"pipe", "/dev/null"}
    assert variables <= {b"PYTHONPATH", b"LC_CTYPE", b""}
    limits = (process / "limits").read_text()
    assert str(DATA_MAX_BYTES) in limits


def test_a_child_killed_from_outside_blames_no_schema(checker: SchemaChecker) -> None:
    """The answer waits; the next try has another child."""
    pid = pid_of(checker)
    os.kill(pid, signal.SIGSTOP)
    failures: list[BaseException] = []

    def try_it() -> None:
        try:
            check(checker, INTEGER, "2", "acme")
        except CheckerUnavailable as exc:
            failures.append(exc)

    thread = threading.Thread(target=try_it)
    thread.start()
    until(lambda: (Path(f"/proc/{pid}") / "stat").read_text().rpartition(")")[2].split()[0] == "T")
    os.kill(pid, signal.SIGKILL)
    thread.join(30)

    assert check(checker, INTEGER, "2", "acme") is None
    assert checker.child_pid != pid
    # It may have been found dead before the order was written; then there was nothing to fail.
    assert len(failures) <= 1


def test_a_child_that_is_found_dead_leaves_no_pipe_open(checker: SchemaChecker) -> None:
    """It was killed between two answers, so no order has failed."""
    pid = pid_of(checker)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    os.kill(pid, signal.SIGKILL)
    until(lambda: (Path(f"/proc/{pid}") / "stat").read_text().rpartition(")")[2].split()[0] == "Z")

    assert check(checker, INTEGER, "2", "acme") is None
    assert checker.child_pid != pid
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files


def test_repeated_kills_over_one_schema_make_it_costly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The machine may have less memory than a check may take, and the answer must not wait without end."""
    monkeypatch.setattr(schema_checker, "ANSWER_MAX_S", 0.0)
    silent = "import time; print('ready', flush=True); time.sleep(600)"
    checker = SchemaChecker([sys.executable, "-c", silent])

    for _ in range(KILLS_MAX - 1):
        with pytest.raises(CheckerUnavailable):
            check(checker, INTEGER, "2", "acme")
    with pytest.raises(SchemaTooCostly):
        check(checker, INTEGER, "2", "acme")
    checker.close()


def test_an_unexpected_error_fails_only_its_answer(tmp_path: Path) -> None:
    """If it were left to recovery, it would return again and again."""
    program = tmp_path / "child.py"
    program.write_text("print('ready', flush=True); input(); print('no json', flush=True)")
    checker = SchemaChecker([sys.executable, str(program)])

    (found,) = checker.check_all([Answer("acme", "\n", ("\n",))], PATIENCE_S)

    checker.close()
    assert isinstance(found, OutputUnchecked)
    assert str(found) == "checking the answer failed: JSONDecodeError"


def test_a_signal_that_the_worker_ignores_still_ends_a_check() -> None:
    """Ignored and blocked signals are inherited."""
    before = signal.signal(signal.SIGPROF, signal.SIG_IGN)
    checker = SchemaChecker()
    try:
        with pytest.raises(SchemaTooCostly):
            check(checker, DOUBLING, DEEP, "acme")
    finally:
        signal.signal(signal.SIGPROF, before)
        checker.close()


def test_without_a_child_answers_wait_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is missing, or ends at once."""
    for argv in (["/nowhere/python"], [sys.executable, "-c", ""]):
        now = [100.0]
        monkeypatch.setattr(schema_checker, "monotonic", lambda now=now: now[0])
        checker = SchemaChecker(argv)
        with pytest.raises(CheckerUnavailable):
            check(checker, INTEGER, "1", "acme")
        now[0] += schema_checker.UNAVAILABLE_MAX_S
        with pytest.raises(CheckerUnavailable):
            check(checker, INTEGER, "1", "acme")
        now[0] += 1.0
        with pytest.raises(OutputUnchecked):
            check(checker, INTEGER, "1", "acme")
        checker.close()


def test_organisations_take_turns(checker: SchemaChecker) -> None:
    """One has forty costly answers, each with its own schema: another's hundred wait for few of them."""
    pid = pid_of(checker)
    flood = threading.Thread(target=lambda: checker.check_all(costly_answers(), 10 * PATIENCE_S))
    flood.start()
    # The first of them has ended its child.
    until(lambda: checker.child_pid != pid, PATIENCE_S)

    found = checker.check_all([Answer("globex", INTEGER, ("1",))] * 100, PATIENCE_S)

    # It would have taken 40 s of a processor.
    assert flood.is_alive()
    assert found == [None] * 100
    closed_at = time.monotonic()
    checker.close()
    flood.join(PATIENCE_S)
    assert time.monotonic() - closed_at < PATIENCE_S / 4


def test_answers_over_time_are_left_unchecked(checker: SchemaChecker) -> None:
    """What was found until then is returned."""
    pid_of(checker)
    within_s = 8.0
    begun = time.monotonic()

    found = checker.check_all([Answer("globex", INTEGER, ("x",)), *costly_answers()], within_s)

    assert time.monotonic() - begun < within_s + 8
    assert found[0] == "is not JSON"
    assert isinstance(found[-1], CheckerUnavailable)


def test_the_child_ends_with_its_worker() -> None:
    """In whatever way the worker ends."""
    program = (
        "import time; from callgate.domain.ports import Answer;"
        "from worker.isolation.schema_checker import SchemaChecker; c = SchemaChecker();"
        f"c.check_all([Answer('acme', {INTEGER!r}, ('1',))], {PATIENCE_S});"
        "print(c.child_pid, flush=True); time.sleep(60)"
    )
    read, write = os.pipe()
    owner = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", program],
        {**os.environ, "PYTHONPATH": str(Path.cwd())},
        file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)],
    )
    os.close(write)
    with os.fdopen(read) as output:
        pid = int(output.readline())
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)

    until(lambda: not Path(f"/proc/{pid}").exists())
