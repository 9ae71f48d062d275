"""callgate's pages in a real Flower: who may read and change, by which login, and what is said when it is not so."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from sqlalchemy import make_url

from callgate.adapters.postgres.overview import PostgresOverview
from callgate.adapters.postgres.roles import DASHBOARD, OPERATOR
from callgate.adapters.postgres.session import PostgresSession
from callgate.domain.overview import ActionFilter, LoggedAction
from devkit.servers.ports import free_port
from tests.support.deployment import Deployment
from tests.support.flower import FlowerUnderTest, a_flower
from tests.support.flower_forms import LOGGED_IN, LOGINS, Visitor
from tests.support.logins import a_login, name_of

PAGES = ("/overview", "/actions")
HTML = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def logins(standing: Deployment) -> Iterator[tuple[str, str]]:
    """The logins that pages read with, and that operators change with."""
    with ExitStack() as stack:
        url = standing.services.database_url
        reading = stack.enter_context(a_login(url, DASHBOARD))
        changing = stack.enter_context(a_login(url, DASHBOARD, OPERATOR))
        yield reading, changing


@pytest.fixture(scope="module")
def flower(standing: Deployment, logins: tuple[str, str]) -> Iterator[FlowerUnderTest]:
    """Flower with several users, under the logins of the database that docs/security.md asks for."""
    reading, changing = logins
    with a_flower(
        standing,
        CALLGATE_WORKER__FLOWER_DATABASE_URL=reading,
        CALLGATE_WORKER__FLOWER_OPERATOR_URL=changing,
        **LOGGED_IN,
    ) as flower:
        yield flower


def visitor(flower: FlowerUnderTest, name: str) -> Visitor:
    """A user."""
    return Visitor(flower, LOGINS[name])


def noted(deployment: Deployment, reason: str) -> list[LoggedAction]:
    """The notes of the action log with this reason."""
    with closing(PostgresSession(deployment.services.database_url)) as session:
        page = PostgresOverview(session).actions_page(ActionFilter(action="note"), limit=1_000)
    return [logged for logged in page if logged.done.by.reason == reason]


def test_pages_ask_for_a_password(flower: FlowerUnderTest) -> None:
    for path in PAGES:
        assert Visitor(flower).ask(path).status == 401
        assert Visitor(flower, "vera:wrong").ask(path).status == 401
        assert visitor(flower, "vera").ask(path).status == 200


def test_the_root_is_the_overview(flower: FlowerUnderTest) -> None:
    answer = visitor(flower, "vera").ask("/")

    assert (answer.status, answer.headers["Location"]) == (302, "/overview")


def test_an_operator_changes_something_and_is_in_the_log(
    standing: Deployment, flower: FlowerUnderTest, logins: tuple[str, str]
) -> None:
    """With the name that Flower knows, the reason, and the operators' login of the database."""
    ann = visitor(flower, "ann")
    answer = ann.send("/actions", org="acme", reason=f"told them {HTML}")

    assert (answer.status, answer.headers["Location"]) == (303, "/actions")
    (logged,) = noted(standing, f"told them {HTML}")
    assert (logged.done.by.operator, logged.done.org_id) == ("ann", "acme")
    assert logged.login == name_of(logins[1])
    shown = ann.ask("/actions").body
    assert "The note is in the log." in shown
    assert HTML not in shown
    assert html.escape(HTML) in shown
    assert "The note is in the log." not in ann.ask("/actions").body
    assert html.escape(HTML) in ann.ask("/actions?operator=ann").body
    assert html.escape(HTML) not in ann.ask("/actions?operator=bob").body


@pytest.mark.parametrize("name", ["vera", "bo"])
def test_others_change_nothing(standing: Deployment, flower: FlowerUnderTest, name: str) -> None:
    """Not with an operator's form either; their own pages say why, and have no working button."""
    theirs, ann = visitor(flower, name), visitor(flower, "ann")
    page = theirs.ask("/actions").body
    assert f"{name} has no role operator" in page
    assert re.search(r"<button[^>]*disabled[^>]*>Write</button>", page)

    own = theirs.send("/actions", reason=f"by {name}")
    stolen = theirs.ask(
        "/actions",
        {
            **ann.form("/actions", "/actions"),
            "_xsrf": theirs.form("/actions", "/actions")["_xsrf"],
            "reason": f"by {name}",
        },
    )

    assert [own.status, stolen.status] == [403, 403]
    assert noted(standing, f"by {name}") == []


