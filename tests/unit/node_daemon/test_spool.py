"""The spool: what goes in comes out, whatever way it was cut, torn or refused."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from services.node_daemon import attempt_files
from services.node_daemon.runtime.logs import SpoolLogs
from services.node_daemon.spool import (
    BLOCK_BYTES_MAX,
    LINE_BYTES_MAX,
    STDERR,
    STDOUT,
    Kind,
    LogEntry,
    SpoolWriter,
    read_blocks,
    valid_end,
)

LIMIT = 1 << 40


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return opened(tmp_path / attempt_files.SPOOL)


def read_all(fd: int, limit: int = 65536) -> list[LogEntry]:
    entries: list[LogEntry] = []
    offset = 0
    while (batch := read_blocks(fd, offset, limit)).blocks:
        entries += batch.entries()
        offset = batch.next_offset
    return entries


def rejoined(entries: list[LogEntry]) -> bytes:
    """The stream's bytes, from its entries; an unended last line gains a newline."""
    return b"".join(entry.data if entry.continued else entry.data + b"\n" for entry in entries)


def test_lines_of_two_streams_keep_their_own_numbers(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    assert writer.feed(STDOUT, b"a\nb\nhal", 1)
    assert writer.feed(STDERR, b"e\n", 2)
    assert writer.feed(STDOUT, b"f\n\n", 3)
    writer.end(STDOUT, 4)
    writer.end(STDERR, 5)
    entries = read_all(fd)
    assert [(e.stream, e.seq, e.data, e.node_time_ns) for e in entries] == [
        (STDOUT, 1, b"a", 1),
        (STDOUT, 2, b"b", 1),
        (STDERR, 1, b"e", 2),
        (STDOUT, 3, b"half", 3),
        (STDOUT, 4, b"", 3),
    ]


def test_an_unended_line_waits_for_its_end(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    assert not writer.feed(STDOUT, b"no newline yet", 1)
    assert read_all(fd) == []
    writer.end(STDOUT, 2)
    assert [entry.data for entry in read_all(fd)] == [b"no newline yet"]


def test_ends_tell_the_last_number(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    writer.feed(STDOUT, b"a\nb\n", 1)
    writer.end(STDOUT, 2)
    writer.end(STDERR, 2)
    assert read_blocks(fd, 0, 65536).ends == {STDOUT: 2, STDERR: 0}


@pytest.mark.parametrize("seed", range(8))
def test_any_bytes_in_any_pieces_come_back_whole(fd: int, seed: int) -> None:
    chance = random.Random(seed)
    lines = [chance.randbytes(chance.choice([0, 1, 80, 5000, 40_000])).replace(b"\n", b"x")
             for _ in range(60)]  # fmt: skip
    data = b"\n".join(lines) + b"\n"
    writer = SpoolWriter(fd, LIMIT)
    at = 0
    while at < len(data):
        size = chance.choice([1, 7, 4096, 65536])
        writer.feed(STDOUT, data[at : at + size], at)
        at += size
    writer.end(STDOUT, 0)
    entries = read_all(fd, limit=chance.choice([1, 4096, 65536]))
    assert rejoined(entries) == data
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert writer.entries(STDOUT) == len(entries)


def test_long_lines_are_split_and_say_so(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    writer.feed(STDOUT, b"x" * (LINE_BYTES_MAX * 2 + 5) + b"\nnext\n", 1)
    entries = read_all(fd)
    assert [(e.kind, len(e.data)) for e in entries] == [
        (Kind.CONTINUED, LINE_BYTES_MAX),
        (Kind.CONTINUED, LINE_BYTES_MAX),
        (Kind.LINES, 5),
        (Kind.LINES, 4),
    ]


def test_a_split_does_not_cut_a_character(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    text = "é" * LINE_BYTES_MAX
    writer.feed(STDOUT, b"x" + text.encode() + b"\n", 1)
    assert "".join(entry.data.decode() for entry in read_all(fd)) == "x" + text


def test_blocks_stay_within_their_size(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    writer.feed(STDOUT, b"".join(b"%d " % i + b"y" * 3000 + b"\n" for i in range(200)), 1)
    batch = read_blocks(fd, 0, 1 << 20)
    assert len(batch.blocks) > 1
    assert all(sum(map(len, block.lines)) <= BLOCK_BYTES_MAX for block in batch.blocks)


def test_a_batch_keeps_to_its_limit_but_is_never_empty(fd: int) -> None:
    writer = SpoolWriter(fd, LIMIT)
    for number in range(100):
        writer.feed(STDOUT, b"z" * 999 + b"\n", number)
    batch = read_blocks(fd, 0, 10_000)
    assert 1 < len(batch.blocks) < 10
    assert batch.next_offset <= 10_000
    assert len(read_blocks(fd, 0, 1).blocks) == 1


def test_a_torn_tail_reads_as_the_end_at_every_cut(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    whole = opened(path)
    writer = SpoolWriter(whole, LIMIT)
    writer.feed(STDOUT, b"first\n", 1)
    end = writer.size
    writer.feed(STDOUT, b"second\n", 2)
    data = path.read_bytes()
    for cut in range(end, len(data)):
        path.write_bytes(data[:cut])
        torn = os.open(path, os.O_RDONLY)
        assert [entry.data for entry in read_all(torn)] == [b"first"]
        assert valid_end(torn) == end
        os.close(torn)


def test_a_changed_byte_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    writer = SpoolWriter(opened(path), LIMIT)
    writer.feed(STDOUT, b"hello\n", 1)
    data = bytearray(path.read_bytes())
    for at in range(len(data)):
        data[at] ^= 1
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        assert read_blocks(fd, 0, 65536).blocks == ()
        os.close(fd)
        data[at] ^= 1


def test_the_limit_leaves_whole_lines_and_one_marker(fd: int) -> None:
    writer = SpoolWriter(fd, 20)
    writer.feed(STDOUT, b"123456789\n" * 5, 1)
    writer.feed(STDERR, b"more\n", 2)
    writer.end(STDOUT, 3)
    writer.end(STDERR, 3)
    entries = read_all(fd)
    assert [entry.kind for entry in entries] == [Kind.LINES, Kind.LINES, Kind.TRUNCATED]
    assert (writer.kept, writer.dropped) == (20, 35)


class FullDisk:
    """os.write that fails, or takes half, while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if self.full:
            self._write(fd, bytes(data)[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return self._write(fd, data)


def test_a_full_disk_leaves_no_half_block_and_a_marker(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch)
    writer = SpoolWriter(fd, LIMIT)
    writer.feed(STDOUT, b"before\n", 1)
    disk.full = True
    assert not writer.feed(STDOUT, b"lost 1\nlost 2\n", 2)
    disk.full = False
    writer.feed(STDOUT, b"after\n", 3)
    entries = read_all(fd)
    assert [(e.seq, e.kind) for e in entries] == [
        (1, Kind.LINES), (2, Kind.LOST), (3, Kind.LINES),
    ]  # fmt: skip
    assert b"14 bytes" in entries[1].data
    assert writer.dropped == 14


def test_a_hundred_thousand_lines_are_exact_and_quick(fd: int) -> None:
    lines = [b"line %d of the job's output, as it might look" % i for i in range(100_000)]
    data = b"\n".join(lines) + b"\n"
    writer = SpoolWriter(fd, LIMIT)
    started = time.process_time()
    for at in range(0, len(data), 65536):
        writer.feed(STDOUT, data[at : at + 65536], at)
    spent = time.process_time() - started
    assert [entry.data for entry in read_all(fd)] == lines
    # A tenth of this on an idle machine: it guards against counting line by line again.
    assert spent < 1.0


def test_the_acknowledged_offset_survives_and_a_missing_spool_is_empty(tmp_path: Path) -> None:
    logs = SpoolLogs(tmp_path)
    assert logs.read(0).blocks == ()
    assert logs.acknowledged == 0
    logs.acknowledge(4096)
    assert SpoolLogs(tmp_path).acknowledged == 4096


def test_a_torn_cell_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "cell"
    attempt_files.write_cell(path, 12345)
    assert attempt_files.read_cell(path) == 12345
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    assert attempt_files.read_cell(path) is None
