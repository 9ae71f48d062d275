"""Somebody who uses callgate's pages without a browser: follows redirects, keeps cookies, fills in forms."""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from urllib.parse import urlencode, urljoin, urlsplit

BOUNDARY = "----callgate-tests"


@dataclass
class Form:
    """A form of a page, as it would be sent."""

    action: str
    method: str
    is_multipart: bool
    fields: dict[str, str] = field(default_factory=dict)
    button: str = ""
    is_enabled: bool = True


@dataclass(frozen=True)
class Seen:
    """A page that was answered."""

    url: str
    status: int
    text: str

    @property
    def path(self) -> str:
        """Path and query."""
        parts = urlsplit(self.url)
        return parts.path + (f"?{parts.query}" if parts.query else "")

    @property
    def words(self) -> str:
        """The text of the page, with one space between words."""
        reader = _Reader()
        reader.feed(self.text)
        return " ".join(" ".join(reader.words).split())

    @property
    def alerts(self) -> str:
        """What the page says in its alerts."""
        return " ".join(
            re.sub(r"<[^>]*>", "", found)
            for found in re.findall(r'<div class="alert[^>]*>(.*?)</div>', self.text, re.DOTALL)
        )

    def form(self, button: str) -> Form:
        """The form with a button of that text; of several the last."""
        reader = _Reader()
        reader.feed(self.text)
        found = [form for form in reader.forms if form.button == button]
        assert found, (button, [form.button for form in reader.forms])
        return found[-1]


class Visitor:
    """One user with a password."""

    def __init__(self, port: int, auth: str | None) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.cookies = CookieJar()
        self._auth = auth
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> Seen:
        """Open a page."""
        return self._send(urllib.request.Request(urljoin(self.base, path)))  # noqa: S310 - ours

    def submit(
        self, page: Seen, button: str, *, file: bytes | None = None, **changes: str | None
    ) -> Seen:
        """Fill in the form of a button, and send it. None leaves a field out."""
        return self.send(page.form(button), page.url, file=file, **changes)

    def send(
        self, form: Form, url: str = "", *, file: bytes | None = None, **changes: str | None
    ) -> Seen:
        """Send a form."""
        fields = {**form.fields, **changes}
        given = {name: value for name, value in fields.items() if value is not None}
        target = urljoin(url or self.base, form.action)
        if form.method == "get":
            return self.get(target.partition("#")[0].partition("?")[0] + "?" + urlencode(given))
        if form.is_multipart:
            body, kind = _multipart(given, file)
        else:
            body, kind = urlencode(given).encode(), "application/x-www-form-urlencoded"
        request = urllib.request.Request(target, body, {"Content-Type": kind})  # noqa: S310
        return self._send(request)

    def _send(self, request: urllib.request.Request) -> Seen:
        if self._auth:
            word = base64.b64encode(self._auth.encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        try:
            with self._opener.open(request, timeout=30) as answer:
                return Seen(answer.geturl(), answer.status, answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Seen(error.geturl(), error.code, error.read().decode())


def _multipart(fields: Mapping[str, str], file: bytes | None) -> tuple[bytes, str]:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    if file is not None:
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="bills.csv"\r\n'
            "Content-Type: text/csv\r\n\r\n"
        )
        parts.append(head.encode() + file + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode(), (
        f"multipart/form-data; boundary={BOUNDARY}"
    )


class _Reader(HTMLParser):
    """Reads forms and words."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.words: list[str] = []
        self._open: Form | None = None
        self._in = ""
        self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a form, or add a field to it."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            kind = given.get("enctype", "")
            self._open = Form(
                given.get("action", ""), given.get("method", "get"), "multipart" in kind
            )
            self.forms.append(self._open)
        elif self._open and tag == "input" and given.get("name"):
            is_box = given.get("type") == "checkbox"
            if given.get("type") != "file" and (not is_box or "checked" in given):
                self._open.fields[given["name"]] = given.get("value", "")
        elif self._open and tag == "textarea":
            self._area = given.get("name", "")
            self._open.fields[self._area] = ""
        elif self._open and tag == "button":
            self._open.is_enabled = "disabled" not in given
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        """End a form."""
        if tag == "form":
            self._open = None
        self._in, self._area = "", ""

    def handle_data(self, data: str) -> None:
        """Note what is shown."""
        if self._area and self._open:
            self._open.fields[self._area] += data
        elif self._in == "button" and self._open:
            self._open.button += data.strip()
        if self._in not in ("script", "style"):
            self.words.append(data)
