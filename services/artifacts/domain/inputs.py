"""An input: a slot for bytes that a person sends before a job is submitted."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from libs.errors import InvalidRequest
from services.artifacts.errors import InputMismatch


class InputState(StrEnum):
    """States of an input; the words are the contract's."""

    PENDING = "pending"
    UPLOADED = "uploaded"
    EXPIRED = "expired"


# EXPIRED after UPLOADED is retention: nothing has used the input for a long time.
MOVES: Mapping[InputState, frozenset[InputState]] = {
    InputState.PENDING: frozenset({InputState.UPLOADED, InputState.EXPIRED}),
    InputState.UPLOADED: frozenset({InputState.EXPIRED}),
    InputState.EXPIRED: frozenset(),
}


class IllegalMove(Exception):
    """A move that MOVES does not have: a fault of this service, not of its callers."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes as the store has them."""

    object_key: str
    size_bytes: int
    etag: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What complete says; empty and None mean that it does not say."""

    token: str = field(repr=False)
    filename: str = ""
    content_type: str = ""
    size_bytes: int | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Input:
    """`due_time` is when the sweeper moves it on; `declared_bytes` is None when the size was not
    told beforehand. Only `token_digest` of the token is kept."""

    workspace_id: str
    input_id: str
    filename: str
    content_type: str
    kind: str
    declared_bytes: int | None
    token_digest: bytes
    create_time: datetime
    slot_expire_time: datetime
    due_time: datetime
    state: InputState = InputState.PENDING
    upload_time: datetime | None = None
    used_time: datetime | None = None
    stored: Stored | None = None
    version: int = 1

    @property
    def staging_key(self) -> str:
        """Where the client's PUT goes; never read by anything but complete."""
        return f"staging/input.{self.workspace_id}.{self.input_id}"

    @property
    def ready(self) -> bool:
        """A job may use it."""
        return self.state is InputState.UPLOADED

    @property
    def script(self) -> bool:
        """It mounts under scripts."""
        return self.kind == "script"

    @property
    def mount_path(self) -> str:
        """Where a job finds it."""
        return f"/workspace/{'scripts' if self.script else 'inputs'}/{self.filename}"

    @property
    def charged_bytes(self) -> int:
        """What it takes of the workspace's room."""
        if self.stored is not None:
            return self.stored.size_bytes
        return self.declared_bytes or 0

    def final_key(self, content: str) -> str:
        """Where its bytes stay. `content` names them, so that two completes that race over
        different bytes never write the same object."""
        return f"inputs/{self.workspace_id}/{self.input_id}/{content}"

    def opens(self, digest: bytes) -> bool:
        """The token with this digest is this slot's; in constant time."""
        return hmac.compare_digest(self.token_digest, digest)

    def check_claim(self, claim: Claim) -> None:
        """Raises InputMismatch when what complete says of the slot is not so."""
        if claim.filename and claim.filename != self.filename:
            raise _mismatch("filename", "is not the slot's; send the one the slot was made with")
        if claim.content_type and claim.content_type != self.content_type:
            raise _mismatch("content_type", "is not the slot's; send the same or leave it out")

    def check_bytes(self, size_bytes: int, etag: str, claim: Claim) -> None:
        """Raises InputMismatch when the store has other bytes than were said. An upload URL is
        good for one PUT, so other bytes need another slot."""
        for told in (claim.size_bytes, self.declared_bytes):
            if told is not None and told != size_bytes:
                raise _mismatch(
                    "size_bytes", f"is {told}, but {size_bytes} bytes came; upload to a new slot"
                )
        if claim.etag and claim.etag.strip('"') != etag.strip('"'):
            raise _mismatch("etag", "is not that of the bytes that came; upload to a new slot")

    def complete(self, stored: Stored, now: datetime, due_time: datetime) -> Input:
        """UPLOADED, with its bytes under their final key."""
        self._check(InputState.UPLOADED)
        return replace(
            self,
            state=InputState.UPLOADED,
            stored=stored,
            upload_time=now,
            used_time=now,
            due_time=due_time,
        )

    def use(self, now: datetime, due_time: datetime) -> Input:
        """A job refers to it: its retention begins anew."""
        return replace(self, used_time=now, due_time=due_time)

    def expire(self, due_time: datetime) -> Input:
        """EXPIRED: no job can use it, and at `due_time` row and bytes go."""
        self._check(InputState.EXPIRED)
        return replace(self, state=InputState.EXPIRED, due_time=due_time)

    def _check(self, to: InputState) -> None:
        if to not in MOVES[self.state]:
            raise IllegalMove(f"input {self.state} -> {to}")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the inputs of a workspace take up. `pending` of the `inputs` have no bytes yet."""

    inputs: int = 0
    pending: int = 0
    size_bytes: int = 0
    version: int = 0

    def add(self, item: Input) -> Usage:
        """After a slot was made."""
        return replace(
            self,
            inputs=self.inputs + 1,
            pending=self.pending + 1,
            size_bytes=self.size_bytes + item.charged_bytes,
        )

    def change(self, before: Input, after: Input) -> Usage:
        """After an input moved on. What has expired takes up nothing."""
        return replace(
            self,
            inputs=self.inputs - (after.state is InputState.EXPIRED),
            pending=self.pending - (before.state is InputState.PENDING),
            size_bytes=self.size_bytes - before.charged_bytes + _charged(after),
        )


@dataclass(frozen=True, slots=True)
class Mount:
    """An input as a job gets it."""

    input_id: str
    mount_path: str
    stored: Stored


def mounts(inputs: Sequence[Input], scripts: Sequence[Input]) -> list[Mount]:
    """All of them, inputs first. Raises InvalidRequest where they cannot be mounted together."""
    if len(scripts) > 1:
        raise InvalidRequest(
            "script_files takes one script; send further ones in input_files",
            details={"field": "script_files"},
        )
    for item in scripts:
        if not item.script:
            raise InvalidRequest(
                f"{item.input_id} was uploaded with kind '{item.kind}'; send it in input_files, "
                "or upload it again with kind 'script'",
                details={"field": "script_files", "input_id": item.input_id},
            )
    found = [_mount(item) for item in (*inputs, *scripts)]
    _check_paths(found)
    return found


def _check_paths(found: Iterable[Mount]) -> None:
    seen: dict[str, str] = {}
    for mount in found:
        if mount.mount_path in seen:
            raise _same_path(mount, seen[mount.mount_path])
        seen[mount.mount_path] = mount.input_id


def _mount(item: Input) -> Mount:
    if item.stored is None:
        raise IllegalMove(f"{item.input_id} has no bytes")
    return Mount(item.input_id, item.mount_path, item.stored)


def _same_path(mount: Mount, other: str) -> InvalidRequest:
    return InvalidRequest(
        f"{other} and {mount.input_id} would both be {mount.mount_path}; "
        "upload one of them under another filename",
        details={"mount_path": mount.mount_path, "input_ids": [other, mount.input_id]},
    )


def _charged(item: Input) -> int:
    return 0 if item.state is InputState.EXPIRED else item.charged_bytes


def _mismatch(field: str, problem: str) -> InputMismatch:
    return InputMismatch(f"{field} {problem}", details={"field": field})
