"""How well calls used the limits of a simulated provider, from the provider's own list of arrivals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from devkit.simulator.simulator import Arrival, ProviderLimits, Simulator
from tests.support.deployment import Deployment
from tests.support.waiting import holds_within

POLL_S = 0.2
PROVIDER = "sim"

# The defaults of the product, unlike in other tests: how a call is retried decides how many requests are refused.
CATALOGUE = """
[providers.sim]
base_url = "{base_url}"
needs_key = false

[default]
max_output_tokens_default = 50

[[prices]]
provider = "sim"
model = "sim-1"
input_usd_per_million = 1
output_usd_per_million = 2
source = "tests of limits"
as_of = 2026-11-01
"""


def declared(**limits: int) -> str:
    """Return the catalogue's table that declares limits of the simulator, each per minute."""
    lines = [f"{measure} = {amount}" for measure, amount in limits.items()]
    return "\n".join(["[[limits]]", f'provider = "{PROVIDER}"', *lines, ""])


@dataclass(frozen=True)
class LimitUse:
    """What became of the calls of a run, and what the provider saw."""

    duration_s: float
    """From the first submission until no call was open."""
    states: Counter[str]
    limits: ProviderLimits
    arrivals: tuple[Arrival, ...]

    @property
    def refused(self) -> int:
        """The requests that the provider refused."""
        return sum(not arrival.is_accepted for arrival in self.arrivals)

    def __str__(self) -> str:
        share = share_used(self.arrivals, self.limits)
        return (
            f"{self.duration_s:.1f} s, {self.states['succeeded']} of {self.states.total()} succeeded,"
            f" {self.states['dead']} dead, {self.refused} refusals, {share:.0%} of the limit used"
        )

    def refusals_by(self, step_s: float) -> list[int]:
        """Return the refusals in each step of time, from the first arrival on."""
        if not self.arrivals:
            return []
        first_s, last_s = self.arrivals[0].at_s, self.arrivals[-1].at_s
        counts = [0] * (int((last_s - first_s) / step_s) + 1)
        for arrival in self.arrivals:
            counts[int((arrival.at_s - first_s) / step_s)] += not arrival.is_accepted
        return counts


def share_used(arrivals: Sequence[Arrival], limits: ProviderLimits, edge_s: float = 0.0) -> float:
    """
    Return the accepted requests as a share of what the limit allows on average.

    A short run can exceed 1: a sliding window accepts a whole minute's requests at once.

    Args:
        edge_s: How much is left out at both ends, so that only the steady part is measured.
    """
    accepted = [arrival.at_s for arrival in arrivals if arrival.is_accepted]
    if limits.requests is None or not accepted:
        return 0.0
    start_s, end_s = accepted[0] + edge_s, accepted[-1] - edge_s
    inside = sum(start_s <= at_s < end_s for at_s in accepted)
    return inside * limits.window_s / (limits.requests * (end_s - start_s)) if inside else 0.0


def until_all_ended(deployment: Deployment, timeout_s: float) -> None:
    """Wait until no call is open. After the timeout the open calls remain, and a test finds them in the states."""
    holds_within(timeout_s, lambda: deployment.open_calls() == 0, poll_s=POLL_S)


def use_of(deployment: Deployment, limits: ProviderLimits, duration_s: float) -> LimitUse:
    """Return what a run came to."""
    rows = deployment.rows("SELECT state, count(*) FROM llm_call GROUP BY state")
    states = Counter({str(state): int(count) for state, count in rows})
    provider: Simulator = deployment.provider
    return LimitUse(duration_s, states, limits, provider.arrivals())
