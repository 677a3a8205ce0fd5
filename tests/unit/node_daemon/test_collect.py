"""Collection on trees made here; the sandbox's contract tests let a hostile job make them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.node_daemon.collect import (
    CollectLimits,
    FileChanged,
    Refused,
    collect,
    normal_name,
)


def names(folder: Path, limits: CollectLimits | None = None) -> list[str]:
    with collect(folder, limits) as found:
        return [file.name for file in found.files]


def refusals(folder: Path, limits: CollectLimits | None = None) -> dict[str, Refused]:
    with collect(folder, limits) as found:
        return {refusal.path: refusal.reason for refusal in found.refusals}


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert collect(tmp_path / "none").files == ()


def test_files_come_sorted_with_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "z").write_bytes(b"1" * 3_000_000)
    with collect(tmp_path) as found:
        assert [(file.name, file.size) for file in found.files] == [("a/z", 3_000_000), ("b", 1)]
        assert [len(chunk) for chunk in found.files[0].chunks(1 << 20)] == [
            1048576,
            1048576,
            902848,
        ]
        assert found.files[0].read(2_999_999, 10) == b"1"


def test_a_file_stays_the_one_that_was_checked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"checked")
    with collect(tmp_path) as found:
        (tmp_path / "a").unlink()
        (tmp_path / "a").symlink_to("/etc/passwd")
        assert b"".join(found.files[0].chunks()) == b"checked"


def test_a_file_that_grows_is_read_to_the_size_it_had(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    with collect(tmp_path) as found:
        (tmp_path / "a").write_bytes(b"123456")
        assert b"".join(found.files[0].chunks()) == b"12"


def test_a_file_that_shrinks_is_an_error_and_not_a_short_upload(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123456")
    with collect(tmp_path) as found:
        os.truncate(tmp_path / "a", 2)
        with pytest.raises(FileChanged):
            list(found.files[0].chunks())


def test_links_and_specials_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.link(tmp_path / "file", tmp_path / "second")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == []
    assert refusals(tmp_path) == {
        "file": Refused.HARD_LINK,
        "second": Refused.HARD_LINK,
        "link": Refused.SYMLINK,
        "folder": Refused.SYMLINK,
        "pipe": Refused.NOT_REGULAR,
    }


def test_caps(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"f{number}").write_bytes(b"x" * number)
    assert names(tmp_path, CollectLimits(files_max=2)) == ["f0", "f1"]
    assert refusals(tmp_path, CollectLimits(file_bytes_max=3)) == {"f4": Refused.TOO_LARGE}
    assert names(tmp_path, CollectLimits(total_bytes_max=3)) == ["f0", "f1", "f2"]
    assert names(tmp_path, CollectLimits(entries_max=1)) == ["f0"]


def test_a_sparse_terabyte_is_too_large(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert refusals(tmp_path) == {"sparse": Refused.TOO_LARGE}


def test_depth(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(6):
        deep = deep / "d"
        deep.mkdir()
        (deep / "f").write_text("x")
    assert names(tmp_path, CollectLimits(depth_max=2)) == ["d/d/f", "d/f"]
    assert refusals(tmp_path, CollectLimits(depth_max=2)) == {"d/d/d": Refused.TOO_DEEP}


def test_refusals_are_bounded_and_counted(tmp_path: Path) -> None:
    for number in range(150):
        (tmp_path / str(number)).symlink_to("x")
    found = collect(tmp_path)
    assert (len(found.refusals), found.refusals_more) == (100, 50)


def test_two_names_that_normalise_alike_are_not_both_taken(tmp_path: Path) -> None:
    (tmp_path / "é").write_text("composed")
    (tmp_path / "e\u0301").write_text("combining")
    assert names(tmp_path) == ["é"]
    assert Refused.BAD_NAME in refusals(tmp_path).values()


def test_every_descriptor_is_closed(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "f").write_text("x")
        os.mkfifo(tmp_path / f"d{number}" / "p")
    before = len(os.listdir("/proc/self/fd"))
    with collect(tmp_path) as found:
        assert len(found.files) == 20
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "path",
    [
        (b"..",), (b".",), (b"a", b".."), (b"a\\b",), (b"\x1b[0m",), (b"a\nb",), (b"\xff",),
        (b" a",), (b"a ",), (b"x" * 600, b"y" * 600),
        ("\u202egpj.exe".encode(),), ("\u2028".encode(),),
    ],
)  # fmt: skip
def test_names_that_are_not_allowed(path: tuple[bytes, ...]) -> None:
    assert normal_name(path) is None


def test_names_that_are() -> None:
    assert normal_name((b"out", "r\u00e9sum\u00e9 (1).pdf".encode())) == "out/résumé (1).pdf"
    assert normal_name((b"..hidden",)) == "..hidden"
