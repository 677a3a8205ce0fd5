"""Settings of nodes: section `[nodes]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodesConfig:
    """Times in seconds.

    A node kills a job `lease_ttl_seconds` after it sent its last acknowledged renewal, and needs
    `stop_grace_seconds` to do it. The server gives the node up `lost_grace_seconds` later than the
    ttl. The first sum must stay under the second, or two attempts of one job could overlap.
    """

    heartbeat_seconds: float = 5.0
    lease_ttl_seconds: float = 30.0
    lost_grace_seconds: float = 20.0
    stop_grace_seconds: float = 10.0
    # An online node that does not ask to start its lease for this long has refused it.
    claim_seconds: float = 60.0
    # A lease that must stop and is still open after this long is closed without its node's word.
    # An honest node needs minutes, for what the job left.
    stop_overrule_seconds: float = 3600.0
    # A claimed lease that is still open so long after its timeout_seconds is told to stop: the
    # node's own clock should have ended it.
    overrun_seconds: float = 900.0
    # Renewals are kept in memory and written together this often.
    renewal_flush_seconds: float = 1.0
    # The sessions' leases are compared with the table this often, in case a hint was lost.
    desired_sweep_seconds: float = 5.0
    session_seconds_max: float = 12 * 3600.0
    session_token_seconds: float = 3600.0
    grant_seconds: float = 900.0
    enrolment_token_seconds: float = 300.0
    enrolment_token_seconds_max: float = 24 * 3600.0
    # Above this share of nodes lost within the window, none is declared lost any more.
    brake_share: float = 0.5
    brake_window_seconds: float = 60.0
    # Too few nodes to tell their failure from ours.
    brake_nodes_min: int = 3
    leases_per_report_max: int = 1000
    page_size_max: int = 500

    @property
    def lost_seconds(self) -> float:
        """From the last renewal to the moment the node is given up."""
        return self.lease_ttl_seconds + self.lost_grace_seconds

    def __post_init__(self) -> None:
        if self.stop_grace_seconds + self.renewal_flush_seconds >= self.lost_grace_seconds:
            raise ValueError(
                "stop_grace_seconds + renewal_flush_seconds must be under lost_grace_seconds"
            )
        if self.heartbeat_seconds * 3 > self.lease_ttl_seconds:
            raise ValueError("lease_ttl_seconds must be at least three heartbeats")
