"""
What a JSON Schema may cost, whatever it is asked to check: a pure rule that is asked before anything is stored or held.

A validator walks a schema and a value together. Keywords such as `properties` and `items` go on to a smaller value;
`allOf`, `anyOf`, `oneOf`, `not`, `if`, `dependentSchemas` and references stay at the same one. Forty definitions that
each refer to the next one twice make 2^40 visits of one number. So the rule counts the visits of one value: sums over
branches, through references, each definition counted once and its count used wherever it is referred to. A reference
that comes back to where it began without going on to a smaller value never ends, and JSON Schema forbids it.

A tree of nodes is fine: each of its references goes on to a smaller value. How often one value is visited from the
values around it is not bounded here, for every union of models that refer to themselves multiplies there: that is what
the limits of the process that checks answers are for.

Source: JSON Schema Core 2020-12, sections 8.2 (`$id`, `$anchor`, `$ref`, `$dynamicRef`), 9.4.1 (infinite recursion),
10 (applicators) and 11 (unevaluated locations); 2019-09 for `$recursiveRef`; Drafts 4 to 7 for `id`, `dependencies`,
`definitions` and `items` with a list. Where drafts differ, what costs more is assumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote, urljoin

VISITS_MAX = 4_096
"""Visits of one value. A union of a thousand models makes two thousand."""
DEPTH_MAX = 64
"""Schemas within each other, or behind each other's references, at one value: a validator recurses that deep."""
VALUES_PER_VISIT = 64
"""Names and values that a schema compares with count as a visit for each so many."""
TARGETS_MAX = 20_000
"""Places that all different references together may lead to. An ordinary one leads to one."""
ADDRESS_CHARS_MAX = 500
"""Of an `$id`, written out: each schema within has it as its beginning."""
PATTERNS_MAX = 2_000_000
"""Steps of all different patterns together, repetitions written out: they are compiled within half a second."""
CLASS_STEPS = 500
"""What one class of characters such as `\\w` counts as: it has hundreds of ranges in Unicode."""
ANY_STEPS = 25
"""What `.` or a class of all but some characters counts as."""

_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLES = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas", "dependencies")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_BELOW = (
    "items", "prefixItems", "additionalItems", "contains", "unevaluatedItems", "contentSchema",
    "additionalProperties", "propertyNames", "unevaluatedProperties",
)  # fmt: skip
_BELOW_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_COMPARED = ("enum", "required", "properties")
_NAMED_CLASS = re.compile(r"\\[pP]\{[^}]{0,64}\}|\\[a-zA-Z]")
_REPEATED = re.compile(r"\{(\d*)(?:,(\d*))?\}")

_UNRESOLVED = "a $ref or $schema names what is not in the schema"
_ENDLESS = "a $ref leads back to where it began, so that no check would ever end"
_TOO_DEEP = f"more than {DEPTH_MAX} schemas are within each other, or behind each other's $ref"
_TOO_MANY = f"checking one value takes more than {VISITS_MAX} steps: branches and $ref multiply"
_TOO_MANY_TARGETS = f"its $refs may lead to more than {TARGETS_MAX} places together"
_PATTERNS = "its patterns, with their repetitions written out, are too long"

_LONG_ADDRESS = (
    f"an $id has more than {ADDRESS_CHARS_MAX} characters, with the one that it is within"
)

Node = dict[str, object]


class _Costly(Exception):
    """Carries the reason."""


@lru_cache(maxsize=128)
def why_too_costly(schema: str) -> str | None:
    """Say in one line why a schema costs more than one may, or None. A text that is no JSON object costs nothing."""
    try:
        root = json.loads(schema)
    except (ValueError, RecursionError):
        return None
    try:
        if isinstance(root, dict):
            _Walk(root).measure()
    except _Costly as exc:
        return str(exc)
    return None


