"""Settings of billing, from section [billing]."""

from __future__ import annotations

from dataclasses import dataclass

BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class BillingConfig:
    """Money rules and intervals; units are in the names."""

    # Part of every charge that stays with the platform; the rest is owed for the node.
    platform_fee_basis_points: int = 1_500
    # After this long without a word of its job, jobs is asked about a hold. It is given back when
    # there is no such job or it is over: however long the bus is out, a living job keeps it.
    orphan_seconds: float = 45.0
    # A final job whose lease never closed gets its hold back after this long.
    late_close_seconds: float = 3_600.0
    # The node's own timeout counts from the start of the process, the meter from the claim. This
    # much is given on top (unbilled), so that the timeout is what stops an ordinary job.
    exhaust_grace_seconds: float = 60.0
    # Lost wake-ups, orphans and late closes are looked for this often.
    sweep_seconds: float = 15.0
    # Facts are gathered for this long under load; a close that comes alone is not delayed.
    consumer_pace_seconds: float = 0.05
    page_size_default: int = 100
    page_size_max: int = 1_000

    def __post_init__(self) -> None:
        if not 0 <= self.platform_fee_basis_points <= BASIS_POINTS:
            raise ValueError(f"platform_fee_basis_points must be 0 to {BASIS_POINTS}")
        if self.sweep_seconds < 5:
            raise ValueError("sweep_seconds must be at least 5: wakes are for what is urgent")
