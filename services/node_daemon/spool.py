"""The spool: one append-only file per attempt that holds the job's output until the grid has it.

It is a run of blocks. A block is a 32-byte header and the raw bytes of some whole lines of one
stream, joined by newlines: lines are neither counted one by one nor copied again on the way, which
is what lets one shim keep up with a job that prints a million of them.

    crc32   u32   of everything after it, payload included
    length  u32   of the payload
    seq     u64   number of the first entry in its stream, from 1
    time    i64   nanoseconds since the epoch on this node, when the bytes were read
    count   u32   entries in the block
    stream  u8    1 stdout, 2 stderr
    kind    u8    see Kind
    zero    u16

Durability: blocks are not synced one by one (a power cut ends the job anyway, and its attempt is
lost); the whole file is synced before exit.json is written, so an exit that was reported has its
log behind it. A torn tail fails its CRC and reads as the end.

Imports only the standard library's small modules: the shim runs this.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

STDOUT, STDERR = 1, 2
LINE_BYTES_MAX = 16 * 1024
BLOCK_BYTES_MAX = 60 * 1024
_HEADER = struct.Struct("<IIQqIBBH")
_AFTER_CRC = struct.Struct("<IQqIBBH")


class Kind(IntEnum):
    """What a block holds. Every kind but EOF holds entries that take sequence numbers."""

    LINES = 0
    CONTINUED = 1  # one piece of a line longer than LINE_BYTES_MAX; the next entry goes on with it
    TRUNCATED = 2  # one marker: the attempt's log limit was reached, nothing follows but EOF
    LOST = 3  # one marker: output was lost here, the disk did not take it
    EOF = 4  # no entry; seq is the number of the stream's last entry


class LogEntry(NamedTuple):
    """One line, or one piece of a long line (`continued`), or one marker."""

    stream: int
    seq: int
    node_time_ns: int
    kind: Kind
    data: bytes

    @property
    def continued(self) -> bool:
        return self.kind is Kind.CONTINUED


class LogBlock(NamedTuple):
    """Entries `seq`, `seq + 1`, ... of one stream, read at one moment."""

    stream: int
    seq: int
    node_time_ns: int
    kind: Kind
    lines: tuple[bytes, ...]

    def entries(self) -> Iterator[LogEntry]:
        for number, line in enumerate(self.lines, self.seq):
            yield LogEntry(self.stream, number, self.node_time_ns, self.kind, line)


class LogBatch(NamedTuple):
    """Whole blocks, and the offset to read from (and to acknowledge) next."""

    blocks: tuple[LogBlock, ...]
    next_offset: int

    def entries(self) -> Iterator[LogEntry]:
        for block in self.blocks:
            yield from block.entries()

    @property
    def ends(self) -> dict[int, int]:
        """Streams that end in this batch, with the number of their last entry."""
        return {block.stream: block.seq for block in self.blocks if block.kind is Kind.EOF}


class SpoolWriter:
    """Turns what was read from two pipes into blocks. One writer per spool, in the shim."""

    def __init__(self, fd: int, bytes_max: int) -> None:
        self._fd = fd
        self._room = bytes_max
        self._bytes_max = bytes_max
        self._streams = {STDOUT: _Stream(STDOUT), STDERR: _Stream(STDERR)}
        self._full = False
        self._lost_here = 0
        self.size = os.fstat(fd).st_size
        self.kept = 0
        self.dropped = 0

    def feed(self, stream: int, data: bytes, time_ns: int) -> bool:
        """Takes bytes as they were read; True when entries were added to the file."""
        state = self._streams[stream]
        if self._full:
            self.dropped += len(data)
            return False
        return self._append(state, state.cut(data), time_ns)

    def end(self, stream: int, time_ns: int) -> None:
        """Ends the stream: what is left of its last line, then its EOF block."""
        state = self._streams[stream]
        if self._full:
            self.dropped += len(state.pending)
        elif state.pending:
            self._append(state, [(Kind.LINES, state.pending)], time_ns)
        state.pending = b""
        self._write(_block(Kind.EOF, stream, state.seq, time_ns, b"", 0))

    def entries(self, stream: int) -> int:
        return self._streams[stream].seq

    def sync(self) -> None:
        os.fsync(self._fd)

    def _append(self, state: _Stream, pieces: list[tuple[Kind, bytes]], time_ns: int) -> bool:
        before = (state.seq, self._room, self._full, self.dropped)
        kept = 0
        blocks: list[bytes] = []
        if pieces and self._lost_here:
            text = b"[%d bytes of output were lost here: the node's disk was full]"
            blocks.append(state.block(Kind.LOST, text % self._lost_here, time_ns))
        for kind, payload in pieces:
            kept += self._keep(state, kind, payload, time_ns, blocks)
        if not blocks:
            return False
        if self._write(b"".join(blocks)):
            self.kept += kept
            self._lost_here = 0
            return True
        state.seq, self._room, self._full, dropped = before
        lost = sum(len(payload) + 1 for _, payload in pieces)
        self._lost_here += lost
        self.dropped = dropped + lost
        return False

    def _keep(
        self, state: _Stream, kind: Kind, payload: bytes, time_ns: int, blocks: list[bytes]
    ) -> int:
        if self._full:
            self.dropped += len(payload) + 1
            return 0
        size = len(payload) + 1
        if size > self._room:
            whole = payload.rfind(b"\n", 0, self._room) if kind is Kind.LINES else -1
            keep = payload[:whole] if whole >= 0 else b""
            if whole >= 0:
                blocks.append(state.block(kind, keep, time_ns))
            text = b"[log limit of %d bytes reached: further output is not kept]"
            blocks.append(state.block(Kind.TRUNCATED, text % self._bytes_max, time_ns))
            self._full = True
            self.dropped += size - (len(keep) + 1 if whole >= 0 else 0)
            return len(keep) + 1 if whole >= 0 else 0
        self._room -= size
        blocks.append(state.block(kind, payload, time_ns))
        return size

    def _write(self, data: bytes) -> bool:
        """All or nothing: a disk that is full must not leave half a block before the next one."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
            return False
        self.size += len(data)
        return True


