"""One vocabulary: every code has a class, every class survives the wire as itself."""

from __future__ import annotations

import grpc
import pytest

from libs import errors
from libs.errors import BY_CODE, KINDS, Code, GridError, NotFound, Unavailable, Unprocessable
from libs.rpc.status import DETAILS_KEY, from_grpc, to_grpc


def failure(error: GridError) -> grpc.aio.AioRpcError:
    code, message, trailing = to_grpc(error)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), message)


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_grpcs_number_and_has_a_class(code: Code) -> None:
    names = {status.value[0]: status.name for status in grpc.StatusCode}
    assert names[int(code)] == code.name
    assert issubclass(BY_CODE[code], GridError)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_class_crosses_the_wire_as_itself(kind: str) -> None:
    sent = KINDS[kind]("what to do", reason="SOME_REASON", details={"a": [1, None, "ü"]})
    back = from_grpc(failure(sent))
    assert type(back) is KINDS[kind]
    assert (back.code, back.reason, back.message) == (sent.code, "SOME_REASON", "what to do")
    assert back.details == {"a": [1, None, "ü"]}
    assert back.retry_after_seconds is None


def test_a_services_own_class_comes_back_as_its_parent_with_its_reason() -> None:
    class JobNotFound(NotFound):
        reason = "JOB_NOT_FOUND"

    back = from_grpc(failure(JobNotFound("no job", retry_after_seconds=0.25)))
    assert type(back) is NotFound
    assert (back.reason, back.retry_after_seconds) == ("JOB_NOT_FOUND", 0.25)


def test_details_too_big_for_a_header_are_dropped_and_the_error_is_kept() -> None:
    sent = NotFound("no", details={"x": "y" * 20_000})
    _, _, trailing = to_grpc(sent)
    assert len(dict(trailing)[DETAILS_KEY]) < 1000
    assert from_grpc(failure(sent)).details == {"truncated": True}


def test_an_unknown_class_of_a_newer_peer_keeps_its_code() -> None:
    class Newer(GridError):
        kind = "FromTheFuture"
        code = Code.DATA_LOSS

    back = from_grpc(failure(Newer("lost")))
    assert back.code is Code.DATA_LOSS


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status.value[0]])
def test_a_status_without_details_still_becomes_a_class(status: grpc.StatusCode) -> None:
    bare = grpc.aio.AioRpcError(status, grpc.aio.Metadata(), grpc.aio.Metadata(), "text")
    assert isinstance(from_grpc(bare), BY_CODE[Code(status.value[0])])


def test_unavailable_says_when_to_try_again() -> None:
    bare = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "unix:/x/grid.sock"
    )
    back = from_grpc(bare)
    assert isinstance(back, Unavailable)
    assert "grid.sock" not in back.message
    assert back.retry_after_seconds == 1.0


def test_unprocessable_needs_a_reason() -> None:
    with pytest.raises(TypeError):
        Unprocessable("why")
    assert Unprocessable("why", reason="CPU_ONLY").reason == "CPU_ONLY"


def test_every_public_error_is_in_the_table() -> None:
    public = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, GridError) and each is not GridError
    }
    assert public == set(KINDS.values())
