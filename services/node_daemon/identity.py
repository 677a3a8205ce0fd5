"""Who this node is: `<home>/identity.json`, readable by its owner alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from services.node_daemon import attempt_files

FILE = "identity.json"


class NoIdentity(Exception):
    """The node has no usable identity; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """`credential` (`jgn_...`) proves `node_id` to the grid."""

    node_id: str
    credential: str = field(repr=False)


def load(home: Path) -> Identity | None:
    """The identity kept in `home`; None before enrolment."""
    path = home / FILE
    if not path.exists():
        return None
    if path.stat().st_mode & 0o077:
        raise NoIdentity(f"{path} can be read by others; run: chmod 600 {path}")
    try:
        found = json.loads(path.read_text())
        return Identity(found["node_id"], found["credential"])
    except (ValueError, KeyError, TypeError):
        raise NoIdentity(f"{path} is damaged; remove it and enrol the node again") from None


def keep(home: Path, identity: Identity) -> None:
    """Writes it for good: the enrolment token that it was traded for is used up."""
    path = home / FILE
    attempt_files.write_json_durably(
        str(path), {"node_id": identity.node_id, "credential": identity.credential}
    )
    os.chmod(path, 0o600)


def read_token(path: Path | None) -> str:
    """The enrolment token in a file."""
    if path is None:
        raise NoIdentity("this node is not enrolled; give it --enrolment-token-file")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NoIdentity(f"cannot read the enrolment token in {path}: {error.strerror}") from None
