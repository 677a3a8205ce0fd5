"""Compares the contracts with protos/baseline.binpb, and moves that baseline with a note.

``check`` fails on a change that would break a caller; ``accept`` is how such a change is made on
purpose, and leaves a line in protos/CHANGES.md that says why.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "build" / "protos" / "grid.binpb"
BASELINE = ROOT / "protos" / "baseline.binpb"
CHANGES = ROOT / "protos" / "CHANGES.md"
TITLE = "# Changes to the contracts\n\nOne entry for each move of `baseline.binpb`, newest last.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="report changes that break WIRE_JSON compatibility")
    accept = commands.add_parser("accept", help="make the present contracts the baseline")
    accept.add_argument("--note", required=True, help="what changed and why, for CHANGES.md")
    options = parser.parse_args()
    if options.command == "check":
        return check()
    return move(options.note.strip())


def check() -> int:
    if not BASELINE.is_file():
        print("protos/baseline.binpb is absent: there is nothing to compare with yet.")
        print('`make proto-accept NOTE="..."` writes it.')
        return 0
    findings = breaking()
    print(findings or "no breaking change", flush=True)
    return 1 if findings else 0


def breaking() -> str:
    """What buf calls breaking between the baseline and the image; empty when nothing is."""
    done = buf("breaking", str(IMAGE), "--against", str(BASELINE), "--path", "junglegrid")
    if done.returncode not in (0, 100):
        raise SystemExit(f"buf breaking failed: {done.stderr.strip()}")
    return done.stdout.strip()


def move(note: str) -> int:
    if not note:
        print('A note is needed: make proto-accept NOTE="what changed and why"', file=sys.stderr)
        return 2
    findings = breaking() if BASELINE.is_file() else ""
    done = buf("build", str(IMAGE), "--exclude-source-info", "-o", str(BASELINE))
    if done.returncode != 0:
        raise SystemExit(f"buf build failed: {done.stderr.strip()}")
    before = CHANGES.read_text() if CHANGES.is_file() else TITLE
    CHANGES.write_text(before.rstrip() + "\n\n" + entry(note, findings))
    print("protos/baseline.binpb moved; the note is in protos/CHANGES.md")
    return 0


def entry(note: str, findings: str) -> str:
    lines = [f"## {datetime.now(UTC):%Y-%m-%d}", "", note]
    if findings:
        lines += ["", "Breaking:", "", *(f"- {line}" for line in findings.splitlines())]
    return "\n".join(lines) + "\n"


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "buf"
    return subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
