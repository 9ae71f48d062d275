"""A user of Flower's pages without a browser: cookies, pages and forms."""

from __future__ import annotations

import base64
import html
import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from tests.support.flower import AUTH, Answer, FlowerUnderTest

LOGINS = {"ann": "ann:operates", "vera": "vera:views", "bo": "bo:reads"}
LOGGED_IN = {
    "CALLGATE_WORKER__FLOWER_BASIC_AUTH": json.dumps([AUTH, *LOGINS.values()]),
    "CALLGATE_WORKER__FLOWER_ROLES": "ann=operator, bo=body_reader",
    "CALLGATE_WORKER__FLOWER_READ_ONLY": "false",
}
"""Several users; `vera` has the default role."""


@dataclass
class Visitor:
    """A browser's cookies and password; no password for `auth=""`."""

    flower: FlowerUnderTest
    auth: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Answer:
        """Send GET, or with `fields` POST of a form."""
        said = dict(headers)
        if self.auth:
            said["Authorization"] = "Basic " + base64.b64encode(self.auth.encode()).decode()
        if self.cookies:
            said["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if fields is not None:
            body = urlencode(fields).encode()
            said["Content-Type"] = "application/x-www-form-urlencoded"
        line = http.client.HTTPConnection("127.0.0.1", self.flower.port, timeout=30)
        with closing(line):
            line.request("POST" if body is not None else "GET", path, body=body, headers=said)
            answer = line.getresponse()
            self._keep(answer.headers.get_all("Set-Cookie") or [])
            return Answer(answer.status, answer.headers, answer.read().decode(errors="replace"))

    def form(self, path: str, action: str) -> dict[str, str]:
        """Open a page, and return the hidden fields of its form that posts to `action`."""
        return dict(_hidden(self.ask(path).body, action))

    def new_once(self) -> str:
        """A token of a form of this user."""
        return self.form("/actions", "/actions")["once"]

    def send(self, path: str, **fields: str) -> Answer:
        """Open a page, and send its form, filled in."""
        return self.ask(path, {**self.form(path, path), **fields})

    def _keep(self, set_cookies: list[str]) -> None:
        for text in set_cookies:
            for name, morsel in SimpleCookie(text).items():
                if morsel.value:
                    self.cookies[name] = morsel.coded_value
                else:
                    self.cookies.pop(name, None)


def _hidden(page: str, action: str) -> Iterator[tuple[str, Any]]:
    forms = re.findall(r'<form method="post" action="([^"]*)"[^>]*>(.*?)</form>', page, re.DOTALL)
    for found, body in forms:
        if html.unescape(found) != action:
            continue
        for tag in re.findall(r"<input [^>]*type=\"hidden\"[^>]*>", body):
            attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
            yield attributes["name"], html.unescape(attributes["value"])
