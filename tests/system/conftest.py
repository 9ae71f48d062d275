"""The fixtures of `tests/security`, for tests that take too long to be there."""

from tests.security.conftest import deployment, provider, standing, worker

__all__ = ["deployment", "provider", "standing", "worker"]
