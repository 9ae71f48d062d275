"""
Recordings of providers: what is asked of each one, which parts of it are kept, and which never are.

vcrpy records between aiohttp and the socket, so the adapter, its SDK and its transport are the real ones in a replay.
A cassette has what a provider sent, without what tells whose account it was: of headers only those on a list are kept,
keys are looked for in everything, ids are replaced.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from callgate.adapters.catalogue_file import known_presets
from callgate.domain.catalogue import ProviderEntry
from callgate.domain.messages import Message, Tool
from callgate.domain.presets import DEFAULT_PROTOCOL
from callgate.domain.provider import Billing, Failure, ProviderReply
from callgate.domain.requests import LLMRequest

CASSETTES = Path(__file__).parents[1] / "contract" / "cassettes"
ABOUT = "recording.toml"
SIMULATOR = "simulator"
HOST = "provider.invalid"
"""Stands for every host, so that the name of an account in it is not kept."""
SCRUBBED = "SCRUBBED"
KEPT_REQUEST_HEADERS = frozenset({"accept", "content-type"})
KEPT_HEADERS = re.compile(
    r"content-type|retry-after(-ms)?|(x|anthropic)-ratelimit-[a-z-]+", re.IGNORECASE
)
REQUEST_ID_HEADERS = frozenset({"x-request-id", "request-id"})
FAKE_ID = "recorded"
SECRETS = re.compile(
    r"\b(?:sk|gsk|pk|rk|org|proj|user|acct|xai|req|chatcmpl|resp|gen)[-_][A-Za-z0-9_*.-]{6,}|AIza[A-Za-z0-9_-]{20,}"
    r"|[\w.+-]+@[\w-]+\.[\w.-]+|Bearer\s+\S+"
)
"""Keys, organisations, projects, users, requests and addresses, as providers write them into bodies."""
ACCOUNT_FIELDS = frozenset({"user", "user_id", "organization", "organization_id", "project_id"})
FAKES: Mapping[str, object] = {"created": 0, "created_at": 0, "system_fingerprint": "fp_recorded"}
"""Fields of a body that differ each time and say nothing."""
WRONG_KEY = "wrong-key-of-the-recorder"


@dataclass(frozen=True, slots=True)
class Recording:
    """One provider's cassettes."""

    name: str
    preset: str | None
    protocol: str
    model: str
    base_path: str
    """The path of the base URL; its host is not kept."""
    as_of: date

    @classmethod
    def of(cls, folder: Path) -> Recording:
        """Read what a folder of cassettes says about itself."""
        about = tomllib.loads((folder / ABOUT).read_text("utf-8"))
        return cls(folder.name, about.get("preset"), **{k: about[k] for k in _ABOUT})

    def entry(self, base_url: str | None = None) -> ProviderEntry:
        """The provider, at this address or at the host that stands for all."""
        lines = known_presets()[self.protocol].below(self.preset)
        known = f"https://{HOST}{self.base_path}"
        own = {} if self.preset else {"cannot": (*lines["cannot"], "tools", "tool_choice")}
        entry = {**lines, **own, "base_url": base_url or known, "protocol": self.protocol}
        if lines.get("lists_models"):
            entry["models"] = {self.model: self.model}
        return ProviderEntry.model_validate(entry)


_ABOUT = ("protocol", "model", "base_path", "as_of")


def folder_of(protocol: str, preset: str) -> Path:
    """Where the cassettes of a preset are."""
    name = preset if protocol == DEFAULT_PROTOCOL else f"{protocol}.{preset}"
    return CASSETTES / name


def all_recordings() -> list[Recording]:
    """Every provider that was recorded, the simulator too."""
    return [Recording.of(file.parent) for file in sorted(CASSETTES.glob(f"*/{ABOUT}"))]


