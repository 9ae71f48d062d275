"""The fixtures of `tests/security` and `tests/chaos`, for tests that take too long to be there."""

from tests.chaos.conftest import environment, fork_server
from tests.security.conftest import deployment, provider, standing, worker

__all__ = ["deployment", "environment", "fork_server", "provider", "standing", "worker"]
