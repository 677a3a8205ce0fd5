"""Proto to domain and back; pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.jobs.v1 import job_pb2
from junglegrid.logs.v1 import log_ingest_service_pb2 as ingest_pb
from junglegrid.logs.v1 import log_internal_service_pb2 as internal_pb
from junglegrid.logs.v1 import log_service_pb2 as pb

from services.logs.config import LogsConfig
from services.logs.domain import Accepted, Batch, Entry, JobLog, Line, Page, Stream, Tail, Update
from services.logs.errors import InvalidCursor

ENTRY_ID_MAX = 2**63 - 1  # what a row and the reply can hold

_KINDS: Mapping[int, Stream] = {
    ingest_pb.LOG_STREAM_KIND_STDOUT: Stream.STDOUT,
    ingest_pb.LOG_STREAM_KIND_STDERR: Stream.STDERR,
    ingest_pb.LOG_STREAM_KIND_SYSTEM: Stream.SYSTEM,
}
_WIRE = {stream: kind for kind, stream in _KINDS.items()}
_SOURCE = {
    Stream.STDOUT: ("app-stdout", "workload_stdout"),
    Stream.STDERR: ("app-stderr", "workload_stderr"),
    Stream.SYSTEM: ("managed-wrapper", "platform"),
}


def job_status_text(status: int) -> str:
    """`queued` for JOB_STATUS_QUEUED."""
    return job_pb2.JobStatus.Name(status).removeprefix("JOB_STATUS_").lower()  # type: ignore[arg-type]


def cursor_from_text(text: str) -> int:
    """A cursor or Last-Event-ID as an entry id; empty is 0. Raises InvalidCursor."""
    if not text:
        return 0
    # Told by length first: an entry id has at most 19 digits, and int() of many is slow.
    known = text.isascii() and text.isdigit() and len(text) <= len(str(ENTRY_ID_MAX))
    if not known or int(text) > ENTRY_ID_MAX:
        raise InvalidCursor(
            "cursor must be the entry_id or next_cursor of an earlier answer, or 0",
            details={"field": "cursor"},
        )
    return int(text)


def stream_from_text(text: str) -> Stream | None:
    """`all` and nothing mean every stream."""
    return Stream(text) if text in ("stdout", "stderr") else None


def batch_from_proto(
    request: ingest_pb.AppendLogsRequest, attempt: int, task_index: int, config: LogsConfig
) -> Batch:
    """A node's batch, within the limits of `config`: what is beyond them is not acknowledged, so
    an honest node sends it again. Lines of unknown streams are dropped."""
    lines = [
        Line(
            _KINDS[line.stream],
            line.seq,
            line.data[: config.line_bytes_max].decode("utf-8", "replace"),
            line.partial,
            line.node_time_micros,
        )
        for line in request.lines[: config.batch_lines_max]
        if line.stream in _KINDS
    ]
    ends = {_KINDS[end.stream]: end.last_seq for end in request.ends if end.stream in _KINDS}
    return Batch(attempt, task_index, lines, ends, request.gap)


def accepted_to_proto(
    lease_id: str, accepted: Accepted, now: datetime
) -> ingest_pb.AppendLogsResponse:
    """The acknowledgement of one batch."""
    return ingest_pb.AppendLogsResponse(
        lease_id=lease_id,
        durable=[
            ingest_pb.StreamEnd(stream=_WIRE[stream], last_seq=last)  # type: ignore[arg-type]
            for stream, last in accepted.durable.items()
        ],
        complete=accepted.complete,
        refused="" if accepted.refused is None else accepted.refused.value,
        receive_time=timestamp(now),
    )


def refused_to_proto(lease_id: str, reason: str) -> ingest_pb.AppendLogsResponse:
    """Lines of this lease are not taken."""
    return ingest_pb.AppendLogsResponse(lease_id=lease_id, refused=reason)


def entry_to_proto(entry: Entry) -> pb.LogItem:
    """One entry as the public contract shows it."""
    source, category = _SOURCE[entry.line.stream]
    return pb.LogItem(
        entry_id=entry.entry_id,
        stream=entry.line.stream.value,
        source=source,
        category=category,
        message=entry.line.text,
        created_at=timestamp(entry.received_time),
        attempt=entry.attempt,
        seq=entry.line.seq,
        partial=entry.line.partial,
    )


def timestamp(time: datetime) -> Timestamp:
    """A Timestamp of an aware time."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


_HINT = "No log lines yet. Lifecycle events tell what happens before the process starts."


def page_to_proto(page: Page, cursor: int) -> pb.ListLogsResponse:
    """A page of entries; an empty one keeps the reader's cursor."""
    return pb.ListLogsResponse(
        job_id=page.log.job_id,
        status=page.log.status,
        items=[entry_to_proto(entry) for entry in page.entries],
        next_cursor=page.entries[-1].entry_id if page.entries else cursor,
        has_more=page.has_more,
        usage_hint="" if page.log.last_entry_id else _HINT,
    )


def update_to_proto(job_id: str, update: Update) -> pb.StreamLogsResponse:
    """One event of the live stream."""
    if update.entry is not None:
        entry = entry_to_proto(update.entry)
        return pb.StreamLogsResponse(entry_id=entry.entry_id, log=entry)
    if update.end is not None:
        return pb.StreamLogsResponse(terminal=_terminal(update.end))
    if update.notice is not None:
        code, message = update.notice
        return pb.StreamLogsResponse(notice=pb.NoticeUpdate(code=code, message=message))
    if update.beat is not None:
        return pb.StreamLogsResponse(heartbeat=pb.HeartbeatUpdate(time=timestamp(update.beat)))
    return pb.StreamLogsResponse(status=pb.StatusUpdate(job_id=job_id, status=update.status))


def tails_to_proto(log: JobLog, stdout: Tail, stderr: Tail) -> internal_pb.GetLogTailsResponse:
    """The ends of both streams."""
    return internal_pb.GetLogTailsResponse(
        stdout_tail=stdout.text,
        stderr_tail=stderr.text,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
        gap=log.gap,
        complete=log.closed or log.complete,
    )


def _terminal(log: JobLog) -> pb.TerminalUpdate:
    return pb.TerminalUpdate(
        job_id=log.job_id,
        status=log.status,
        exit_code=log.exit_code,
        last_entry_id=log.last_entry_id,
    )
