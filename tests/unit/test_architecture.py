"""The shape of the program: where arrows point, what the wheel holds, and that importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PRODUCT = ("callgate", "worker", "tasks", "config", "migrations")
PACKAGES = ("callgate", "worker", "tasks", "config", "devkit")
PURE = sorted(
    file
    for folder in ("domain", "services")
    for file in (CHECKOUT / "callgate" / folder).glob("*.py")
)
CELERY_INTERNALS = (
    *("celery.worker", "celery.concurrency", "celery.app.trace", "celery._state"),
    "kombu.transport",
)
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
CLOCK_MODULES = {"time", "random", "secrets", "socket", "os", "threading"}

IMPORT_EVERYTHING = """
import importlib, os, pkgutil, sys, threading

def guard(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.system"):
        raise AssertionError(f"{event} at import: {arguments}")
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise AssertionError(f"a file is written at import: {arguments[0]}")

read = type(os.environ).__getitem__

def guarded(environ, name):
    assert not name.startswith(("CALLGATE_", "OPENAI_API_KEY")), f"{name} is read at import"
    return read(environ, name)

type(os.environ).__getitem__ = guarded
sys.dont_write_bytecode = True
sys.addaudithook(guard)
count = 0
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        importlib.import_module(module.name)
        count += 1
assert threading.active_count() == 1, threading.enumerate()
print(count)
"""

IMPORT_MODELS = """
import sys
import callgate

request = callgate.LLMRequest(org_id="a", call_type="b", provider="c", model="d",
    messages=[callgate.Message(role="user", content="x")])
heavy = {"celery", "kombu", "redis", "sqlalchemy", "psycopg2", "anthropic", "openai", "aiohttp"} & set(sys.modules)
assert not heavy, heavy
assert callgate.Client.__name__ == "Client"
assert set(callgate.__all__) == {name for name in callgate.__all__ if getattr(callgate, name)}
"""


def python(script: str, *arguments: str) -> str:
    """Run a script in a fresh interpreter; return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_imports_point_inward() -> None:
    """The contracts of import-linter hold."""
    python(
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    )


def test_importing_does_nothing() -> None:
    """No module connects, starts, writes or reads settings when it is imported."""
    modules = int(python(IMPORT_EVERYTHING, *PACKAGES))

    assert modules >= 60


def test_models_need_neither_celery_nor_a_driver() -> None:
    """`import callgate` is cheap; the client is loaded when it is asked for."""
    python(IMPORT_MODELS)


def test_the_wheel_holds_the_library_and_nothing_else(tmp_path: Path) -> None:
    """`tasks` and `config` in this wheel would overwrite other people's packages; the SQL is in the migrations."""
    python(
        "import sys; from hatchling.builders.wheel import WheelBuilder;"
        "list(WheelBuilder('.').build(directory=sys.argv[1], versions=['standard']))",
        str(tmp_path),
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"callgate"}
    folder = CHECKOUT / "callgate"
    own = {str(file.relative_to(CHECKOUT)) for file in folder.rglob("*.py")}
    assert own <= set(names)
    assert "callgate/adapters/providers/openai/presets.toml" in names
    assert not [name for name in names if name.endswith((".sql", ".pyc"))]


@pytest.mark.parametrize("file", PURE, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_rules_have_no_clock(file: Path) -> None:
    """Time, chance and the machine come in as arguments: a rule that asks for them cannot be tested."""
    tree = ast.parse(file.read_text())

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & CLOCK_MODULES
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in CLOCK_MODULES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in CLOCKS, f"line {node.lineno}"


def imported_by(folder: str) -> dict[str, set[Path]]:
    """Return the files of a folder by the top-level packages that they import, also inside functions."""
    files: dict[str, set[Path]] = {}
    for file in (CHECKOUT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                files.setdefault(name.partition(".")[0], set()).add(file)
    return files


@pytest.mark.parametrize("folder", PRODUCT)
def test_the_product_imports_neither_devkit_nor_tests(folder: str) -> None:
    """The command line loads `devkit/cli.py` by its path, and works without it."""
    imports = imported_by(folder)

    assert imports.get("devkit", set()) | imports.get("tests", set()) == set()


def test_devkit_does_not_import_tests() -> None:
    """Tests use devkit, not the other way round."""
    assert imported_by("devkit").get("tests", set()) == set()


def test_the_production_image_holds_the_product_only() -> None:
    """Neither `COPY` nor `.dockerignore` lets devkit, tests or examples in."""
    dockerfile = (CHECKOUT / "Dockerfile").read_text().splitlines()
    copied = {
        name for line in dockerfile if line.startswith("COPY ") for name in line.split()[1:-1]
    }
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()
    admitted = {line[1:].partition("/")[0] for line in ignored if line.startswith("!")}
    product = {*PRODUCT, "requirements", "pyproject.toml", "README.md"}

    assert copied == product
    assert "*" in ignored
    assert admitted == product


def test_the_version_needs_no_installed_package() -> None:
    """A checkout on the import path is enough; an installed package says the same."""
    told = python(
        "import sys, callgate; from importlib import metadata;"
        "assert metadata.version('callgate') == callgate.__version__;"
        "metadata.version = None; sys.argv = ['callgate', '--version'];"
        "from callgate.cli import main; main()"
    )

    assert told.startswith("callgate ")


def test_celery_internals_are_imported_only_where_they_are_checked() -> None:
    """`worker/celery_ext/README.md` names them. The guarded transport is outside: clients run it too (ADR 18)."""
    found = {
        f"{file.relative_to(CHECKOUT)}: {module}"
        for package in PACKAGES
        for file in (CHECKOUT / package).rglob("*.py")
        if not _may_import_internals(file)
        for module in _imported_by(ast.parse(file.read_text()))
        if any(f"{module}.".startswith(f"{internal}.") for internal in CELERY_INTERNALS)
    }

    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "import celery.worker.state",
        "from celery import worker",
        "from celery._state import current_app",
        "from celery.app import trace",
        "from kombu.transport.virtual import QoS",
    ],
)
def test_every_form_of_import_is_seen(line: str) -> None:
    assert any(
        f"{module}.".startswith(f"{internal}.")
        for module in _imported_by(ast.parse(line))
        for internal in CELERY_INTERNALS
    )


def _may_import_internals(file: Path) -> bool:
    return file.parent == CHECKOUT / "worker/celery_ext" or file == (
        CHECKOUT / "callgate/adapters/broker/guarded_transport.py"
    )


def _imported_by(tree: ast.Module) -> set[str]:
    """The modules that a module imports; of `from a import b` also `a.b`, which may be one."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize(
    "file", sorted((CHECKOUT / "migrations").rglob("*.py")), ids=lambda file: file.stem
)
def test_migrations_import_no_live_module(file: Path) -> None:
    """A released migration must not change when the code does."""
    modules = {module.partition(".")[0] for module in _imported_by(ast.parse(file.read_text()))}

    assert modules.isdisjoint({*PACKAGES, "tests"})
