"""`make proto` compiles what changed, skips what did not, and says when it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.proto.build import BuildFailed, build

THING = """syntax = "proto3";
package rule.v1;
import "buf/validate/validate.proto";
import "google/api/annotations.proto";
message Thing {
  string name = 1 [(buf.validate.field).string.max_len = 5];
}
"""


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    folder = tmp_path / "protos"
    (folder / "rule" / "v1").mkdir(parents=True)
    (folder / "rule" / "v1" / "thing.proto").write_text(THING)
    return folder


def test_only_changes_are_compiled(tmp_path: Path, protos: Path) -> None:
    out, work = tmp_path / "pb", tmp_path / "build"
    (out / "old").mkdir(parents=True)
    (out / "old" / "gone_pb2.py").touch()
    assert "1 files compiled" in build(protos, out, work)
    assert {path.name for path in (out / "rule" / "v1").iterdir()} >= {
        "thing_pb2.py",
        "thing_pb2.pyi",
        "thing_pb2_grpc.py",
    }
    assert (out / "buf" / "validate" / "validate_pb2.py").is_file()
    assert not (out / "google").exists()
    assert not (out / "old" / "gone_pb2.py").exists()
    assert "up to date" in build(protos, out, work)
    (protos / "rule" / "v1" / "thing.proto").write_text(THING.replace("name", "title"))
    assert "1 files compiled" in build(protos, out, work)
    assert b"title" in (work / "grid.binpb").read_bytes()


def test_a_broken_file_is_not_taken_for_done(tmp_path: Path, protos: Path) -> None:
    (protos / "rule" / "v1" / "thing.proto").write_text(THING.replace("string", "strong"))
    for _ in range(2):
        with pytest.raises(BuildFailed):
            build(protos, tmp_path / "pb", tmp_path / "build")


def test_no_protos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"no \.proto files"):
        build(tmp_path, tmp_path / "pb", tmp_path / "build")
