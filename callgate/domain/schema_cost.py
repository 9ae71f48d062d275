"""
Bounds what a JSON Schema can cost to check, for any value: a pure rule, applied before anything is stored or held.

A validator walks schema and value together. Some keywords (`properties`, `items`) continue with a smaller value.
Others (`allOf`, `anyOf`, `oneOf`, `not`, `if`, `dependentSchemas`, references) stay at the same value and multiply:
forty definitions that each refer twice to the next one make 2^40 visits of one number. So the rule counts the visits
of one value. It adds up branches and follows references. Each definition is counted once, and its count is used for
every reference to it. A reference that returns to its start at the same value never ends, and JSON Schema forbids it.

Recursive models (a tree of nodes) pass, because each of their references continues with a smaller value. How often a
value is visited from the values around it is not bounded here: every union of recursive models multiplies there. The
process that checks answers has limits of time and memory for that.

Source: JSON Schema Core 2020-12, sections 8.2 (`$id`, `$anchor`, `$ref`, `$dynamicRef`), 9.4.1 (infinite recursion),
10 (applicators) and 11 (unevaluated locations); 2019-09 for `$recursiveRef`; Drafts 4 to 7 for `id`, `dependencies`,
`definitions` and `items` with a list. Where drafts differ, the more expensive reading is assumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote, urljoin

VISITS_MAX = 4_096
"""Visits of one value. A union of a thousand models needs two thousand."""
DEPTH_MAX = 64
"""Schemas nested in each other or linked by references, at one value: a validator recurses so deep."""
VALUES_PER_VISIT = 64
"""So many names and values that a schema compares with count as one visit."""
TARGETS_MAX = 20_000
"""Targets of all distinct references together. A normal reference has one target."""
ADDRESS_CHARS_MAX = 500
"""Length of a resolved `$id`. It becomes the prefix of every `$id` inside."""
PATTERNS_MAX = 2_000_000
"""Steps of all distinct patterns together, with repetitions written out. They compile within half a second."""
CLASS_STEPS = 500
"""Steps of one character class like `\\w`: in Unicode it has hundreds of ranges."""
ANY_STEPS = 25
"""Steps of `.` or of a negated character class."""

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

_UNRESOLVED = "a $ref or $schema names something that is not in the schema"
_ENDLESS = "a $ref leads back to its start, so a check would never end"
_TOO_DEEP = f"more than {DEPTH_MAX} schemas are nested in each other or linked by $ref"
_TOO_MANY = f"checking one value takes more than {VISITS_MAX} steps: branches and $ref multiply"
_TOO_MANY_TARGETS = f"its $refs may lead to more than {TARGETS_MAX} places together"
_PATTERNS = "its patterns are too long when their repetitions are written out"

_LONG_ADDRESS = f"an $id has more than {ADDRESS_CHARS_MAX} characters, the enclosing $id included"

Node = dict[str, object]


class _TooCostly(Exception):
    """The schema exceeds a bound; its text is the reason."""


@lru_cache(maxsize=128)
def why_too_costly(schema: str) -> str | None:
    """Explain in one line why a schema is too expensive; None if it is not, or if the text is not a JSON object."""
    try:
        root = json.loads(schema)
    except (ValueError, RecursionError):
        return None
    try:
        if isinstance(root, dict):
            _CostCounter(root).measure()
    except _TooCostly as exc:
        return str(exc)
    return None


class _ReferenceIndex:
    """All possible targets of references in one document: by address, by anchor and by dynamic anchor."""

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
        """Index one schema's `$id` and anchors. Return the base address for the schemas inside."""
        for keyword in ("$id", "id"):
            if isinstance(name := node.get(keyword), str):
                address, _, anchor = name.partition("#")
                if address:
                    base = _joined(base, address)
                    if len(base) > ADDRESS_CHARS_MAX:
                        raise _TooCostly(_LONG_ADDRESS)
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
        """The base address for a schema's relative references."""
        return self._bases[id(node)]

    def targets(self, node: Node, keyword: str, reference: str) -> list[object]:
        """All targets of a reference, under any draft; empty if it cannot be resolved."""
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
        at = [target for root in roots for target in _values_at(root, fragment)]
        return [*at, *self._recursive] if keyword == "$recursiveRef" else at


