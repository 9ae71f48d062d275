"""A login handler of somebody's own, as Flower's documentation describes: it lets the user of the query in."""

from __future__ import annotations

from flower.views import BaseHandler


class OwnLogin(BaseHandler):  # type: ignore[misc]
    """Logs in without asking."""

    def get(self) -> None:
        """Set the cookie that Flower's own handlers set."""
        self.set_secure_cookie("user", self.get_argument("as"))
        self.redirect(self.get_argument("next", "/"))
