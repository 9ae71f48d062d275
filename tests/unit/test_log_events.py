"""docs/log-events.md lists what the product logs: events, levels, fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "log-events.md"
PACKAGES = ("callgate", "worker", "tasks", "config")
LEVELS = {"exception": "error"} | {
    level: level for level in ("debug", "info", "warning", "error", "critical")
}
EVENT = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")
IRREGULAR = {"done", "found", "lost", "read", "understood", "unavailable"}
ROW = re.compile(r"\| `(?P<event>[^`]+)` \| (?P<level>\w+) \|(?P<fields>[^|]*)\| (?P<rest>.+) \|")

Scanned = dict[str, tuple[set[str], set[str]]]


def test_the_page_lists_what_the_code_logs() -> None:
    code, page = _scanned(), _listed()

    assert sorted(code.keys() - page.keys()) == [], "not on the page"
    assert sorted(page.keys() - code.keys()) == [], "not logged by any code"
    for event, (levels, fields) in code.items():
        assert (event, *page[event]) == (event, levels, fields)


def test_events_are_a_noun_and_a_past_participle() -> None:
    odd = [
        event
        for event in _scanned()
        if not EVENT.fullmatch(event)
        or not any(w.endswith("ed") or w in IRREGULAR for w in re.split("[._]", event)[1:])
    ]

    assert odd == []


def test_every_row_says_what_it_means_and_what_to_do() -> None:
    rows = [match["rest"] for match in map(ROW.fullmatch, PAGE.read_text().splitlines()) if match]

    assert rows
    assert all(len(row.split(" | ")) == 2 for row in rows)


def test_only_structlog_logs() -> None:
    """The standard library's loggers are handed to libraries; nothing of ours is logged through them."""
    calls = [
        f"{file.relative_to(CHECKOUT)}:{node.lineno}"
        for file, _, node in _log_calls()
        if not (isinstance(node.func, ast.Attribute) and _is_log(node.func.value))
    ]

    assert calls == []


def _listed() -> Scanned:
    found: Scanned = {}
    for match in filter(None, map(ROW.fullmatch, PAGE.read_text().splitlines())):
        assert match["event"] not in found, match["event"]
        found[match["event"]] = ({match["level"]}, set(re.findall("`([^`]+)`", match["fields"])))
    return found


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
    """The keys of the dictionary that `**name` stands for."""
    return {
        str(key.value)
        for value in _values_of(node, tree)
        if isinstance(value, ast.Dict)
        for key in value.keys
        if isinstance(key, ast.Constant)
    }


def _values_of(name: ast.expr, tree: ast.Module) -> list[ast.expr]:
    assert isinstance(name, ast.Name), ast.unparse(name)
    found = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == name.id for t in node.targets)
    ]
    assert found, f"nothing is assigned to {name.id}"
    return found