class _CostCounter:
    """Visits every schema of a document once, and counts how many visits of one value each causes."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._names = _ReferenceIndex(root)
        self._known: dict[int, tuple[int, int]] = {}
        """By the schema's `id`: its visits and its height."""
        self._open: set[int] = set()
        self._below: list[object] = [root]
        self._unevaluated = 0
        self._followed: dict[tuple[str, str, str], tuple[int, int]] = {}
        self._targets = 0
        self._patterns: set[str] = set()
        self._pattern_steps = 0

    def measure(self) -> None:
        """
        Count all schemas.

        Raises:
            _TooCostly: A bound is exceeded.
        """
        while self._below:
            self._visit(self._below.pop(), 0)

    def _visit(self, node: object, depth: int) -> tuple[int, int]:
        """Visits of one value by a schema and its branches, and its height. Uses the known count, if any."""
        if not isinstance(node, dict):
            return 1, 1
        if id(node) in self._open:
            raise _TooCostly(_ENDLESS)
        visits, height = self._known.get(id(node), (0, 0))
        if not height:
            if depth >= DEPTH_MAX:
                raise _TooCostly(_TOO_DEEP)
            self._open.add(id(node))
            visits, height = self._count(node, depth)
            self._open.discard(id(node))
            self._known[id(node)] = visits, height
        if visits > VISITS_MAX or self._unevaluated > VISITS_MAX:
            raise _TooCostly(_TOO_MANY)
        if depth + height > DEPTH_MAX:
            raise _TooCostly(_TOO_DEEP)
        return visits, height

    def _count(self, node: Node, depth: int) -> tuple[int, int]:
        """Add up visits and height over a schema's branches and references."""
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
            # The validator walks all branches again, and compiles them a second time.
            visits *= 2
            self._unevaluated += visits
        return visits, height

    def _follow(self, node: Node, keyword: str, reference: str, depth: int) -> tuple[int, int]:
        """Visits and height of a reference: those of its most expensive target."""
        key = (self._names.base(node), keyword, reference)
        if key not in self._followed:
            if not (targets := self._names.targets(node, keyword, reference)):
                raise _TooCostly(_UNRESOLVED)
            self._targets += len(targets)
            if self._targets > TARGETS_MAX:
                raise _TooCostly(_TOO_MANY_TARGETS)
            found = [self._visit(target, depth) for target in targets]
            self._followed[key] = max(more for more, _ in found), max(below for _, below in found)
        visits, height = self._followed[key]
        if depth + height > DEPTH_MAX:
            raise _TooCostly(_TOO_DEEP)
        return visits, height

    def _weigh_patterns(self, node: Node) -> None:
        """Add the steps of a schema's patterns that were not seen before."""
        own, named = node.get("pattern"), node.get("patternProperties")
        patterns = {
            p for p in (own, *(named if isinstance(named, dict) else ())) if isinstance(p, str)
        }
        self._pattern_steps += sum(map(pattern_steps, patterns - self._patterns))
        self._patterns |= patterns
        if self._pattern_steps > PATTERNS_MAX:
            raise _TooCostly(_PATTERNS)


def _schemas(node: Node, keywords: Iterable[str], maps: Iterable[str]) -> Iterator[object]:
    """The schemas in these keywords: single ones, lists, and `maps` from names to schemas."""
    for keyword in keywords:
        value = node.get(keyword)
        yield from value if isinstance(value, list) else () if value is None else (value,)
    for keyword in maps:
        value = node.get(keyword)
        yield from value.values() if isinstance(value, dict) else ()


def _compared(node: Node) -> int:
    """How many names and values a schema compares with."""
    values = (node.get(keyword) for keyword in _COMPARED)
    return sum(len(value) for value in values if isinstance(value, list | dict))


def _joined(base: str, address: str) -> str:
    """The address resolved against the base; unchanged if it is not a valid URL."""
    try:
        return urljoin(base, address)
    except ValueError:
        return address


def _values_at(root: object, pointer: str) -> Iterator[object]:
    """Yield the value at a JSON Pointer; nothing if there is none (None is a value)."""
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
    """An upper bound of a regular expression's size, with counted repetitions (`{n,m}`) written out as engines do."""
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
    """Steps of the character or class at a position, and its length in the pattern."""
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
