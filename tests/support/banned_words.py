"""
Finds the words that `docs/glossary.md` bans, in names and in prose.

`python -m tests.support.banned_words [FILE ...]` prints each as `file:line: word`. Without files it reads all of them.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
GLOSSARY = CHECKOUT / "docs" / "glossary.md"
FOLDERS = (
    "callgate", "config", "devkit", "docs", "examples", "migrations", "tasks", "tests", "worker"
)  # fmt: skip
ENDINGS_OF_PROSE = {".md", ".toml", ".yaml", ".yml", ""}
"""Files that are prose as a whole. Those without an ending are Makefile, Dockerfile and .ci/run."""
WHERE = ("prose too", "names only", "whole names only")
INFLECTIONS = ("", "s", "es", "d", "ed", "ing")
PART_OF_NAME = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
CODE = re.compile(r"[a-z][a-z0-9]*([_.][a-z0-9]+)+")
"""A string that names something: an error code, a log event, a column."""
SQL_TOKEN = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<text>'[^']*')|(?P<name>[A-Za-z_]\w*)", re.DOTALL
)
COMMENT_SIGN = re.compile(r"^[ \t]*(#|--)", re.MULTILINE)

Places = list[tuple[int, str]]
"""Texts of a file, each with the number of its first line."""


@dataclass(frozen=True)
class Banned:
    """One row of the glossary's last table."""

    word: str
    where: str
    exceptions: tuple[str, ...] = ()
    """Phrases that may have the word, and files that may use it because a library does."""

    @property
    def is_banned_in_prose(self) -> bool:
        """True if comments, messages and pages are searched too."""
        return self.where == "prose too"

    def is_in_name(self, name: str) -> bool:
        """True if a name, in any spelling, has the word or an inflection of it among its parts."""
        words = " ".join(PART_OF_NAME.findall(name)).lower()
        if self.where == "whole names only":
            return words == self.word
        return self.pattern.search(self.without_exceptions(words)) is not None

    def without_exceptions(self, text: str) -> str:
        """The text, of the same length, without the phrases that may have the word."""
        for phrase in self.exceptions:
            spelt = rf"\b{re.escape(phrase)}s?\b"
            text = re.sub(spelt, lambda m: "." * len(m[0]), text, flags=re.IGNORECASE)
        return text

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the word and its inflections, also where a line breaks between its parts."""
        spelt = r"\s+".join(re.escape(part) for part in self.word.split())
        stem = re.escape(self.word[:-1])
        forms = [spelt + ending for ending in INFLECTIONS]
        if self.word.endswith("e"):
            forms.append(stem + "ing")
        if self.word.endswith("y"):
            forms += [stem + "ies", stem + "ied"]
        return re.compile(rf"\b(?:{'|'.join(forms)})\b", re.IGNORECASE)


@lru_cache(maxsize=1)
def banned_words() -> tuple[Banned, ...]:
    """
    Read the table under "Banned words".

    Raises:
        ValueError: A row has another form, or exempts a file that does not exist.
    """
    section = GLOSSARY.read_text("utf-8").partition("\n## Banned words\n")[2]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ") and not line.startswith("| banned")
    ]
    banned = []
    for row in rows:
        if len(row) != 4 or row[1] not in WHERE:
            raise ValueError(f"not a row of four cells with one of {WHERE}: {row}")
        exceptions = tuple(part.strip(" `") for part in row[2].split(",") if part.strip())
        for path in exceptions:
            if "/" in path and not (CHECKOUT / path).is_file():
                raise ValueError(f"{row[0]}: {path} does not exist")
        banned.append(Banned(row[0], row[1], exceptions))
    return tuple(banned)


def all_files() -> list[Path]:
    """Every file of the project that has names or prose."""
    below = chain.from_iterable((CHECKOUT / folder).rglob("*") for folder in FOLDERS)
    beside = (*CHECKOUT.glob("*.*"), CHECKOUT / "Makefile", CHECKOUT / "Dockerfile")
    return sorted(
        file
        for file in {*below, *beside, CHECKOUT / ".ci" / "run"}
        if (file.suffix in ENDINGS_OF_PROSE or file.suffix in (".py", ".sql"))
        and "__pycache__" not in file.parts
        and file.name != ".git"
        and not file.name.startswith(".env")
        and file.is_file()
    )


def found_in_names(files: Iterable[Path]) -> Iterator[str]:
    """Each banned word in a name, as `file:line: name`."""
    known: dict[str, list[Banned]] = {}
    for file in files:
        place = file.relative_to(CHECKOUT)
        named = [(1, name) for part in place.parts if (name := part.partition(".")[0])]
        for line, name in sorted({*named, *_read(file)[0]}):
            if name not in known:
                known[name] = [banned for banned in banned_words() if banned.is_in_name(name)]
            for banned in known[name]:
                if str(place) not in banned.exceptions:
                    yield f"{place}:{line}: {name!r} has {banned.word!r}"


def found_in_prose(files: Iterable[Path]) -> Iterator[str]:
    """Each word in prose that is banned there, as `file:line: word`."""
    for file in files:
        place = file.relative_to(CHECKOUT)
        if file == GLOSSARY:
            continue
        for first, text in _read(file)[1]:
            unsigned = COMMENT_SIGN.sub(lambda sign: " " * len(sign[0]), text)
            for banned in banned_words():
                if not banned.is_banned_in_prose or str(place) in banned.exceptions:
                    continue
                for match in banned.pattern.finditer(banned.without_exceptions(unsigned)):
                    yield f"{place}:{first + unsigned.count(chr(10), 0, match.start())}: {match[0]!r}"


@cache
def _read(file: Path) -> tuple[Places, Places]:
    """The names that a file defines, and its prose."""
    text = file.read_text("utf-8")
    if file.suffix == ".py":
        return read_python(text)
    if file.suffix == ".sql":
        return read_sql(text)
    return [], [(1, text)]


def read_python(text: str) -> tuple[Places, Places]:
    """The names that a module binds and the codes in it; its comments and all other strings."""
    names: Places = []
    prose = _comments(text)
    for node in ast.walk(ast.parse(text)):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.append((line, name))
            case ast.ClassDef(name=name):
                names.append((line, name))
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                names.append((line, name))
            case ast.arg(arg=name) | ast.alias(asname=str(name)):
                names.append((line, name))
            case ast.Constant(value=str(string)) if CODE.fullmatch(string):
                names.append((line, string))
            case ast.Constant(value=str(string)):
                prose.append((line, string))
    return names, prose


def _comments(text: str) -> Places:
    """Comments; those of lines one below the other are one text."""
    found: Places = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        first, before = found[-1] if found else (0, "")
        if found and token.start[0] == first + before.count("\n") + 1:
            found[-1] = (first, f"{before}\n{token.string}")
        else:
            found.append((token.start[0], token.string))
    return found


def read_sql(text: str) -> tuple[Places, Places]:
    """The identifiers of SQL and the codes in it; its comments."""
    names = [
        (text.count("\n", 0, match.start()) + 1, match[0])
        for match in SQL_TOKEN.finditer(text)
        if match["name"] or CODE.fullmatch(match[0].strip("'"))
    ]
    # What is no comment becomes blank, so that lines keep their numbers.
    comments = SQL_TOKEN.sub(lambda m: m["comment"] or re.sub(r"[^\n]", ";", m[0]), text)
    return names, [(1, comments)]


def main(arguments: list[str]) -> int:
    """Print what is found; return 1 if there is anything."""
    files = all_files()
    if arguments:
        given = {Path(argument).resolve() for argument in arguments}
        files = [file for file in files if file in given]
    found = [*found_in_names(files), *found_in_prose(files)]
    sys.stdout.writelines(f"{place}\n" for place in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
