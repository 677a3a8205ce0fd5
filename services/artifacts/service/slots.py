"""Slots: how a person brings the bytes of an input.

    create    the slot's row, and a signed PUT to its staging key
    (PUT)     to the store, past this service
    complete  look at what came, compare, copy to a final key, note it, delete the staging object

The row is what makes an input usable. Until it is written, complete can be repeated from its
start; once it is, nothing reads the staging key again.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from libs import failpoints
from libs.db import Database, Tx, retry_stale
from libs.errors import StaleWrite
from libs.ids import IdSource
from libs.objects import ObjectChanged, ObjectMissing, ObjectsUnavailable
from libs.tenancy import Tenant
from services.artifacts.config import ArtifactsConfig
from services.artifacts.domain import (
    Claim,
    Input,
    InputState,
    Stored,
    content_type,
    input_filename,
    kind_word,
)
from services.artifacts.errors import (
    InputLimit,
    InputMismatch,
    InputNotFound,
    InputNotReady,
    InputsUnavailable,
    InputTooLarge,
)
from services.artifacts.repository import InputsRepository

if TYPE_CHECKING:
    from libs.objects import ObjectInfo, Objects, SignedRequest

T = TypeVar("T")
AFTER_COPY = failpoints.register(
    "artifacts.input.after_copy", "the bytes are under their final key, the row says pending"
)
_COPIES_MAX = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """A new slot. The token and the request are nowhere else."""

    item: Input
    token: str = field(repr=False)
    request: SignedRequest
    complete_url: str


class InputSlots:
    """Makes slots and completes them."""

    def __init__(
        self,
        *,
        database: Database,
        repository: InputsRepository,
        objects: Objects,
        ids: IdSource,
        config: ArtifactsConfig,
    ) -> None:
        self._database = database
        self._repository = repository
        self._objects = objects
        self._ids = ids
        self._config = config

    async def create_job_input(
        self, tenant: Tenant, filename: str, mime: str, kind: str, size_bytes: int | None
    ) -> Slot:
        """A slot with a signed PUT, both good for `upload_url_seconds`. Raises InvalidName,
        InputTooLarge and InputLimit."""
        name, mime, kind = input_filename(filename), content_type(mime), kind_word(kind)
        self._check_size(size_bytes or 0)
        token = self._ids.secret(24)
        config = self._config

        def work(tx: Tx) -> Input:
            now = tx.now()
            item = Input(
                tenant.workspace_id,
                self._ids.new("inp"),
                name,
                mime,
                kind,
                size_bytes,
                _digest(token),
                create_time=now,
                slot_expire_time=now + timedelta(seconds=config.upload_url_seconds),
                due_time=now + timedelta(hours=config.pending_hours),
            )
            self._charge(tx, tenant, item)
            self._repository.add(tx, tenant, item)
            return item

        item = await self._write(work)
        url = f"{config.public_base_url.rstrip('/')}/v1/job-inputs/{item.input_id}/complete"
        return Slot(item, token, self._sign(item), url)

    async def complete_job_input(self, tenant: Tenant, input_id: str, claim: Claim) -> Input:
        """Makes what was uploaded immutable and usable. Idempotent. Raises InputNotFound,
        InputMismatch, InputNotReady, InputLimit and InputsUnavailable."""
        for _ in range(_COPIES_MAX):
            item, now = await self._claimed(tenant, input_id, claim)
            if item.stored is not None:
                item.check_bytes(item.stored.size_bytes, item.stored.etag, claim)
                return item
            if now >= item.slot_expire_time:
                raise InputMismatch(
                    "the upload slot has expired; make a new one with POST /v1/job-inputs",
                    details={"field": "token"},
                )
            try:
                return await self._keep(tenant, item, claim)
            except (ObjectChanged, StaleWrite):
                continue  # another PUT or another complete came in between: look again
        raise InputNotReady(
            "the uploaded bytes keep changing; finish the upload, then complete again",
            retry_after_seconds=1.0,
        )

    async def _claimed(self, tenant: Tenant, input_id: str, claim: Claim) -> tuple[Input, datetime]:
        item, now = await self._database.read(
            lambda tx: (self._repository.get(tx, tenant, input_id), tx.now())
        )
        if item is None or item.state is InputState.EXPIRED:
            raise InputNotFound(
                f"no input {input_id[:64]}; make a slot with POST /v1/job-inputs",
                details={"input_id": input_id[:64]},
            )
        if not item.opens(_digest(claim.token)):
            raise InputMismatch(
                "token is not the one of this upload slot; send upload.token of its answer",
                details={"field": "token"},
            )
        item.check_claim(claim)
        return item, now

    async def _keep(self, tenant: Tenant, item: Input, claim: Claim) -> Input:
        async with inputs_store():
            found = await self._objects.head(item.staging_key)
            if found is None:
                raise _no_bytes(item)
            self._check_size(found.size)
            item.check_bytes(found.size, found.etag, claim)
            stored = await self._copy(item, found)
        await AFTER_COPY.hit_async()
        done = await self._note(tenant, item, stored)
        async with inputs_store():
            await self._objects.delete(item.staging_key)
        return done

    async def _copy(self, item: Input, found: ObjectInfo) -> Stored:
        key = item.final_key(hashlib.sha256(found.etag.encode()).hexdigest()[:32])
        try:
            kept = await self._objects.copy(item.staging_key, key, if_match_etag=found.etag)
        except ObjectMissing:
            raise _no_bytes(item) from None
        return Stored(key, kept.size, kept.etag, kept.sha256)

    async def _note(self, tenant: Tenant, item: Input, stored: Stored) -> Input:
        """Not retried here: a stale row means that the input is no longer what was checked."""

        def work(tx: Tx) -> Input:
            now = tx.now()
            due = now + timedelta(days=self._config.retention_days)
            done = item.complete(stored, now, due)
            usage = self._repository.usage(tx, tenant).change(item, done)
            self._check_room(usage.size_bytes)
            self._repository.update(tx, tenant, done)
            self._repository.save_usage(tx, tenant, usage)
            return done

        return await self._database.write(work)

    def _charge(self, tx: Tx, tenant: Tenant, item: Input) -> None:
        usage = self._repository.usage(tx, tenant).add(item)
        config = self._config
        if usage.inputs > config.inputs_per_workspace_max:
            raise _limit("inputs", config.inputs_per_workspace_max)
        if usage.pending > config.pending_inputs_per_workspace_max:
            raise _limit("unfinished uploads", config.pending_inputs_per_workspace_max)
        self._check_room(usage.size_bytes)
        self._repository.save_usage(tx, tenant, usage)

    def _check_room(self, size_bytes: int) -> None:
        if size_bytes > self._config.input_bytes_per_workspace_max:
            raise _limit("bytes of inputs", self._config.input_bytes_per_workspace_max)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._config.input_bytes_max:
            raise InputTooLarge(
                f"an input may have at most {self._config.input_bytes_max} bytes; split the file",
                details={"field": "size_bytes", "limit": self._config.input_bytes_max},
            )

    def _sign(self, item: Input) -> SignedRequest:
        # Any Content-Type is taken, because the contract's answer asks for no headers: the type
        # that counts is the slot's.
        return self._objects.sign_put(
            item.staging_key,
            content_type="",
            size_max=self._config.input_bytes_max
            if item.declared_bytes is None
            else max(1, item.declared_bytes),
            expires_seconds=self._config.upload_url_seconds,
            single_use_id=item.input_id,
        )

    async def _write(self, work: Callable[[Tx], T]) -> T:
        return await retry_stale(lambda: self._database.write(work))


@asynccontextmanager
async def inputs_store() -> AsyncIterator[None]:
    """Names the public service that fails when the store does."""
    try:
        yield
    except ObjectsUnavailable as error:
        raise InputsUnavailable(
            "the store of inputs does not answer; try again in a moment",
            retry_after_seconds=error.retry_after_seconds or 5.0,
        ) from error


def _digest(token: str) -> bytes:
    # The token has 192 random bits, so a plain hash cannot be searched.
    return hashlib.sha256(token.encode()).digest()


def _no_bytes(item: Input) -> InputNotReady:
    return InputNotReady(
        "no bytes have come for this input; PUT them to upload_url, then complete again",
        details={"input_id": item.input_id},
    )


def _limit(what: str, limit: int) -> InputLimit:
    return InputLimit(
        f"this workspace may keep {limit} {what}; unused ones expire after 30 days, unfinished "
        "ones after 24 hours",
        details={"limit": limit, "of": what},
        retry_after_seconds=3600.0,
    )
