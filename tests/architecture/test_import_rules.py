"""The import contracts catch what they are for, on a small tree made here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT

CHECK = """
import sys
from pathlib import Path
from importlinter.cli import lint_imports
from tests.architecture.import_rules import write
sys.exit(lint_imports(config_filename=str(write(Path.cwd())), no_logo=True, no_cache=True))
"""
ROOMS = {
    "module": "from services.{name} import rpc",
    "rpc": "from services.{name} import convert, service\nimport grpc",
    "service": "from services.{name} import domain, repository",
    "convert": "from services.{name} import domain",
    "repository": "from services.{name} import domain, tables",
    "tables": "import sqlalchemy",
    "domain": "from services.{name} import errors",
    "errors": "from libs import thing",
    "config": "",
}
BAD = {
    "a door that reads rows": ("services/alpha/rpc.py", "from services.alpha import repository"),
    "a domain that knows SQL": ("services/alpha/domain.py", "import sqlalchemy"),
    "a use case that knows the wire": ("services/alpha/service.py", "import grpc"),
    "a room that looks up": ("services/alpha/repository.py", "from services.alpha import service"),
    "a service that imports another": (
        "services/alpha/service.py",
        "from services.beta import domain",
    ),
    "a room nobody planned": ("services/alpha/extra.py", ""),
    "a library that knows a service": ("libs/thing.py", "from services.alpha import domain"),
    "a second composition root": ("deploy/other.py", "from services.alpha import module"),
    "a gateway that imports a service": (
        "gateway/app.py",
        "from services.alpha import service",
    ),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("alpha", "beta"):
        for room, text in ROOMS.items():
            put(tmp_path / "services" / name / f"{room}.py", text.format(name=name))
    (tmp_path / "services" / "__init__.py").touch()
    put(tmp_path / "libs" / "thing.py", "")
    put(tmp_path / "gateway" / "app.py", "from libs import thing")
    put(tmp_path / "deploy" / "run.py", "from services.alpha import module")
    put(tmp_path / "deploy" / "other.py", "")
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(text + "\n")


def test_the_plan_itself_is_kept(tree: Path) -> None:
    assert broken_contracts(tree) == []


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_import_is_caught(tree: Path, case: str) -> None:
    name, line = BAD[case]
    path = tree / name
    put(path, (path.read_text() if path.exists() else "") + line)
    assert broken_contracts(tree)


def broken_contracts(tree: Path) -> list[str]:
    """Names of the contracts that import-linter reports as broken in that tree."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        cwd=tree,
        env={"PYTHONPATH": f"{tree}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    broken = [line for line in done.stdout.splitlines() if line.rstrip().endswith("BROKEN")]
    assert (done.returncode != 0) == bool(broken), done.stdout + done.stderr
    return broken
