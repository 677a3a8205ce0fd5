"""The repository's own files: pins, make targets, the contracts' baseline, what is kept out."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, our_files, shown

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
# Written in two pieces, so that this file does not name them.
PRIVATE = [
    first + second
    for first, second in (
        ("/wo", "rk/main"),
        ("/wo", "rk/shared"),
        ("/tmp/", "jg"),
        ("pypi", ".org"),
        ("python", "hosted.org"),
        ("registry.np", "mjs.org"),
        ("deb.de", "bian.org"),
        ("repo1.ma", "ven.org"),
        ("proxy.go", "lang.org"),
    )
]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_hashes_and_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--?(index|extra-index|find-links|i |f )", text, re.MULTILINE)
    unjoined = text.replace("\\\n", " ")
    pins = [line for line in unjoined.splitlines() if re.match(r"^[a-z0-9]", line, re.IGNORECASE)]
    assert pins
    assert not [
        line.split()[0] for line in pins if "==" not in line or "--hash=sha256:" not in line
    ]


def test_development_pins_agree_with_the_runtime() -> None:
    runtime, dev = (pins(name) for name in ("runtime", "dev"))
    assert {name: dev.get(name) for name in runtime} == runtime


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)", text, re.MULTILINE))


def test_grpc_packages_move_together() -> None:
    minor = {
        version.rsplit(".", 1)[0]
        for name, version in pins("runtime").items()
        if name.startswith("grpcio")
    }
    assert len(minor) == 1


def test_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))
    told = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[0] for line in told.splitlines()} == targets
    phony = makefile.replace("\\\n", " ").split(".PHONY:")[1].split("\n")[0].split()
    assert set(phony) == targets


def test_contracts_have_a_baseline() -> None:
    assert (ROOT / "protos" / "baseline.binpb").is_file(), 'make proto-accept NOTE="..." writes it'
    assert (ROOT / "protos" / "CHANGES.md").is_file()


def test_generated_code_is_not_committed() -> None:
    assert not [
        shown(path) for path in our_files() if shown(path).startswith(("libs/pb/", "build/"))
    ]


def test_ci_runs_what_the_readme_says() -> None:
    run = ROOT / ".ci" / "run"
    assert os.access(run, os.X_OK)
    assert run.read_text().rstrip().endswith("make test")
    assert "make test" in (ROOT / "README.md").read_text()


def test_no_file_names_a_machine_or_a_registry() -> None:
    naming = [
        f"{shown(path)}: {word}"
        for path in our_files()
        for word in PRIVATE
        if word.encode() in path.read_bytes()
    ]
    assert not naming