def test_a_form_needs_its_token_and_its_site(standing: Deployment, flower: FlowerUnderTest) -> None:
    """Another site's page, a form without a token, and a token of somebody else's form are refused."""
    ann = visitor(flower, "ann")
    fields = {**ann.form("/actions", "/actions"), "reason": "forged"}
    tokenless = {name: value for name, value in fields.items() if name != "_xsrf"}
    answers = [
        ann.ask("/actions", tokenless),
        ann.ask("/actions", {**fields, "_xsrf": "2|00|00|00"}),
        ann.ask("/actions", fields, Origin="http://elsewhere.example"),
        ann.ask("/actions", fields, **{"Sec-Fetch-Site": "cross-site"}),
        ann.ask("/actions", {**fields, "once": ""}),
        ann.ask("/actions", {**fields, "once": visitor(flower, "bo").new_once()}),
    ]

    assert [answer.status for answer in answers] == [403] * 6
    assert noted(standing, "forged") == []


def test_a_form_that_is_sent_twice_counts_once(
    standing: Deployment, flower: FlowerUnderTest
) -> None:
    ann = visitor(flower, "ann")
    fields = {**ann.form("/actions", "/actions"), "reason": "twice"}

    assert [ann.ask("/actions", fields).status for _ in range(2)] == [303, 303]
    assert len(noted(standing, "twice")) == 1
    assert "was sent before" in ann.ask("/actions").body


@pytest.mark.parametrize("reason", ["", "   ", "x" * 1_001, "turned \u202e"])
def test_a_change_needs_a_reason(
    standing: Deployment, flower: FlowerUnderTest, reason: str
) -> None:
    ann = visitor(flower, "ann")
    before = len(noted(standing, reason))

    assert ann.send("/actions", reason=reason).status == 303
    assert "Nothing was changed" in ann.ask("/actions").body
    assert len(noted(standing, reason)) == before


@pytest.mark.parametrize("query", ["before=x", "before=-1", f"org={'x' * 5_000}"])
def test_a_wrong_address_is_a_page(flower: FlowerUnderTest, query: str) -> None:
    answer = visitor(flower, "vera").ask(f"/actions?{query}")

    assert answer.status == 400
    assert "callgate/callgate.css" in answer.body


