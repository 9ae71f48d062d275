"""`callgate estimate`: a file of requests, before anything is run."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from callgate.adapters.memory.ledger import MemoryLedger
from callgate.cli import estimate as command
from callgate.cli.estimate import bounded_lines
from callgate.services.estimates import candidates_in
from tests.support.command_line import Shell
from tests.support.priced_models import a_request

FINE = a_request(messages=[{"role": "user", "content": "my private prompt"}]).model_dump_json()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two equal requests, one without a price, and a line that is none."""
    path = tmp_path / "requests.jsonl"
    unpriced = FINE.replace("gpt-4o-mini", "gpt-17")
    path.write_text(f'{FINE}\n{unpriced}\n\n{FINE}\n{{"my private prompt": 1\n')
    return path


def test_it_prints_what_may_be_spent(shell: Shell, file: Path) -> None:
    code, out, err = shell("estimate", str(file))

    assert code == 0
    assert "acme" in out
    assert "openai/gpt-4o-mini" in out
    assert "retries may add" in err
    assert "1 new requests have no history" in err
    assert "1 would be refused with invalid_request, in line 5" in err
    assert "1 would be refused with unpriced_model, in line 2" in err
    assert "private" not in out + err


def test_as_json_amounts_are_exact(shell: Shell, file: Path, ledger: MemoryLedger) -> None:
    """300 tokens of output at 0.60, and the bound of the input at 0.15 USD per million. Nothing is stored."""
    code, out, err = shell("estimate", str(file), "--json")

    found = json.loads(out)
    (group,) = found["groups"]
    assert (code, err) == (0, "")
    assert found["requests"] == 4
    assert (group["new"], group["duplicates"], group["expected_usd"]) == (1, 1, None)
    assert group["worst_case_usd"] == found["worst_case_usd"]
    nano_usd = int(found["worst_case_usd"].replace(".", ""))
    assert (nano_usd - 180_000) % 150 == 0
    assert {r["code"]: r["numbers"] for r in found["refused"]} == {
        "invalid_request": [5],
        "unpriced_model": [2],
    }
    assert "private" not in out
    assert ledger.snapshot().calls_by_state == {}


def test_a_file_that_cannot_be_read_is_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    code, out, err = shell("estimate", str(tmp_path / "nothing"))

    assert (code, out) == (2, "")
    # The box around an error has lines as short as the terminal.
    assert "cannot be read" in " ".join(err.replace("│", " ").split())


def test_an_empty_file_costs_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")

    code, out, _ = shell("estimate", str(tmp_path / "empty"), "--json")

    assert (code, json.loads(out)["worst_case_usd"]) == (0, "0.000000000")


def test_a_long_line_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind it has its own number."""
    monkeypatch.setattr(command, "REQUEST_MAX_BYTES", 10)
    monkeypatch.setattr(command, "PIECE_BYTES", 4)
    text = b"short\n" + b"x" * 50 + b"\n" + b"y" * 10 + b"\r\nlast" + b"z" * 90

    lines = list(bounded_lines(io.BytesIO(text)))

    assert lines == [b"short\n", b"x" * 12, b"y" * 10 + b"\r\n", b"last" + b"z" * 8]


class Endless(io.BytesIO):
    """A file with one line of 50 MB, that is never in memory."""

    left = 50_000_000

    def readline(self, size: int | None = -1, /) -> bytes:
        size = min(size or 0, self.left)
        self.left -= size
        return b"x" * size


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a line of 50 MB, and of many lines."""
    monkeypatch.setattr(command, "REQUEST_MAX_BYTES", 100_000)

    def lines() -> Iterator[bytes]:
        for _ in range(20_000):
            yield b"{\n"

    tracemalloc.start()
    pieces = [len(line) for line in bounded_lines(Endless())]
    count = sum(1 for _ in candidates_in(lines()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert pieces == [100_002]
    assert count == 20_000
    assert peak < 10_000_000
