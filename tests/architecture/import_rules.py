"""Who may import whom: the room plan as import-linter contracts, built from the tree.

They are built, not listed, so that a new service is under the rules from its first file.
``python -m tests.architecture.import_rules`` writes build/importlinter.toml and checks it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from importlinter.cli import lint_imports

from tests.architecture.tree import CODE, DAEMON, EXTRA_ROOMS, ROOT

Contract = dict[str, str | bool | list[str]]

# Highest first; a room may import those below it, and rooms of one line not each other.
ROOM_LAYERS = [
    "(module)",
    "(rpc) | (consumers) | (loops) | (clients)",
    "(service) | (convert)",
    "(repository)",
    " | ".join(f"({room})" for room in EXTRA_ROOMS),
    "(tables) | (domain)",
    "(errors) | (config)",
    "(migrations)",
]
DOORS = ("rpc", "consumers", "loops", "clients")
WIRE = ["google", "grpc", "junglegrid", "buf"]
CLIENTS = ["aiokafka", "boto3", "aiohttp"]
# Room -> what it must not reach, not even through another module of ours.
PURE = {
    "config": ["sqlalchemy", *WIRE, *CLIENTS],
    "errors": ["sqlalchemy", *WIRE, *CLIENTS],
    "domain": ["sqlalchemy", *WIRE, *CLIENTS],
}
# Room -> what it must not name itself; the modules under it may.
DIRECT = {
    "tables": [*WIRE, *CLIENTS],
    "repository": [*WIRE, *CLIENTS, "libs.bus"],
    "service": [*WIRE, "aiokafka", "boto3"],
    "convert": ["sqlalchemy", *CLIENTS],
    "rpc": ["sqlalchemy"],
    "consumers": ["sqlalchemy"],
    "loops": ["sqlalchemy", *WIRE],
}


def contracts(root: Path = ROOT) -> list[Contract]:
    """Every contract that applies to the folders that exist."""
    services = containers(root / "services")
    rooms = [name for name in services if name != DAEMON]
    found = [*room_contracts(root, rooms), *edges(root)]
    if rooms:
        found.append(layers([f"services.{name}" for name in rooms]))
        found.append(independent([f"services.{name}" for name in services]))
    if present(root, [DAEMON], "domain"):
        found.append(daemon())
    return found


def containers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*/") if any(path.glob("*.py")))


def layers(services: list[str]) -> Contract:
    return {
        "name": "Rooms of a service import downwards, and there are no others",
        "type": "layers",
        "containers": services,
        "layers": ROOM_LAYERS,
        "exhaustive": True,
    }


def independent(services: list[str]) -> Contract:
    return {
        "name": "Services speak by stub or topic, never by import",
        "type": "independence",
        "modules": services,
    }


def room_contracts(root: Path, services: list[str]) -> list[Contract]:
    found = []
    for room, banned in PURE.items():
        found.append(
            forbidden(f"{room} is pure", present(root, services, room), askable(root, banned))
        )
    for room, banned in DIRECT.items():
        sources = present(root, services, room)
        title = f"{room} does not name what it must not know"
        found.append(forbidden(title, sources, askable(root, banned), direct=True))
    for service in services:
        doors = [name for door in DOORS for name in present(root, [service], door)]
        stores = [
            name for room in ("repository", "tables") for name in present(root, [service], room)
        ]
        title = f"Doors of {service} go through its service, not to its rows"
        found.append(forbidden(title, doors, stores, direct=True))
    return [
        contract
        for contract in found
        if contract["source_modules"] and contract["forbidden_modules"]
    ]


def askable(root: Path, modules: list[str]) -> list[str]:
    """Those of the modules that import-linter knows: other people's, and ours that exist."""
    return [name for name in modules if name.partition(".")[0] not in CODE or exists(root, name)]


def present(root: Path, services: Sequence[str], room: str) -> list[str]:
    """The modules of that room which exist; a package counts as one."""
    return [
        f"services.{name}.{room}"
        for name in services
        if (root / "services" / name / f"{room}.py").is_file()
        or (root / "services" / name / room).is_dir()
    ]


def forbidden(
    title: str, sources: list[str], banned: list[str], *, direct: bool = False
) -> Contract:
    return {
        "name": title,
        "type": "forbidden",
        "source_modules": sources,
        "forbidden_modules": banned,
        "allow_indirect_imports": direct,
    }


def edges(root: Path) -> list[Contract]:
    """Between the top-level folders."""
    rules = [
        ("Libraries know no service", ["libs"], ["services", "gateway", "deploy", "tests"]),
        (
            "Services know neither the gateway nor the composition",
            ["services"],
            ["gateway", "deploy", "tests"],
        ),
        ("The gateway speaks to services by stub", ["gateway"], ["services", "deploy", "tests"]),
        ("Only deploy/run.py wires services; nothing shipped needs tests", ["deploy"], ["tests"]),
        (
            "The transcoder holds no business words",
            ["gateway.transcoder"],
            ["gateway.dialects", "gateway.mcp", "services"],
        ),
        (
            "The client installs alone",
            ["libs.client"],
            ["services", "gateway", "deploy", "grpc", "sqlalchemy"],
        ),
    ]
    found = []
    for title, sources, banned in rules:
        if all(exists(root, name) for name in sources):
            there = [
                name for name in banned if exists(root, name) or name in ("grpc", "sqlalchemy")
            ]
            found.append(forbidden(title, sources, there))
    wired = [f"services.{name}" for name in containers(root / "services")]
    others = [
        f"deploy.{path.stem}"
        for path in sorted((root / "deploy").glob("*"))
        if is_module(path) and path.stem not in ("run", "__init__")
    ]
    if wired and others:
        found.append(forbidden("deploy/run.py alone imports services", others, wired, direct=True))
    return found


def exists(root: Path, module: str) -> bool:
    return is_module(root / module.replace(".", "/")) or is_module(
        root / f"{module.replace('.', '/')}.py"
    )


def is_module(path: Path) -> bool:
    return path.suffix == ".py" if path.is_file() else any(path.rglob("*.py"))


def daemon() -> Contract:
    banned = ["asyncio", "socket", "subprocess", "sqlalchemy", *WIRE, *CLIENTS]
    return forbidden("The daemon's decisions do no I/O", [f"services.{DAEMON}.domain"], banned)


def write(root: Path = ROOT) -> Path:
    """Write the contracts where lint-imports reads them; returns that path."""
    tops = [name for name in ("libs", "services", "gateway", "deploy") if is_module(root / name)]
    lines = [
        "[tool.importlinter]",
        f"root_packages = {json.dumps(tops)}",
        "include_external_packages = true",
    ]
    for contract in contracts(root):
        lines += ["", "[[tool.importlinter.contracts]]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in contract.items()]
    path = root / "build" / "importlinter.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(lint_imports(config_filename=str(write()), no_logo=True))