def test_our_pages_run_no_inline_script(flower: FlowerUnderTest) -> None:
    """The policy allows none, there is none, and forms go to this host only."""
    for path in (*PAGES, "/actions?before=x"):
        answer = visitor(flower, "vera").ask(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "form-action 'self'" in policy
        assert re.findall(r"<script(?![^>]*src=)[^>]*>", answer.body) == []
        assert (
            re.findall(r"\sstyle=|\son\w+=|(?:src|href)=\"(?:https?:)?//", main_of(answer.body))
            == []
        )


def main_of(page: str) -> str:
    """The page without Flower's navigation, which links to Flower's documentation."""
    return page.partition("<main")[2]


def test_a_flower_that_is_read_only_changes_nothing(standing: Deployment) -> None:
    """Whether a setting or the command line says so; operators read why."""
    with a_flower(standing, "--read-only", **LOGGED_IN) as flower:
        ann = visitor(flower, "ann")
        assert "read-only" in ann.ask("/actions").body
        assert ann.send("/actions", reason="read-only").status == 403
    assert noted(standing, "read-only") == []


def test_without_a_login_nothing_is_changed(standing: Deployment) -> None:
    """Pages are read on loopback; roles and a form of another Flower do not help."""
    with a_flower(
        standing,
        CALLGATE_WORKER__FLOWER_BASIC_AUTH="",
        CALLGATE_WORKER__FLOWER_ROLES="ann=operator",
        CALLGATE_WORKER__FLOWER_DEFAULT_ROLE="operator",
    ) as flower:
        nobody = Visitor(flower)
        assert "nobody has logged in" in nobody.ask("/actions").body
        assert nobody.send("/actions", reason="nobody").status == 403
        assert nobody.ask("/overview", Host="elsewhere.example").status == 403
    assert noted(standing, "nobody") == []


def test_pages_live_under_a_path_of_a_proxy(standing: Deployment) -> None:
    """Every link, form and file of a page begins with it."""
    with a_flower(standing, "--url_prefix", "ops/flower", **LOGGED_IN) as flower:
        ann = visitor(flower, "ann")
        assert ann.ask("/overview").status == 404
        for path in PAGES:
            page = ann.ask(f"/ops/flower{path}").body
            local = re.findall(r'(?:href|src|action|hx-get)="(/[^"]*)"', page)
            assert len(local) > 8
            assert [link for link in local if not link.startswith("/ops/flower/")] == []
            assert {ann.ask(html.unescape(link)).status for link in local if "static" in link} == {
                200
            }
        assert ann.send("/ops/flower/actions", reason="prefixed").status == 303
        assert ann.ask("/ops/flower/").headers["Location"] == "/ops/flower/overview"
    assert len(noted(standing, "prefixed")) == 1


def test_a_database_that_is_away_is_a_page(standing: Deployment) -> None:
    """With its reason and without its password; Flower's own pages go on."""
    url = make_url(standing.services.database_url).set(port=free_port(), password="hidden-word")  # noqa: S106
    gone = url.render_as_string(hide_password=False)
    with a_flower(standing, CALLGATE_WORKER__FLOWER_DATABASE_URL=gone, **LOGGED_IN) as flower:
        vera = visitor(flower, "vera")
        for path in PAGES:
            answer = vera.ask(path)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "The database is away" in answer.body
            assert "hidden-word" not in answer.body
        assert vera.ask("/tasks").status == 200
        assert "hidden-word" not in flower.process.output()
        form = visitor(flower, "ann")
        assert form.ask("/actions", {"reason": "x"}).status == 403


def test_a_login_without_the_role_is_told_what_it_lacks(
    standing: Deployment, logins: tuple[str, str]
) -> None:
    """Pages read with no rights but the dashboard's, so a worker's login is not enough."""
    with a_flower(
        standing,
        CALLGATE_WORKER__FLOWER_DATABASE_URL=logins[0],
        CALLGATE_WORKER__FLOWER_OPERATOR_URL=logins[0],
        **LOGGED_IN,
    ) as flower:
        ann = visitor(flower, "ann")
        assert ann.send("/actions", reason="by the reading login").status == 303
        assert "Nothing was changed" in ann.ask("/actions").body
    with a_login(standing.services.database_url) as url:
        changed = {"CALLGATE_WORKER__FLOWER_DATABASE_URL": url}
        with a_flower(standing, **LOGGED_IN, **changed) as flower:
            answer = visitor(flower, "vera").ask("/overview")
            assert answer.status == 500
            assert DASHBOARD in answer.body


def test_users_of_an_own_login_have_roles(standing: Deployment) -> None:
    """Flower's way to log in, with a handler of one's own: the email is the user."""
    with a_flower(
        standing,
        CALLGATE_WORKER__FLOWER_BASIC_AUTH="",
        CALLGATE_WORKER__FLOWER_AUTH=".*@acme.example",
        CALLGATE_WORKER__FLOWER_AUTH_PROVIDER="tests.support.flower_login.OwnLogin",
        CALLGATE_WORKER__FLOWER_ROLES="ann@acme.example=operator",
        CALLGATE_WORKER__FLOWER_READ_ONLY="false",
    ) as flower:
        ann, eve = Visitor(flower), Visitor(flower)
        assert ann.ask("/overview").headers["Location"] == "/login?next=%2Foverview"
        assert ann.ask("/actions", {"reason": "x"}).status == 403
        ann.ask("/login?as=ann@acme.example")
        eve.ask("/login?as=eve@elsewhere.example")
        assert "ann@acme.example" in ann.ask("/overview").body
        assert eve.ask("/overview").status == 302
        assert ann.send("/actions", reason="by an email").status == 303
        forged = {**ann.form("/actions", "/actions"), "reason": "without a cookie"}
        del ann.cookies["_xsrf"]
        assert ann.ask("/actions", forged).status == 403
    (logged,) = noted(standing, "by an email")
    assert logged.done.by.operator == "ann@acme.example"


def test_a_login_at_a_provider_is_flowers_own(standing: Deployment) -> None:
    with a_flower(
        standing,
        CALLGATE_WORKER__FLOWER_BASIC_AUTH="",
        CALLGATE_WORKER__FLOWER_AUTH="ann@acme.example",
        CALLGATE_WORKER__FLOWER_AUTH_PROVIDER="google",
        CALLGATE_WORKER__FLOWER_OAUTH2_KEY="the-key",
        CALLGATE_WORKER__FLOWER_OAUTH2_SECRET="hidden-word",  # noqa: S106
        CALLGATE_WORKER__FLOWER_OAUTH2_REDIRECT_URI="https://ops.acme.example/login",
    ) as flower:
        answer = Visitor(flower).ask("/login")

    assert answer.status == 302
    assert answer.headers["Location"].startswith("https://accounts.google.com/")
    assert "client_id=the-key" in answer.headers["Location"]
    assert "ops.acme.example%2Flogin" in answer.headers["Location"]
    assert "hidden-word" not in json.dumps([*answer.headers.items()])
