"""Compiles protos/ into libs/pb, and into one image for buf: ``make proto``.

Generated code is never committed. The work is skipped when no input changed since the last run.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))
# The protovalidate wheel ships its options as a descriptor, not as text.
VALIDATE_PROTO = "buf/validate/validate.proto"
TOOLS = ("grpcio-tools", "protovalidate", "googleapis-common-protos", "mypy-protobuf")


class BuildFailed(Exception):
    """protoc refused its input; it has said why on standard error."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compile protos/ into libs/pb and build/protos/grid.binpb."
    )
    parser.add_argument(
        "--protos", type=Path, default=ROOT / "protos", help="folder of .proto files"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "libs" / "pb", help="folder of generated code"
    )
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "protos", help="folder of the image"
    )
    parser.add_argument("--force", action="store_true", help="compile even if nothing changed")
    options = parser.parse_args()
    try:
        print(build(options.protos, options.out, options.build, force=options.force))
    except BuildFailed as failure:
        print(f"proto: {failure}", file=sys.stderr)
        return 1
    return 0


def build(protos: Path, out: Path, work: Path, *, force: bool = False) -> str:
    """Bring ``out`` and ``work``/grid.binpb up to date with ``protos``; return what was done."""
    sources = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    if not sources:
        raise BuildFailed(f"there are no .proto files under {protos}")
    work.mkdir(parents=True, exist_ok=True)
    stamp = work / "stamp"
    with only_builder(work / "lock"):
        wanted = fingerprint(protos, sources)
        if not force and stamp.is_file() and stamp.read_text() == wanted and out.is_dir():
            return f"proto: {len(sources)} files, up to date"
        stamp.unlink(missing_ok=True)
        compile_all(protos, sources, out, work)
        stamp.write_text(wanted)
    return f"proto: {len(sources)} files compiled into {shown(out)}"


@contextmanager
def only_builder(lock: Path) -> Iterator[None]:
    """Two builds of one checkout wait for each other."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fingerprint(protos: Path, sources: list[str]) -> str:
    """Changes when a source, this script or a tool's version changes."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in sources:
        digest.update(name.encode() + b"\0" + (protos / name).read_bytes() + b"\0")
    for tool in TOOLS:
        digest.update(f"{tool}={installed(tool)}\n".encode())
    return digest.hexdigest()


def installed(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def compile_all(protos: Path, sources: list[str], out: Path, work: Path) -> None:
    fresh = work / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    third_party = work / "validate.binpb"
    third_party.write_bytes(validate_descriptors())
    run_protoc(arguments(protos, fresh, work, third_party), [*sources, VALIDATE_PROTO])
    (work / "grid.new").replace(work / "grid.binpb")
    mirror(fresh, out)
    shutil.rmtree(fresh)


def validate_descriptors() -> bytes:
    """validate.proto and the well-known types it imports, as a FileDescriptorSet."""
    from google.protobuf import (
        descriptor_pb2,
        duration_pb2,
        field_mask_pb2,
        timestamp_pb2,
    )
    from protovalidate._gen.buf.validate import validate_pb

    files = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    return files.SerializeToString()


def arguments(protos: Path, fresh: Path, work: Path, third_party: Path) -> list[str]:
    import grpc_tools

    chosen = [
        f"-I{protos}",
        f"-I{SITE}",  # google/api/*.proto
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--descriptor_set_in={third_party}",
        f"--python_out={fresh}",
        f"--grpc_python_out={fresh}",
        f"--descriptor_set_out={work / 'grid.new'}",
        "--include_imports",
        "--include_source_info",
    ]
    return chosen + stub_arguments(fresh)


def stub_arguments(fresh: Path) -> list[str]:
    """Type stubs need mypy-protobuf, which a runtime-only installation does not have."""
    if installed("mypy-protobuf") is None:
        print("proto: no type stubs (mypy-protobuf is a development package; `make setup` adds it)")
        return []
    scripts = Path(sysconfig.get_path("scripts"))
    return [
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--mypy_out=quiet:{fresh}",
        f"--mypy_grpc_out=quiet,only_async:{fresh}",
    ]


def run_protoc(arguments: list[str], sources: list[str]) -> None:
    from grpc_tools import protoc

    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise BuildFailed("protoc found errors, see above")


def mirror(fresh: Path, out: Path) -> None:
    """Make ``out`` equal to ``fresh`` file by file, so that running programs never see a gap."""
    made = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for name in made:
        target = out / name
        if target.is_file() and target.read_bytes() == (fresh / name).read_bytes():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).replace(target)
    for path in list(out.rglob("*")):
        if path.is_file() and path.relative_to(out) not in made and path.suffix != ".pyc":
            path.unlink()


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    sys.exit(main())
