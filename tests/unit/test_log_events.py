"""The table of events lists what the product logs: events, levels, fields; docs/log-events.md is that table."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from callgate.domain.log_events import EVENTS, NOTHING, SECTIONS, Level
from tests.support import log_events_page

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("callgate", "worker", "tasks", "config")
LEVELS = {"exception": "error"} | {
    level: level for level in ("debug", "info", "warning", "error", "critical")
}
EVENT = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")
IRREGULAR = {"done", "found", "lost", "read", "understood", "unavailable"}

Scanned = dict[str, tuple[set[str], set[str]]]


def test_the_table_lists_what_the_code_logs() -> None:
    code = _scanned()

    assert sorted(code.keys() - EVENTS.keys()) == [], "not in the table"
    assert sorted(EVENTS.keys() - code.keys()) == [], "not logged by any code"
    for name, (levels, fields) in code.items():
        event = EVENTS[name]
        assert (name, {event.level}, set(event.fields)) == (name, levels, fields - {"todo"})


def test_the_page_is_written_from_the_table() -> None:
    written = log_events_page.PAGE.read_text("utf-8")

    assert written == log_events_page.page(), "run python -m tests.support.log_events_page"


def test_a_counted_event_has_no_count_of_its_own() -> None:
    assert [e.name for e in EVENTS.values() if e.counted_by and "count" in e.fields] == []


def test_each_event_is_listed_once() -> None:
    assert len(EVENTS) == sum(len(section.events) for section in SECTIONS)


def test_events_are_a_noun_and_a_past_participle() -> None:
    odd = [
        event
        for event in _scanned()
        if not EVENT.fullmatch(event)
        or not any(w.endswith("ed") or w in IRREGULAR for w in re.split("[._]", event)[1:])
    ]

    assert odd == []


def test_every_event_says_what_it_means_and_what_is_bad_says_what_to_do() -> None:
    bad = [event for event in EVENTS.values() if event.level in (Level.ERROR, Level.CRITICAL)]

    assert all(event.meaning.endswith(".") for event in EVENTS.values())
    assert all("|" not in event.meaning + event.remedy for event in EVENTS.values())
    assert [event.name for event in bad if event.remedy == NOTHING] == []


def test_only_structlog_logs() -> None:
    """The standard library's loggers are handed to libraries; nothing of ours is logged through them."""
    calls = [
        f"{file.relative_to(CHECKOUT)}:{node.lineno}"
        for file, _, node in _log_calls()
        if not (isinstance(node.func, ast.Attribute) and _is_log(node.func.value))
    ]

    assert calls == []


def _scanned() -> Scanned:
    found: defaultdict[str, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for _, tree, call in _log_calls():
        assert isinstance(call.func, ast.Attribute)
        for event in _texts(call.args[0], tree):
            levels, fields = found[event]
            levels.add(LEVELS[call.func.attr])
            for keyword in call.keywords:
                fields |= {keyword.arg} if keyword.arg else _keys(keyword.value, tree)
    return dict(found)


@cache
def _log_calls() -> list[tuple[Path, ast.Module, ast.Call]]:
    """Calls of a level's method on anything that is named like a logger, with their modules."""
    return [
        (file, tree, node)
        for package in PACKAGES
        for file in sorted((CHECKOUT / package).rglob("*.py"))
        for tree in [ast.parse(file.read_text())]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in LEVELS
        and "log" in ast.unparse(node.func.value).lower()
    ]


def _is_log(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "log"


def _texts(node: ast.expr, tree: ast.Module) -> list[str]:
    """The texts that an argument may be: a constant, a choice of two, or a variable with such a value."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.IfExp):
        return _texts(node.body, tree) + _texts(node.orelse, tree)
    return [text for value in _values_of(node, tree) for text in _texts(value, tree)]


def _keys(node: ast.expr, tree: ast.Module) -> set[str]:
    """The keys of the dictionary that `**name`, or `**function(...)` of the same module, stands for."""
    found: set[str] = set()
    for value in _values_of(node, tree):
        if isinstance(value, ast.Dict):
            for key, of_key in zip(value.keys, value.values, strict=True):
                if key is None:
                    found |= _keys(of_key, tree)
                elif isinstance(key, ast.Constant):
                    found.add(str(key.value))
    return found


def _values_of(name: ast.expr, tree: ast.Module) -> list[ast.expr]:
    if isinstance(name, ast.Call):
        return _returned_by(ast.unparse(name.func), tree)
    assert isinstance(name, ast.Name), ast.unparse(name)
    found = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == name.id for t in node.targets)
    ]
    assert found, f"nothing is assigned to {name.id}"
    return found


def _returned_by(function: str, tree: ast.Module) -> list[ast.expr]:
    found = [
        node.value
        for top in tree.body
        if isinstance(top, ast.FunctionDef) and top.name == function
        for node in ast.walk(top)
        if isinstance(node, ast.Return) and node.value is not None
    ]
    assert found, f"{function} is no function of this module"
    return found
