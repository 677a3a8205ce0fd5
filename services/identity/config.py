"""Settings of identity: section `[identity]`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdentityConfig:
    """Times in seconds. `revocation_sweep_seconds` is how long a revocation that another replica
    committed may go unseen here; with one beat it must stay under the 5 s that a revoked key may
    live."""

    beat_seconds: float = 1.0
    revocation_sweep_seconds: float = 3.0
    revocations_per_reply_max: int = 500
    name_letters_max: int = 100
    keys_per_workspace_max: int = 200

    def __post_init__(self) -> None:
        if self.beat_seconds + self.revocation_sweep_seconds >= 5.0:
            raise ValueError("beat_seconds + revocation_sweep_seconds must stay under 5 s")