class _Stream:
    """Where one stream stands: the number of its last entry, and the line not yet ended."""

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.seq = 0
        self.pending = b""

    def cut(self, data: bytes) -> list[tuple[Kind, bytes]]:
        """Payloads of at most BLOCK_BYTES_MAX, lines of at most LINE_BYTES_MAX."""
        buffer = self.pending + data if self.pending else data
        end = buffer.rfind(b"\n")
        self.pending = buffer[end + 1 :]
        pieces = _pieces(buffer[:end]) if end >= 0 else []
        while len(self.pending) > LINE_BYTES_MAX:
            head, self.pending = _split_line(self.pending)
            pieces.append((Kind.CONTINUED, head))
        return pieces

    def block(self, kind: Kind, payload: bytes, time_ns: int) -> bytes:
        count = payload.count(b"\n") + 1 if kind is Kind.LINES else 1
        first = self.seq + 1
        self.seq += count
        return _block(kind, self.stream, first, time_ns, payload, count)


def _pieces(whole: bytes) -> list[tuple[Kind, bytes]]:
    """Cuts whole lines (joined by newlines) into payloads; long lines become several."""
    if len(whole) <= LINE_BYTES_MAX:
        return [(Kind.LINES, whole)]
    pieces: list[tuple[Kind, bytes]] = []
    batch: list[bytes] = []
    size = 0
    for line in whole.split(b"\n"):
        while len(line) > LINE_BYTES_MAX:
            if batch:
                pieces.append((Kind.LINES, b"\n".join(batch)))
                batch, size = [], 0
            head, line = _split_line(line)
            pieces.append((Kind.CONTINUED, head))
        if size + len(line) > BLOCK_BYTES_MAX:
            pieces.append((Kind.LINES, b"\n".join(batch)))
            batch, size = [], 0
        batch.append(line)
        size += len(line) + 1
    pieces.append((Kind.LINES, b"\n".join(batch)))
    return pieces


def _split_line(line: bytes) -> tuple[bytes, bytes]:
    """Cuts at the limit, a few bytes earlier where that would cut a UTF-8 character in two."""
    cut = LINE_BYTES_MAX
    while cut > LINE_BYTES_MAX - 3 and line[cut] & 0xC0 == 0x80:
        cut -= 1
    return line[:cut], line[cut:]


def _block(kind: Kind, stream: int, seq: int, time_ns: int, payload: bytes, count: int) -> bytes:
    rest = _AFTER_CRC.pack(len(payload), seq, time_ns, count, stream, kind, 0) + payload
    return zlib.crc32(rest).to_bytes(4, "little") + rest


def read_blocks(fd: int, offset: int, limit: int) -> LogBatch:
    """Whole, valid blocks from `offset`: at least one if there is one, then up to `limit` bytes."""
    data = os.pread(fd, max(limit, _HEADER.size + BLOCK_BYTES_MAX + LINE_BYTES_MAX), offset)
    blocks: list[LogBlock] = []
    at = 0
    while at + _HEADER.size <= len(data):
        crc, length, seq, time_ns, count, stream, kind, _ = _HEADER.unpack_from(data, at)
        end = at + _HEADER.size + length
        if end > len(data) or (blocks and end > limit):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end]) != crc:
            break
        payload = data[at + _HEADER.size : end]
        lines = _lines(Kind(kind), payload, count)
        blocks.append(LogBlock(stream, seq, time_ns, Kind(kind), lines))
        at = end
    return LogBatch(tuple(blocks), offset + at)


def _lines(kind: Kind, payload: bytes, count: int) -> tuple[bytes, ...]:
    if count == 0:
        return ()
    return tuple(payload.split(b"\n")) if kind is Kind.LINES else (payload,)


def valid_end(fd: int, offset: int = 0) -> int:
    """Where the last whole block ends: a writer that was killed may leave half a block more."""
    while (batch := read_blocks(fd, offset, 1 << 20)).blocks:
        offset = batch.next_offset
    return offset