class _Names:
    """What references of one document can lead to: by address, by anchor, or by a dynamic one."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._bases: dict[int, str] = {}
        self._resources: dict[str, Node] = {"": root}
        self._anchors: dict[str, list[Node]] = {}
        self._recursive: list[Node] = []
        waiting: list[tuple[object, str]] = [(root, "")]
        while waiting:
            value, base = waiting.pop()
            if isinstance(value, dict):
                base = self._register(value, base)
                waiting.extend((child, base) for child in value.values())
            elif isinstance(value, list):
                waiting.extend((child, base) for child in value)

    def _register(self, node: Node, base: str) -> str:
        for keyword in ("$id", "id"):
            if isinstance(name := node.get(keyword), str):
                address, _, anchor = name.partition("#")
                if address:
                    base = _joined(base, address)
                    if len(base) > ADDRESS_CHARS_MAX:
                        raise _Costly(_LONG_ADDRESS)
                    self._resources.setdefault(base, node)
                if anchor:
                    self._anchors.setdefault(anchor, []).append(node)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := node.get(keyword), str):
                self._anchors.setdefault(name, []).append(node)
        if node.get("$recursiveAnchor") is True:
            self._recursive.append(node)
        self._bases[id(node)] = base
        return base

    def base(self, node: Node) -> str:
        """The address that a schema's references start from."""
        return self._bases[id(node)]

    def targets(self, node: Node, keyword: str, reference: str) -> list[object]:
        """Everything that a reference may lead to, under any reading of it; none if it names nothing."""
        address, _, fragment = reference.partition("#")
        base = self.base(node)
        if address:
            found = self._resources.get(_joined(base, address))
            roots = [] if found is None else [found]
        else:
            roots = [self._resources.get(base, self._root), self._root]
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return list(self._anchors.get(fragment, ()))
        at = [target for root in roots for target in _at(root, fragment)]
        return [*at, *self._recursive] if keyword == "$recursiveRef" else at


class _Walk:
    """Goes through every schema of a document and counts the visits that each makes at one value."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._names = _Names(root)
        self._known: dict[int, tuple[int, int]] = {}
        """Of each schema: its visits, and how deep it goes."""
        self._open: set[int] = set()
        self._below: list[object] = [root]
        self._unevaluated = 0
        self._followed: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._targets = 0
        self._patterns: set[str] = set()
        self._pattern_steps = 0

    def measure(self) -> None:
        """
        Go through all.

        Raises:
            _Costly
        """
        while self._below:
            self._visit(self._below.pop(), 0)

    def _visit(self, node: object, depth: int) -> tuple[int, int]:
        """Count one schema's visits, and those below it at the same value."""
        if not isinstance(node, dict):
            return 1, 1
        if id(node) in self._open:
            raise _Costly(_ENDLESS)
        visits, height = self._known.get(id(node), (0, 0))
        if not height:
            if depth >= DEPTH_MAX:
                raise _Costly(_TOO_DEEP)
            self._open.add(id(node))
            visits, height = self._count(node, depth)
            self._open.discard(id(node))
            self._known[id(node)] = visits, height
        if visits > VISITS_MAX or self._unevaluated > VISITS_MAX:
            raise _Costly(_TOO_MANY)
        if depth + height > DEPTH_MAX:
            raise _Costly(_TOO_DEEP)
        return visits, height

    def _count(self, node: Node, depth: int) -> tuple[int, int]:
        self._below.extend(_schemas(node, _BELOW, _BELOW_MAPS))
        self._weigh_patterns(node)
        visits, height = 1 + _compared(node) // VALUES_PER_VISIT, 1
        for branch in _schemas(node, (*_LISTS, *_SINGLES), _MAPS):
            more, below = self._visit(branch, depth + 1)
            visits, height = visits + more, max(height, below + 1)
        for keyword in _REFERENCES:
            if isinstance(reference := node.get(keyword), str):
                more, below = self._follow(node, keyword, reference, depth + 1)
                visits, height = visits + more, max(height, below + 1)
        if "unevaluatedItems" in node or "unevaluatedProperties" in node:
            # All branches are gone through again, and written out when the schema is compiled.
            visits *= 2
            self._unevaluated += visits
        return visits, height

    def _follow(self, node: Node, keyword: str, reference: str, depth: int) -> tuple[int, int]:
        """Count what the dearest of a reference's targets comes to; there may be many, and many references to them."""
        key = (self._names.base(node), keyword, reference)
        if key not in self._followed:
            if not (targets := self._names.targets(node, keyword, reference)):
                raise _Costly(_UNRESOLVED)
            self._targets += len(targets)
            if self._targets > TARGETS_MAX:
                raise _Costly(_TOO_MANY_TARGETS)
            found = [self._visit(target, depth) for target in targets]
            self._followed[key] = max(more for more, _ in found), max(below for _, below in found)
        visits, height = self._followed[key]
        if depth + height > DEPTH_MAX:
            raise _Costly(_TOO_DEEP)
        return visits, height

    def _weigh_patterns(self, node: Node) -> None:
        own, named = node.get("pattern"), node.get("patternProperties")
        patterns = {
            p for p in (own, *(named if isinstance(named, dict) else ())) if isinstance(p, str)
        }
        self._pattern_steps += sum(map(pattern_steps, patterns - self._patterns))
        self._patterns |= patterns
        if self._pattern_steps > PATTERNS_MAX:
            raise _Costly(_PATTERNS)


