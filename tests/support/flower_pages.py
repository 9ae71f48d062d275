"""Read the pages of Flower as a browser does: with a password, and along the links."""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from html import unescape

from tests.support.waiting import until

PAGES_MAX, VIEWS_MAX = 60, 3


def crawl(url: str, *paths: str, auth: str) -> Iterator[tuple[str, str]]:
    """Yield the pages of Flower that its links lead to, and the given ones; of each page a few views."""
    to_visit, seen, views = deque(["/", "/tasks", *paths]), set[str](), Counter[str]()
    while to_visit and len(seen) < PAGES_MAX:
        path = to_visit.popleft()
        page = path.partition("?")[0]
        if path in seen or views[page] == VIEWS_MAX or path.startswith(("/static", "/logout")):
            continue
        seen.add(path)
        views[page] += 1
        # A worker's page lists what runs, also a sweep that it received before Flower listened.
        if path.startswith("/task/sweep.") and status_of(url + path, auth) == 404:
            continue
        # Flower asks a worker for its page, and answers 404 if the worker does not answer within a second.
        until(lambda: status_of(url + path, auth) != 404, 20.0, lambda: path)  # noqa: B023
        body = get(url + path, auth)
        yield path, body
        to_visit += map(unescape, re.findall(r'href="(/[^"#]*)"', body))


def get(url: str, auth: str | None = None) -> str:
    """Return the body of a page."""
    request = urllib.request.Request(url)  # noqa: S310 - an address of ours
    if auth:
        request.add_header("Authorization", "Basic " + base64.b64encode(auth.encode()).decode())
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        body: bytes = answer.read()
        return body.decode()


def status_of(url: str, auth: str | None = None) -> int:
    """Return the status of a page; 0 without a connection."""
    try:
        get(url, auth)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0
    return 200