Answer = ProviderReply | Failure


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing that is asked of a provider, and what its answer must be like."""

    name: str
    prompt: str
    holds: Callable[[Answer], bool]
    fields: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    key: str | None = None
    """Sent instead of the real key."""

    def request(self, model: str) -> LLMRequest:
        """The request, to one model unless the scenario has its own."""
        return LLMRequest(
            **{
                "org_id": "recorder",
                "call_type": "recording",
                "provider": "recorded",
                "model": self.model or model,
                "messages": (Message(role="user", content=self.prompt),),
                "max_output_tokens": 1_024,
                **self.fields,
            }
        )


def _is_answer(answer: Answer, ending: str = "stop") -> bool:
    return (
        isinstance(answer, ProviderReply)
        and answer.usage is not None
        and answer.usage.input_tokens > 0
        and answer.usage.output_tokens > 0
        and not answer.anomalies
        and answer.finish_reason == ending
    )


def _has_text(answer: Answer) -> bool:
    return _is_answer(answer) and isinstance(answer, ProviderReply) and bool(answer.texts[0])


def _fits_schema(answer: Answer) -> bool:
    if not isinstance(answer, ProviderReply) or not _is_answer(answer):
        return False
    return isinstance(json.loads(answer.texts[0])["town"], str)


def _calls_the_tool(answer: Answer) -> bool:
    return (
        isinstance(answer, ProviderReply)
        and _is_answer(answer, "tool_calls")
        and [call.name for call in answer.tool_calls] == ["weather"]
    )


def _is_unpaid(*codes: str) -> Callable[[Answer], bool]:
    def holds(answer: Answer) -> bool:
        return (
            isinstance(answer, Failure)
            and answer.code in codes
            and answer.billing is Billing.UNBILLED
            and not answer.retryable
        )

    return holds


TOWN = (
    '{"type":"object","properties":{"town":{"type":"string"}},"required":["town"],'
    '"additionalProperties":false}'
)
SCENARIOS = (
    Scenario("plain", "Reply with the word: pong", _has_text),
    Scenario("unicode", "Repeat: Gr\u00fc\u00dfe \u4e2d\u6587 \U0001f600", _has_text),
    Scenario(
        "system",
        "Which language?",
        _has_text,
        {
            "messages": (
                Message(role="system", content="Answer in one word."),
                Message(role="user", content="Which language is this?"),
            )
        },
    ),
    Scenario(
        "truncated",
        "Count from one to five hundred in words.",
        lambda answer: _is_answer(answer, "length"),
        {"max_output_tokens": 24},
    ),
    Scenario("schema", "The capital of France.", _fits_schema, {"response_schema": TOWN}),
    Scenario(
        "tool",
        "What is the weather in Paris? Use the tool.",
        _calls_the_tool,
        {"tools": (Tool(name="weather", description="Weather of a town", parameters=TOWN),)},
    ),
    Scenario(
        "unknown-model",
        "Hello",
        _is_unpaid("not_found", "bad_request", "permission_denied"),
        model="no-such-model",
    ),
    Scenario(
        "wrong-key",
        "Hello with a wrong key",
        _is_unpaid("authentication_failed", "bad_request", "permission_denied"),
        key=WRONG_KEY,
    ),
)


def vcr_config(secrets: Sequence[str]) -> dict[str, Any]:
    """
    What vcrpy matches and keeps.

    Args:
        secrets: Texts that must be nowhere, beside what looks like a key.
    """
    scrub = Scrubber(secrets)
    return {
        "match_on": ["method", "path", "query", "body"],
        "before_record_request": scrub.request,
        "before_record_response": scrub.response,
        "decode_compressed_response": True,
    }


class Scrubber:
    """Removes what tells whose account it is."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def request(self, request: Any) -> Any:
        """Keep the path and the body; also what a replay is compared by."""
        parts = urlsplit(request.uri)
        path = self.text(urlunsplit(("", "", parts.path, parts.query, "")))
        request.uri = f"https://{HOST}{path}"
        request.headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in KEPT_REQUEST_HEADERS
        }
        if isinstance(request.body, bytes):
            request.body = self.text(request.body.decode()).encode()
        return request

    def response(self, response: dict[str, Any]) -> dict[str, Any]:
        """Keep limits, waits and the body, with fake ids."""
        body = response["body"]["string"]
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
        clean = self._body(text).encode()
        headers = dict(self._headers(response["headers"]))
        return {**response, "headers": headers, "body": {"string": clean}}

    def text(self, text: str) -> str:
        """Replace secrets in a text."""
        for secret in self._secrets:
            text = text.replace(secret, SCRUBBED)
        return SECRETS.sub(SCRUBBED, text)

    def _headers(self, headers: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
        for name, value in headers.items():
            values = value if isinstance(value, list) else [value]
            if name.lower() in REQUEST_ID_HEADERS:
                yield name, [f"req_{FAKE_ID}"]
            elif KEPT_HEADERS.fullmatch(name):
                yield name, [self.text(str(one)) for one in values]

    def _body(self, text: str) -> str:
        try:
            fields = json.loads(text)
        except ValueError:
            return self.text(text)
        return json.dumps(self._clean(fields, is_top=True), ensure_ascii=False)

    def _clean(self, value: Any, *, is_top: bool = False) -> Any:
        """A value of JSON without secrets. Only ids at the top are replaced: calls of tools are named by theirs."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if not isinstance(value, dict):
            return value
        fakes = {**FAKES, **({"id": FAKE_ID, "request_id": FAKE_ID} if is_top else {})}
        return {
            self.text(key): SCRUBBED
            if key in ACCOUNT_FIELDS and item
            else fakes.get(key, self._clean(item))
            if isinstance(item, str | int)
            else self._clean(item)
            for key, item in value.items()
        }
