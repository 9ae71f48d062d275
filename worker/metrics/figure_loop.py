"""Read the figures of the ledger again and again; no error ends that."""

from __future__ import annotations

import asyncio
import random

import structlog

from callgate.domain.errors import CallgateError
from callgate.services.figure_reader import FigureReader

log = structlog.get_logger(__name__)


async def keep_figures(figures: FigureReader, interval_s: float) -> None:
    """Read the figures until this is cancelled."""
    while True:
        await asyncio.to_thread(read_once, figures)
        await asyncio.sleep(pause_s(interval_s))


def read_once(figures: FigureReader) -> None:
    """Read the figures, or log why they cannot be read."""
    try:
        figures.run()
    except CallgateError as exc:
        log.warning("figures.ledger_unavailable", reason=str(exc))
    except Exception:
        # No call depends on figures. They are left out of `/metrics` when they are old.
        log.exception("figures.loop_failed")


def pause_s(interval_s: float) -> float:
    """The pause before the next time. It is jittered, so that processes do not all ask at once."""
    return interval_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret
