"""Looking at a running grid from the outside: its metrics, its bus, its files."""

from __future__ import annotations

import re
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>[-+.\deE]+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


class Metrics:
    """One scrape of /metrics."""

    def __init__(self, url: str) -> None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        self._samples = [
            (found["name"], dict(_LABEL.findall(found["labels"] or "")), float(found["value"]))
            for found in map(_SAMPLE.match, text.splitlines())
            if found
        ]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of `name` that have `labels`."""
        return sum(
            value
            for found, own, value in self._samples
            if found == name and labels.items() <= own.items()
        )

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sum of `name` by one label."""
        sums: dict[str, float] = {}
        for found, own, value in self._samples:
            if found == name:
                sums[own.get(label, "")] = sums.get(own.get(label, ""), 0.0) + value
        return sums


def records(home: Path) -> Iterator[tuple[str, str, bytes]]:
    """(topic, key, payload) of every record in the home's bus, in order."""
    with sqlite3.connect(f"file:{home}/bus.db?mode=ro", uri=True) as bus:
        yield from bus.execute('SELECT topic, key, payload FROM log ORDER BY "offset"')


def files_with(folder: Path, needles: dict[str, bytes]) -> list[tuple[str, str]]:
    """(file, needle's name) for every file below `folder` that holds one of `needles`."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        found += [(str(path.relative_to(folder)), name) for name, n in needles.items() if n in data]
    return found