def _schemas(node: Node, keywords: Iterable[str], maps: Iterable[str]) -> Iterator[object]:
    for keyword in keywords:
        value = node.get(keyword)
        yield from value if isinstance(value, list) else () if value is None else (value,)
    for keyword in maps:
        value = node.get(keyword)
        yield from value.values() if isinstance(value, dict) else ()


def _compared(node: Node) -> int:
    values = (node.get(keyword) for keyword in _COMPARED)
    return sum(len(value) for value in values if isinstance(value, list | dict))


def _joined(base: str, address: str) -> str:
    try:
        return urljoin(base, address)
    except ValueError:
        return address


def _at(root: object, pointer: str) -> Iterator[object]:
    """What a JSON Pointer leads to, if anything."""
    value = root
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif (
            isinstance(value, list) and re.fullmatch("[0-9]{1,6}", name) and int(name) < len(value)
        ):
            value = value[int(name)]
        else:
            return
    yield value


def pattern_steps(pattern: str) -> int:
    """Bound the steps of a regular expression with its counted repetitions written out, as engines compile it."""
    totals, last, at = [0], 0, 0
    while at < len(pattern):
        character, width = pattern[at], 1
        if character == "{" and (repeated := _REPEATED.match(pattern, at)):
            times = max(1, *(int((n or "").lstrip("0")[:9] or 0) for n in repeated.groups()))
            totals[-1] += last * (times - 1)
            last, at = last * times, repeated.end()
            continue
        if character == "(":
            totals.append(0)
            last = 0
        elif character == ")" and len(totals) > 1:
            last = totals.pop()
            totals[-1] += last
        else:
            last, width = _atom(pattern, at)
            totals[-1] += last
        at += width
    return sum(totals)


def _atom(pattern: str, at: int) -> tuple[int, int]:
    """One character's or class's steps, and how long it is written."""
    if pattern[at] == "\\":
        named = _NAMED_CLASS.match(pattern, at)
        return (CLASS_STEPS if named else 1), (len(named[0]) if named else 2)
    if pattern[at] == "[":
        end = at + 1
        while end < len(pattern) and (pattern[end] != "]" or end == at + 1):
            end += 2 if pattern[end] == "\\" else 1
        text = pattern[at:end]
        return len(text) + CLASS_STEPS * text.count("\\") + ANY_STEPS * text.count(
            "^"
        ), end - at + 1
    return (ANY_STEPS if pattern[at] == "." else 1), 1
