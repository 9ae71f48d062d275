"""What an operator reads of a failure: what failed and where, whose it is, and the exact commands that help."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from typer.main import get_command

from callgate.cli import build_app
from callgate.domain.alert_words import BY_HAND, TODOS, opened_todo, todo_of, words_of
from callgate.domain.alerts import Alert, AlertKind
from callgate.domain.budgets import BudgetRefusal, RefusalReason, Window
from callgate.domain.causes import OF_NO_ORGANISATION, cause_of_json, whose
from callgate.domain.remedies import REMEDIES, Concerns, key_todo, remedy_of
from callgate.domain.times import minute_of
from callgate.domain.urls import host_of

AT = datetime(2026, 11, 30, 5, 11, 12, tzinfo=UTC)
BREAKER = {
    "provider": "sim", "model": "sim-1", "credential": "", "since": AT.isoformat(), "calls_of": "acme",
    "reason": "connection_failed", "cause": "10.0.0.1:9: could not connect", "fingerprint": "f00d",
}  # fmt: skip
BUDGET = {
    "percent": 100, "scope": "org", "window": "day", "starts_at": AT.isoformat(), "limit_nano_usd": 10**9,
    "ends_at": datetime(2026, 12, 1, tzinfo=UTC).isoformat(), "spent_nano_usd": 10**9, "held_nano_usd": 0,
}  # fmt: skip


def alert(kind: AlertKind, subject: str, **detail: Any) -> Alert:
    return Alert(1, kind, "acme", subject, detail, AT)


def commands_in(text: str) -> list[list[str]]:
    """The commands of callgate that a text names."""
    return [shlex.split(found)[1:] for found in re.findall(r"`(callgate [^`]*)`", text)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.example.com/v1", "api.example.com:443"),
        ("http://127.0.0.1:4711/v1", "127.0.0.1:4711"),
        ("http://[::1]:9/v1", "[::1]:9"),
        ("https://user:hunter2@host:8443/v1?key=hunter2", "host:8443"),
        ("https://user:hunter2/x@host/v1", ""),
        ("https://host:port/v1", ""),
        ("", ""),
    ],
)
def test_of_a_url_only_host_and_port_are_shown(url: str, shown: str) -> None:
    assert host_of(url) == shown


def test_an_alert_of_a_breaker_says_what_failed_where_and_whose_it_is() -> None:
    said = words_of(alert(AlertKind.BREAKER_OPEN, "sim/sim-1", **BREAKER))

    assert said == (
        "Calls of sim/sim-1 wait since 2026-11-30 05:11 UTC: connection_failed (10.0.0.1:9: could not connect)."
        " It concerns the provider's shared key; so far only calls of acme failed."
    )


@pytest.mark.parametrize(
    ("reason", "credential", "org_id", "said"),
    [
        *(
            (code, "", "acme", "the provider's shared key; so far")
            for code in sorted(OF_NO_ORGANISATION)
        ),
        ("server_error", "", "acme", "only calls of acme"),
        ("insufficient_quota", "bolt", "bolt", "the own key of bolt"),
        ("timeout", "", "", "the provider's shared key; every organisation's calls wait"),
    ],
)
def test_a_breaker_says_whom_it_concerns(
    reason: str, credential: str, org_id: str, said: str
) -> None:
    assert whose(reason, credential, org_id).startswith(said)


def test_without_money_one_pays_closes_and_redrives() -> None:
    detail = {**BREAKER, "reason": "insufficient_quota", "cause": None}
    todo = todo_of(alert(AlertKind.BREAKER_OPEN, "sim/sim-1", **detail))

    assert todo.startswith("Pay, or raise the limit")
    assert commands_in(todo) == [
        ["breakers", "close", "--provider", "sim", "--model", "sim-1", "--reason", "mended"],
        ["dead-letters", "redrive", "--fingerprint", "f00d", "--reason", "..."],
    ]


def test_what_an_operator_opened_an_operator_closes() -> None:
    detail = {**BREAKER, "reason": "operator", "cause": None}
    opened = alert(AlertKind.BREAKER_OPEN, "sim/sim-1", **detail)

    assert todo_of(opened) == BY_HAND == opened_todo("any words", Concerns(), is_by_hand=True)
    assert "wait since 2026-11-30 05:11 UTC: opened by an operator." in words_of(opened)


@pytest.mark.parametrize(
    ("name", "has_folder", "said"),
    [
        ("sim", False, "set CALLGATE_WORKER__CREDENTIALS__SIM and restart the worker"),
        ("sim", True, "put it into the file sim of CALLGATE_WORKER__CREDENTIALS_DIR; a running worker reads it"),
        ("sim.acme", False, "set CALLGATE_WORKER__CREDENTIALS__SIM.acme and restart the worker"),
    ],
)  # fmt: skip
def test_a_missing_key_names_the_variable_or_the_file(
    name: str, has_folder: bool, said: str
) -> None:
    assert key_todo(name, has_folder=has_folder) == said


def test_where_the_folder_is_not_known_both_are_named() -> None:
    todo = remedy_of("missing_credentials", Concerns("sim", "sim-1"))

    assert "CALLGATE_WORKER__CREDENTIALS__SIM and restart the worker" in todo
    assert "if the worker has such a folder, put it into the file sim of" in todo


def test_no_remedy_has_a_gap() -> None:
    for code in REMEDIES:
        todo = remedy_of(code, Concerns("sim", "sim-1", fingerprint="f00d", is_open=True))
        assert not re.search(r"[{}<>]|PROVIDER|MODEL", todo), todo


def test_every_command_in_advice_can_be_typed() -> None:
    """Words after options may be dots: the reader fills them in."""
    texts = [remedy_of(code, Concerns("sim", "sim-1", fingerprint="f00d")) for code in REMEDIES]
    texts += [*TODOS.values(), todo_of(alert(AlertKind.BUDGET_THRESHOLD, "acme/org/day", **BUDGET))]
    texts += [
        todo_of(alert(AlertKind.FROZEN, "acme")),
        todo_of(alert(AlertKind.DEAD_LETTERS, "acme")),
    ]
    root: Any = get_command(build_app())

    for words in (words for text in texts for words in commands_in(text)):
        command, options = root, []
        for word in words:
            if word.startswith("--"):
                options.append(word)
            elif hasattr(command, "commands"):
                assert word in command.commands, words
                command = command.commands[word]
        known = {name for parameter in command.params for name in parameter.opts}
        assert set(options) <= known, words


@pytest.mark.parametrize("kind", [*AlertKind])
def test_every_kind_has_words_and_advice(kind: AlertKind) -> None:
    detail = {
        **BREAKER, **BUDGET, "value": 1.0, "per_hour": 3, "operator": "nina", "differ": ["version"],
        "workers": ["a"], "count": 1, "alive": 2,
    }  # fmt: skip

    assert words_of(alert(kind, "acme/org/day", **detail)).endswith((".", "connection_failed"))
    assert todo_of(alert(kind, "acme/org/day", **detail)).endswith((".", "says which)."))


def test_a_used_budget_says_what_becomes_of_the_calls() -> None:
    used_up = alert(AlertKind.BUDGET_THRESHOLD, "acme/org/day", **BUDGET)

    assert words_of(used_up).endswith("of $1.000000, until 2026-12-01 00:00 UTC.")
    todo = todo_of(used_up)
    assert "callgate budgets set acme --daily-usd" in todo
    assert "from 2026-12-01 00:00 UTC on" in todo
    assert "must be submitted again" in todo
    of_type = {**BUDGET, "percent": 80, "scope": "call_type:chat", "window": "month"}
    assert "callgate budgets set acme --call-type chat --monthly-usd" in todo_of(
        alert(AlertKind.BUDGET_THRESHOLD, "acme/call_type:chat/month", **of_type)
    )


def test_a_lost_lease_says_since_when() -> None:
    lost = alert(AlertKind.LEASE_LOST, "host:1:x", worker_id="host:1:x", since=AT.isoformat())

    assert words_of(lost) == (
        "The worker process host:1:x does not renew its lease since 2026-11-30 05:11 UTC. Its calls were taken over."
    )


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            RefusalReason.TOO_SMALL,
            "the call may cost $0.001203, which is more than the whole limit of $0.001000: raise it to at least",
        ),
        (
            RefusalReason.HELD,
            "the call may cost $0.001203, and $0.000700 are left: of the limit of $0.001000, $0.000200 are spent",
        ),
    ],
)
def test_a_refusal_of_a_budget_is_in_plain_words(reason: RefusalReason, said: str) -> None:
    refusal = BudgetRefusal(
        reason, "acme", "org", Window.DAY, 1_000_000, 200_000, 100_000, 1_203_000
    )

    assert str(refusal).startswith(f"org 'acme', scope 'org' per day: {said}")
    assert "at least $0.001203" in remedy_of("budget_too_small", Concerns(needed="$0.001203"))
    assert "wait" not in remedy_of("budget_too_small").replace("waiting does not help", "")


def test_what_is_no_failure_has_no_cause() -> None:
    assert [cause_of_json(text) for text in (None, "no JSON", "[]", '{"code": "timeout"}')] == [
        None
    ] * 4


def test_times_are_written_in_one_way() -> None:
    assert minute_of(AT.astimezone(timezone(timedelta(hours=5)))) == "2026-11-30 05:11 UTC"
