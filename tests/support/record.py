"""
Record a provider: `make record PROVIDER=groq MODEL=llama-3.1-8b-instant`.

The key is the one that a worker in this environment has. The requests are those of `recordings.SCENARIOS`; they are
outside any ledger and cost less than a cent with a small model. The recording replaces an older one, and the preset
becomes verified (`recordings.toml` in the folder of its protocol).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from callgate.adapters.catalogue_file import PROVIDERS_PACKAGE, RECORDINGS_FILE, known_presets
from callgate.adapters.file_credentials import FileCredentials
from callgate.domain.presets import DEFAULT_PROTOCOL
from callgate.settings import load_settings
from config.settings import WorkerSettings
from devkit.simulator.simulator import ErrorBody, Kind, Match, Rule, Simulator, Step
from tests.support.recordings import (
    ABOUT,
    CASSETTES,
    SIMULATOR,
    all_recordings,
    folder_of,
)

RECORD_NAME, RECORD_BASE_URL, RECORD_KEY = "RECORD_NAME", "RECORD_BASE_URL", "RECORD_KEY"
"""Variables that tell the tests what to record. Tests see no variables of callgate."""
SIMULATED_MODEL = "sim-1"
SUITE = Path(__file__).parents[1] / "contract" / "test_recordings.py"
TEST = f"{SUITE}::test_a_recorded_answer_is_read"
HEADING = """\
# Which presets have a recording of the real provider in tests/contract/cassettes. `make record` writes this file, and a
# test compares it with the recordings. A preset that is not here is unverified.
"""


def simulator_rules() -> list[Rule]:
    """What the simulator answers to the scenarios that need more than a word."""
    unknown = Step(kind=Kind.STATUS, status=404, error=ErrorBody(message="no such model"))
    refused = Step(kind=Kind.STATUS, status=401, error=ErrorBody(message="Incorrect API key"))
    return [
        Rule(match=Match(model="no-such-model"), reply=[unknown]),
        Rule(match=Match(text="with a wrong key"), reply=[refused]),
        Rule(match=Match(text="Count from one"), reply=[Step(text="one two three " * 100)]),
    ]


def real_key(preset: str) -> str | None:
    """The key of a preset, as a worker in this environment would have it."""
    if preset == SIMULATOR:
        return "any"
    settings = load_settings(
        WorkerSettings,
        database_url="postgresql://nobody@127.0.0.1:1/none",
        broker_url="redis://127.0.0.1:1/0",
    )
    credentials = FileCredentials(settings.api_keys([preset]), settings.worker.credentials_dir)
    return credentials.access(preset, "").key


def main(arguments: Sequence[str] | None = None) -> int:
    """Record one provider; 0 if every answer was as it must be."""
    parser = argparse.ArgumentParser(prog="make record", description=__doc__)
    parser.add_argument("--provider", required=True, help="a preset, or simulator")
    parser.add_argument("--protocol", default=DEFAULT_PROTOCOL)
    parser.add_argument("--model", default="", help="a small model of the provider")
    parser.add_argument("--base-url", default="", help="where a preset has none, as with Azure")
    given = parser.parse_args(arguments)
    is_real = given.provider != SIMULATOR
    if is_real:
        given.base_url = _checked(parser, given)
    folder = folder_of(given.protocol, given.provider)
    with _address(given.base_url, is_real=is_real) as base_url:
        return _record(folder, given, base_url, is_real=is_real)


def _checked(parser: argparse.ArgumentParser, given: argparse.Namespace) -> str:
    """Where the real provider is; the parser's error if it cannot be recorded."""
    presets = known_presets()[given.protocol]
    if given.provider not in presets.names:
        parser.error(f"there is no preset {given.provider!r} of protocol {given.protocol}")
    if not given.model:
        parser.error("name a model: make record PROVIDER=... MODEL=...")
    lines = presets.below(given.provider)
    base_url = given.base_url or lines.get("base_url")
    if not base_url:
        parser.error(f"preset {given.provider} has no address: add BASE_URL=...")
    if lines.get("needs_key", True) and real_key(given.provider) is None:
        variable = f"CALLGATE_WORKER__CREDENTIALS__{given.provider.upper()}"
        parser.error(f"there is no key of {given.provider}: set {variable}")
    return str(base_url)


@contextmanager
def _address(base_url: str, *, is_real: bool) -> Iterator[str]:
    """Where the requests go: to the provider, or to a simulator of our own."""
    if is_real:
        yield base_url
        return
    with Simulator() as simulator:
        simulator.script(simulator_rules())
        yield simulator.base_url


def _record(folder: Path, given: argparse.Namespace, base_url: str, *, is_real: bool) -> int:
    """Run the suite against the provider; a failed recording leaves the older one as it was."""
    key = real_key(given.provider) or ""
    with TemporaryDirectory() as place:
        kept = Path(place) / folder.name
        if folder.exists():
            shutil.move(folder, kept)
        folder.mkdir(parents=True)
        (folder / ABOUT).write_text(_about(given, base_url, is_real=is_real))
        told = {RECORD_NAME: folder.name, RECORD_BASE_URL: base_url, RECORD_KEY: key}
        command = [sys.executable, "-m", "pytest", TEST, "--record-mode=rewrite", "-q"]
        code = subprocess.run(command, env={**os.environ, **told}, check=False).returncode  # noqa: S603 - our suite
        if is_real and key and any(key in file.read_text() for file in folder.iterdir()):
            print("the key is in a cassette: nothing was kept", file=sys.stderr)  # noqa: T201
            code = 1
        if code:
            shutil.rmtree(folder)
            if kept.exists():
                shutil.move(kept, folder)
    _write_recordings(given.protocol)
    return code


def _about(given: argparse.Namespace, base_url: str, *, is_real: bool) -> str:
    """What a folder of cassettes says about itself."""
    fields = {
        **({"preset": given.provider} if is_real else {}),
        "protocol": given.protocol,
        "model": given.model or SIMULATED_MODEL,
        "base_path": urlsplit(base_url).path.rstrip("/"),
    }
    lines = [f'{name} = "{value}"\n' for name, value in fields.items()]
    return "".join(lines) + f"as_of = {datetime.now(UTC):%Y-%m-%d}\n"


def _write_recordings(protocol: str) -> None:
    """Have the package say which presets of a protocol are recorded."""
    lines = [
        f'{r.preset} = {{ url = "{(CASSETTES / r.name).relative_to(SUITE.parents[2])}", as_of = {r.as_of} }}\n'
        for r in all_recordings()
        if r.preset and r.protocol == protocol
    ]
    file = Path(str(resources.files(PROVIDERS_PACKAGE) / protocol / RECORDINGS_FILE))
    file.write_text(HEADING + ("\n" if lines else "") + "".join(lines))


if __name__ == "__main__":
    sys.exit(main())
