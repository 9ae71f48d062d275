"""Celery's, kombu's and redis-py's private names: an upgrade that changes one fails here, by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import worker.celery_ext
from tests.support.celery_internals import ADAPTERS, CELERY_EXT, OUTSIDE, Internal, rows

README = Path(worker.celery_ext.__path__[0]) / "README.md"
LIBRARIES = {"celery", "kombu", "redis"}
PUBLIC = {"celery.app.task"}
"""Modules whose classes are documented for subclassing."""
MODULES = [
    *OUTSIDE,
    "callgate.adapters.broker.control",
    *(
        f"worker.celery_ext.{found.name}"
        for found in pkgutil.iter_modules(worker.celery_ext.__path__)
    ),
]
IGNORED = {
    "__module__",
    "__doc__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    # copyreg keeps it on a class once an instance was copied.
    "__slotnames__",
    "name",
    "requires",
}
IGNORED |= {
    "__parameters__",
    "__static_attributes__",
    "__firstlineno__",
    "__subclasshook__",
    "__abstractmethods__",
    "_abc_impl",
    "_is_protocol",
}
DOCUMENTED = {
    ("kombu.clocks", "LamportClock", "adjust"),
    ("celery.app.control", "Control", "Mailbox"),
}


@pytest.mark.parametrize("internal", [*CELERY_EXT, *ADAPTERS], ids=lambda internal: internal.path)
def test_the_name_is_there_with_its_parameters(internal: Internal) -> None:
    assert internal.found() == internal.parameters


@pytest.mark.parametrize("internals", [CELERY_EXT, ADAPTERS], ids=["celery_ext", "adapters"])
def test_the_readme_shows_the_table(internals: tuple[Internal, ...]) -> None:
    """`python -m tests.support.celery_internals` prints it."""
    assert rows(internals) in README.read_text()


def test_every_override_is_in_the_table() -> None:
    known = {internal.path.rpartition(":")[2] for internal in (*CELERY_EXT, *ADAPTERS)}

    missing = [found for found in _overrides() if found.rpartition(":")[2] not in known]

    assert not missing


def test_a_name_that_is_gone_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        Internal("celery.worker.request:Request.no_such_name", "self", "").found()
    with pytest.raises(AttributeError, match="no_such_name"):
        Internal("celery.worker.state:no_such_name", None, "").found()


def test_other_parameters_are_found() -> None:
    internal = next(i for i in CELERY_EXT if i.path.endswith("Request.revoked"))

    assert internal._replace(parameters="self, reason").found() == "self"


def _overrides() -> list[str]:
    """What our classes override of the libraries' classes."""
    found = []
    for module in map(importlib.import_module, MODULES):
        for cls in vars(module).values():
            if not inspect.isclass(cls) or cls.__module__ != module.__name__:
                continue
            for name in vars(cls).keys() - IGNORED:
                base = next((b for b in cls.__mro__[1:] if name in vars(b)), None)
                if base is None or base.__module__.split(".")[0] not in LIBRARIES | {"worker"}:
                    continue
                owner = base if base.__module__.split(".")[0] in LIBRARIES else None
                if owner is None or owner.__module__ in PUBLIC:
                    continue
                if (owner.__module__, owner.__name__, name) not in DOCUMENTED:
                    found.append(f"{owner.__module__}:{owner.__name__}.{name}")
    return sorted(found)
